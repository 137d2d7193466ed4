"""The loops of the package `jaxrnn-native`, in C++, for cells on CPUs."""

import dataclasses
import functools
from typing import Any, ClassVar, final

import jax

from .._affine.loop_rule import Primals, Residuals, run_loop
from .._affine.on_mesh import run_on_mesh
from .._affine.phases import Phases
from .._affine.sequence import run_here
from .._affine.units import CellOfUnits
from .._autodiff.by_platform import by_platform
from .._base.trees import with_structure
from .._base.typing import Array, Params, PyTree
from .._time.sequence import DeclinedError
from .._time.steps import Steps
from . import native_calls
from .implementation import Implementation, row_lengths, why_not_arrays
from .loop_beside_xla import LoopBesideXla
from .native_calls import BackwardArgs, Call, ForwardArgs


@final
@dataclasses.dataclass(frozen=True)
class Native(Implementation):
    """The loops of `jaxrnn-native` for a plain LSTM, `GRUCell` or `BasicRNNCell`.

    A call runs whole sequences, with several threads: matrices are rearranged once, and
    the elementwise work is done as soon as a product is there. Gradients of matrices
    and inputs are computed after the backward loop, in large products over the steps
    at which rows are alive.

    Under `vmap` mapped axes become rows of one call, as long as the parameters are not
    mapped. Rows on several devices need `jax.shard_map` or an explicit mesh: XLA cannot
    partition the call.
    """

    name: ClassVar[str] = "native"

    def run_sequences(
        self, cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
    ) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of all steps; see `Implementation`."""
        return run_on_mesh(run_native, cell, params, xs, state, steps)


def run_native(
    cell: Any,
    params: Params,
    xs: Array,
    state: PyTree,
    steps: Steps,
    is_default: bool = False,
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of the rows and units that a device has.

    The arguments are those of `Implementation.run_sequences`. With `is_default` a
    program for another platform has XLA's loop; else there is none for it.

    Raises:
        DeclinedError: If no call can run them, with the reason.
    """
    reason = why_not_cell(cell) or why_not_arrays(xs, state, steps)
    if reason := reason or native_calls.why_not_installed() or native_calls.register():
        raise DeclinedError(reason)
    return run_loop(NativeLoop(cell, is_default), params, xs, state, Phases(steps))


def why_not_cell(cell: Any) -> str | None:
    """Why the calls do not know that cell, or None."""
    if isinstance(cell, CellOfUnits):
        return "devices divide the units of the cell"
    if cell.plain_kind is not None:
        return None
    return (
        "it runs GRUCell, BasicRNNCell, and LSTMs without peepholes, clips and "
        "projection, all with tanh"
    )


@final
class NativeLoop(LoopBesideXla):
    """The loop of one cell, run forward and backward by `jaxrnn-native`.

    Other platforms have XLA's loop if `is_default`; else lowering for them is an error.
    """

    def __init__(self, cell: Any, is_default: bool) -> None:
        super().__init__(cell)
        self.is_default = is_default

    def run_forward(
        self, primals: Primals, phases: Phases, save: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """`(outputs, state, saved)`; see `LoopBesideXla`."""
        native = functools.partial(self._forward, save=save)
        xla = functools.partial(self.run_xla_forward, save=True)
        xla = self._elsewhere(xla if save else self._run_xla)
        return by_platform(native, xla, primals, phases)

    def run_backward(self, residuals: Residuals, cotangents: tuple) -> Primals:
        """The cotangents of the primals; see `LoopBesideXla`."""
        xla = self._elsewhere(self.xla.transpose)
        return by_platform(self._backward, xla, residuals, cotangents)

    def run_xla_forward(
        self, primals: Primals, phases: Phases, save: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """`run_forward` by XLA's loop; what is saved is as the native loop saves it."""
        outputs, state, saved = self.xla.forward(primals, phases, save)
        restarts = phases.steps.with_restart_states(primals.restart_states).restarts
        if save and restarts is not None:
            zs, states = saved
            saved = zs, restarts.restart(restarts.starts, states)
        return outputs, state, saved

    def _run_xla(self, primals: Primals, phases: Phases) -> tuple:
        """`run_forward` by XLA's loop as it is without this one: rows may be sorted."""
        params, xs, state, restart_states = primals
        steps = phases.steps.with_restart_states(restart_states)
        return *run_here(self.cell, params, xs, state, steps), ()

    def _elsewhere(self, run: Any) -> Any:
        """What runs on other platforms."""
        return run if self.is_default else _refuse

    def _forward(self, primals: Primals, phases: Phases, save: bool) -> tuple:
        (params, xs, state, restart_states), steps = primals, phases.steps
        restarts = None if steps.restarts is None else steps.restarts.starts
        products = self.cell.product_params(params, xs.shape[-1])
        args = ForwardArgs(
            row_lengths(xs, steps),
            restarts,
            xs,
            [(p["inputs"], p["state"], p["bias"]) for p in products],
            *self._split(state),
            *self._split(restart_states),
        )
        found = self._call(primals, steps).forward(args, save)
        join = functools.partial(self._join, state)
        outputs = found.outputs
        if restarts is not None:
            outputs = outputs, join(outputs, found.new_c)
        saved = (found.zs, join(found.saved_h, found.saved_c)) if save else ()
        return outputs, join(found.last_h, found.last_c), saved

    def _backward(self, residuals: Residuals, cotangents: tuple) -> Primals:
        (params, xs, state, _), phases, (zs, states) = residuals
        primals, steps, c_outputs = residuals.primals, phases.steps, cotangents[0]
        restarts, c_new_c = steps.restarts, None
        if restarts is not None:
            c_h, c_new_c = self._split(c_outputs[1])
            c_outputs = c_outputs[0] + c_h
        products = self.cell.product_params(params, xs.shape[-1])
        args = BackwardArgs(
            row_lengths(xs, steps),
            None if restarts is None else restarts.starts,
            [p["state"] for p in products],
            zs,
            *self._split(states),
            c_outputs,
            c_new_c,
            *self._split(cotangents[1]),
        )
        call = self._call(primals, steps)
        found = call.backward(args)
        operands = [args.saved_h, found.operand][: len(products)]
        c_products = [
            call.weights(args.lengths, xs, operand, c_z)
            for operand, c_z in zip(operands, found.c_zs, strict=True)
        ]
        c_xs = call.inputs(args.lengths, [p["inputs"] for p in products], found.c_zs)
        join = functools.partial(self._join, state)
        c_restart = join(found.c_restart_h, found.c_restart_c)
        c_state = join(found.c_h, found.c_c)
        return Primals(self.cell.join(c_products, {}), c_xs, c_state, c_restart)

    def _call(self, primals: Primals, steps: Steps) -> Call:
        states = jax.tree.leaves(primals.restart_states)
        return Call(
            self.cell.plain_kind,
            getattr(self.cell, "forget_bias", 0.0),
            steps.axis,
            None if steps.restarts is None else states[0].shape[0],
        )

    def _split(self, state: PyTree) -> tuple[Array | None, Array | None]:
        """`(h, c)`, each `[..., units]`, None for what there is not."""
        if state is None:
            return None, None
        h, carry = self.cell.enter(state)
        return h, carry.c if self.cell.plain_kind == "lstm" else None

    def _join(self, like: PyTree, h: Array | None, c: Array | None) -> PyTree:
        """The inverse of `_split`, with the structure of a state."""
        if h is None or c is None:
            return h
        return with_structure(like, self.cell.leave(c, h)[1])


def _refuse(*_: Any) -> Any:
    raise ValueError(
        "`implementation` 'native' runs on cpu, in this process, and this is compiled "
        "for another platform or exported. Leave it out for XLA's loop there."
    )
