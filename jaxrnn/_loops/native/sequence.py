"""Runs whole sequences with the native loops, with derivatives of any order.

The native loops run the forward and the backward pass. XLA's loop computes all other
derivatives.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ..._base.operation import run_beside_xla
from ..._base.trees import with_structure
from ..._base.typing import Array, Params, PyTree
from .. import xla_loop
from ..library_calls import row_lengths, why_not_arrays
from ..run import DeclinedError
from ..segments import RESIDUALS, named
from ..steps import Steps
from ..xla_loop import Primals, is_perturbed
from . import library
from .calls import BackwardArgs, BackwardResults, Call, ForwardArgs
from .cells import CELLS, attributes, native_kind

_REFUSAL = (
    "`implementation` 'native' runs only on CPUs in this process, but this program is "
    "compiled for another platform or exported. Leave it out for XLA's loop there."
)


def native_sequence(
    cell: Any,
    params: Params,
    xs: Array,
    state: PyTree,
    steps: Steps,
    is_default: bool = False,
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of all steps, computed by the native loops.

    A call runs whole sequences on several threads. The call packs matrices once, and
    performs the element-wise operations right after each product. After the backward
    loop, large products over the steps of all rows compute the gradients of matrices
    and inputs.

    Under `vmap`, mapped axes become rows of one call. If parameters are mapped, the
    axes become entries of the call, which share its threads. Rows on several devices
    need `jax.shard_map`, because XLA cannot partition the call.

    Args:
        cell: An `AffineCell`.
        params: The cell's parameters, under the names of the cell's stages.
        xs: Inputs, `[batch, time, depth]`, time along `steps.axis`.
        state: The initial state, each leaf `[batch, size]`.
        steps: The steps of the run.
        is_default: Whether programs for other platforms use XLA's loop. If False,
            compiling for another platform raises an error.

    Raises:
        DeclinedError: If the native loops do not support the run. The error gives the
            reason.
    """
    kind = native_kind(cell)
    if reason := why_not_arrays(xs, state, steps) or library.register():
        raise DeclinedError(reason)
    primals = xla_loop.primals_of(cell, params, xs, state, steps)
    loop = NativeLoop(cell, kind, None if is_default else _REFUSAL)
    return loop.run(primals, steps.with_restart_states(None))


class NativeLoop:
    """A cell's forward and backward loops; XLA's loop computes other derivatives.

    Args:
        cell: An `AffineCell`.
        kind: The key of the cell in `CELLS`.
        refusal: The message of the error for other platforms; None to use XLA's loop on
            other platforms.
    """

    def __init__(self, cell: Any, kind: str, refusal: str | None) -> None:
        self.cell, self.kind, self.refusal = cell, kind, refusal
        self.spec = CELLS[kind]

    def run(self, primals: Primals, steps: Steps) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of all steps."""
        run = jax.custom_jvp(lambda *args: self.forward(*args, save=False)[:2])
        run.defjvp(self._push_forward, symbolic_zeros=True)
        return run(primals, steps)

    def _push_forward(self, args: tuple, d_args: tuple) -> tuple[tuple, tuple]:
        (primals, steps), (tangents, _) = args, d_args
        outputs, state, saved = self.forward(primals, steps, save=True)
        saved = named(RESIDUALS, saved)
        perturbed = jax.tree.map(is_perturbed, tangents)
        choose = lambda is_perturbed, x: x if is_perturbed else None
        only = functools.partial(jax.tree.map, choose, perturbed)

        def pull(primals: Primals, steps: Steps, saved: Any, cts: Any) -> Primals:
            return only(self.transpose(primals, steps, saved, cts))

        push, args = self.tangent, (primals, steps, saved, only(tangents))
        return (outputs, state), run_beside_xla(push, push, *args, transpose=pull)

    def forward(
        self, primals: Primals, steps: Steps, save: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """`(outputs, state, saved)`.

        `saved` holds `zs` and `(h, c)`, the state before each step, with the axes of
        the inputs. If there are no restarts, h before a step equals the output of the
        previous step. In this case, `outputs` are saved instead of h, and functions
        that read h shift the outputs by one step.
        """
        native = functools.partial(self._forward, save=save)
        xla = functools.partial(self._forward_by_xla, save=save)
        return run_beside_xla(native, xla, primals, steps, refusal=self.refusal)

    def tangent(
        self, primals: Primals, steps: Steps, saved: PyTree, tangents: Primals
    ) -> tuple[PyTree, PyTree]:
        """The tangents of `(outputs, state)`, computed by XLA's loop."""
        swap = steps.swap_time
        primals = primals._replace(xs=swap(primals.xs))
        tangents = tangents._replace(xs=swap(tangents.xs))
        saved = self._saved_by_xla(primals, steps, swap(saved))
        args = self.cell, primals, steps.time_first(), saved, tangents
        d_outputs, d_state = xla_loop.push_forward(*args)
        return swap(d_outputs), d_state

    def transpose(
        self, primals: Primals, steps: Steps, saved: PyTree, cotangents: tuple
    ) -> Primals:
        """The cotangents of the primals."""

        def by_xla(primals: Primals, steps: Steps, saved: Any, cts: Any) -> Primals:
            push = functools.partial(self.tangent, primals, steps, saved)
            return jax.linear_transpose(push, primals)(cts)[0]

        args = primals, steps, saved, cotangents
        return run_beside_xla(self._backward, by_xla, *args, refusal=self.refusal)

    def _forward_by_xla(self, primals: Primals, steps: Steps, save: bool) -> tuple:
        swap = steps.swap_time
        primals = primals._replace(xs=swap(primals.xs))
        results = xla_loop.forward(self.cell, primals, steps.time_first(), save)
        outputs, state, saved = results
        if save:
            zs, states = saved
            h, c = self._split(states)
            if steps.restarts is None:
                h = outputs[0] if steps.returns_states else outputs
            saved = zs, (h, c)
        return swap(outputs), state, swap(saved)

    def _saved_by_xla(self, primals: Primals, steps: Steps, saved: PyTree) -> PyTree:
        """The values that XLA's loop would have saved, with time as the first axis."""
        zs, (h, c) = saved
        if steps.restarts is None:
            first, _ = self._split(primals.state)
            if steps.lengths is not None:  # In an empty row, `first` may be NaN.
                first = jnp.where(steps.lengths[:, None] > 0, first, 0)
            h = jnp.concatenate([first[None], h[:-1]])
        return zs, self._join(primals.state, (h, c))

    def _forward(self, primals: Primals, steps: Steps, save: bool) -> tuple:
        args = ForwardArgs(
            row_lengths(primals.xs, steps),
            _starts(steps),
            primals.xs,
            self._weights(primals),
            _stacked(primals.elementwise),
            self._split(primals.state),
            self._split(primals.restart_states),
        )
        found = self._call(primals, steps).forward(args, save)
        join = functools.partial(self._join, primals.state)
        outputs, saved = found.outputs, ()
        if save:
            h, c = found.saved
            saved = found.zs, (outputs if h is None else h, c)
        if steps.returns_states:
            outputs = outputs, join((outputs, found.new_c))
        return outputs, join(found.last), saved

    def _backward(
        self, primals: Primals, steps: Steps, saved: PyTree, cotangents: tuple
    ) -> Primals:
        args = self._backward_args(primals, steps, saved, cotangents)
        call = self._call(primals, steps)
        found = call.backward(args)
        ct_products, ct_xs = self._pull_products(call, primals, args, found)
        sums = () if found.ct_elementwise is None else found.ct_elementwise.sum(0)
        ct_elementwise = with_structure(primals.elementwise, list(sums))
        states = found.ct_state, found.ct_restart_states
        ct_states = (self._join(primals.state, s) for s in states)
        return Primals(ct_products, ct_elementwise, ct_xs, *ct_states)

    def _backward_args(
        self, primals: Primals, steps: Steps, saved: PyTree, cotangents: tuple
    ) -> BackwardArgs:
        (zs, states), (ct_outputs, ct_last), ct_new_c = saved, cotangents, None
        first = None if steps.restarts is not None else self._split(primals.state)[0]
        if steps.returns_states:
            ct_outputs, ct_states = ct_outputs
            ct_h, ct_new_c = self._split(ct_states)
            ct_outputs = ct_outputs + ct_h
        return BackwardArgs(
            row_lengths(primals.xs, steps),
            _starts(steps),
            [w_state for _, w_state, _ in self._weights(primals)],
            _stacked(primals.elementwise),
            zs,
            states,
            first,
            ct_outputs,
            ct_new_c,
            self._split(ct_last),
        )

    def _pull_products(
        self, call: Call, primals: Primals, args: BackwardArgs, found: BackwardResults
    ) -> tuple[list[Params], Array]:
        """The cotangents of the products' parameters, and of the inputs."""
        factors = {"h": args.saved[0], "operand": found.operand, None: None}

        def pull(product: Params, factor: str | None, ct_z: Array) -> Params:
            x, bias = primals.xs if "inputs" in product else None, "bias" in product
            operands = factors[factor], args.h if factor == "h" else None
            cts = call.weights(args.lengths, x, *operands, ct_z, bias)
            return {"state": jnp.zeros_like(product["state"])} | cts

        ct_products = list(map(pull, primals.products, self.spec.factors, found.ct_zs))
        pairs = zip(primals.products, found.ct_zs, strict=True)
        pairs = [(p["inputs"], ct_z) for p, ct_z in pairs if "inputs" in p]
        return ct_products, call.inputs(args.lengths, pairs)

    def _weights(self, primals: Primals) -> list[tuple]:
        """`(w_inputs, w_state, bias)` of each product; None for a missing parameter."""
        pairs = zip(primals.products, self.spec.factors, strict=True)
        state = lambda p, factor: None if factor is None else p["state"]
        return [(p.get("inputs"), state(p, f), p.get("bias")) for p, f in pairs]

    def _call(self, primals: Primals, steps: Steps) -> Call:
        sequences = None
        if steps.restarts is not None:
            sequences = jax.tree.leaves(primals.restart_states)[0].shape[0]
        static = attributes(self.cell, self.kind)
        return Call(self.spec, static, steps.axis, sequences, steps.returns_states)

    def _split(self, state: PyTree) -> Any:
        """`(h, c)`, each `[..., units]`; c is None if the cell is not an LSTM."""
        if state is None:
            return None
        h, carry = self.cell.enter(state)
        return h, carry[0] if self.spec.has_c else None

    def _join(self, like: PyTree, pair: tuple[Array, Array | None] | None) -> PyTree:
        """The inverse of `_split`, with the structure of `like`; None for no pair."""
        if pair is None:
            return None
        h, c = pair
        if c is None:
            return h
        return with_structure(like, self.cell.leave(c, h)[1])


def _starts(steps: Steps) -> Array | None:
    return None if steps.restarts is None else steps.restarts.state_numbers


def _stacked(elementwise: Params) -> Array | None:
    """The parameters stacked in the order of names; None if there are no parameters."""
    return jnp.stack(jax.tree.leaves(elementwise)) if elementwise else None
