"""The native loops, in C++, for cells on CPUs."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from .._base.errors import name_of
from .._base.sharding import explicit_mesh_of
from .._base.trees import with_structure
from .._base.typing import Array, Params, PyTree
from .._time.run import DeclinedError
from .._time.segments import RESIDUALS, named
from .._time.steps import Steps
from . import affine, native_library
from .affine import Operands, is_perturbed
from .native_calls import ACTIVATIONS, CELLS, BackwardArgs, Call, ForwardArgs
from .native_operation import run_beside_xla

_REFUSAL = (
    "`implementation` 'native' runs on cpu, in this process, and this is compiled for "
    "another platform or exported. Leave it out for XLA's loop there."
)


def native_sequence(
    cell: Any,
    params: Params,
    xs: Array,
    state: PyTree,
    steps: Steps,
    is_default: bool = False,
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of all steps, by the native loops.

    A call runs whole sequences, with several threads: matrices are rearranged once, and
    the elementwise work is done as soon as a product is there. Gradients of matrices
    and inputs are computed after the backward loop, in large products over the steps
    at which rows are alive.

    Under `vmap` mapped axes become rows of one call; if parameters are mapped, entries
    of it, which share the threads. Rows on several devices need `jax.shard_map`: XLA
    cannot partition the call.

    Args:
        cell: An `AffineCell`.
        params: Its parameters, under the names of its stages.
        xs: Inputs, `[batch, time, depth]`, time along `steps.axis`.
        state: The initial state, each leaf `[batch, size]`.
        steps: Which steps there are.
        is_default: Whether a program for another platform has XLA's loop; otherwise
            there is none for it.

    Raises:
        DeclinedError: If no call can run them, with the reason.
    """
    kind = native_kind(cell)
    if reason := why_not_arrays(xs, state, steps) or native_library.register():
        raise DeclinedError(reason)
    products = cell.product_params(params, xs.shape[-1])
    elementwise = cell.elementwise(params)
    operands = Operands(products, elementwise, xs, state, steps.restart_states)
    loop = NativeLoop(cell, kind, None if is_default else _REFUSAL)
    return loop.run(operands, steps.with_restart_states(None))


def native_kind(cell: Any) -> str:
    """Which cell of the calls this is, a key of `CELLS`.

    Raises:
        DeclinedError: If they do not know it, with the reason.
    """
    kind, known = cell.declared_kind, "it runs LSTMs, GRUs and basic RNNs"
    if kind is None:
        raise DeclinedError(f"{known}: {type(cell).__name__} is none of them")
    if (activation := _activation(cell)) not in ACTIVATIONS:
        others = f"with tanh, relu or sigmoid: this one has {name_of(activation)}"
        raise DeclinedError(f"{known} {others}")
    if kind != "lstm" or not (has := what_lstm_has(cell)):
        return kind
    if "layer normalization" not in has:
        return "projected_lstm" if "a projection" in has else "peephole_lstm"
    if len(has) > 1:
        raise DeclinedError(f"it runs no LSTM that has {' and '.join(has)}")
    return "normed_lstm"


def what_lstm_has(cell: Any) -> list[str]:
    """What an LSTM has beyond the plain one, in words."""
    core = cell.library_cell
    found = {
        "layer normalization": getattr(core, "layer_norm", False),
        "peepholes": getattr(core, "use_peepholes", False),
        "a `cell_clip`": getattr(core, "cell_clip", None) is not None,
        "a projection": getattr(core, "num_proj", None) is not None,
    }
    return [name for name, has_it in found.items() if has_it]


def why_not_arrays(xs: Array, state: PyTree, steps: Steps) -> str | None:
    """Why a call of a library cannot have these inputs and this state, or None."""
    if explicit_mesh_of((xs, state)) is not None:
        return "XLA cannot divide its call over an explicit mesh; `jax.shard_map` can"
    if not isinstance(xs.shape[1 - steps.axis], int):
        return "the number of rows is symbolic"
    arrays = [xs, *jax.tree.leaves(state)]
    if any(0 in x.shape for x in arrays):
        return "there are no steps, no rows, no inputs, or no units"
    dtypes = {x.dtype for x in arrays}
    if dtypes != {jnp.dtype(jnp.float32)}:
        return f"it computes in float32, got {', '.join(sorted(map(str, dtypes)))}"
    return None


def row_lengths(xs: Array, steps: Steps) -> Array:
    """int32 `[batch]`, the number of steps of each row, from 0 to all."""
    if steps.lengths is None:
        return jnp.full(xs.shape[1 - steps.axis], steps.time, jnp.int32)
    return jnp.clip(steps.lengths, 0, steps.time).astype(jnp.int32)


class NativeLoop:
    """The loop of one cell, forward and backward, with XLA's for other derivatives.

    Args:
        cell: An `AffineCell`.
        kind: Which cell of the calls it is.
        refusal: Why there is no program for other platforms; None for XLA's loop.
    """

    def __init__(self, cell: Any, kind: str, refusal: str | None) -> None:
        self.cell, self.kind, self.refusal = cell, kind, refusal
        self.factors = CELLS[kind].factors

    def run(self, operands: Operands, steps: Steps) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of all steps."""
        run = jax.custom_jvp(lambda *args: self.forward(*args, save=False)[:2])
        run.defjvp(self._push_forward, symbolic_zeros=True)
        return run(operands, steps)

    def _push_forward(self, primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
        operands, steps = primals
        outputs, state, saved = self.forward(operands, steps, save=True)
        saved = named(RESIDUALS, saved)
        leaves, tree = jax.tree.flatten(tangents[0])
        perturbed = list(map(is_perturbed, leaves))

        def push(operands: Operands, steps: Steps, saved: Any, d_leaves: list) -> Any:
            rest = iter(d_leaves)
            tangents = tree.unflatten([next(rest) if p else 0 for p in perturbed])
            return self.tangent(operands, steps, saved, tangents)

        def pull(operands: Operands, steps: Steps, saved: Any, cts: Any) -> list:
            ct_operands = jax.tree.leaves(self.transpose(operands, steps, saved, cts))
            return [ct for ct, p in zip(ct_operands, perturbed, strict=True) if p]

        d_leaves = list(filter(is_perturbed, leaves))
        args = operands, steps, saved, d_leaves
        return (outputs, state), run_beside_xla(push, push, *args, transpose=pull)

    def forward(
        self, operands: Operands, steps: Steps, save: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """`(outputs, state, saved)`; what is saved has the axes of the inputs."""
        native = functools.partial(self._forward, save=save)
        xla = functools.partial(self._forward_by_xla, save=save)
        return run_beside_xla(native, xla, operands, steps, refusal=self.refusal)

    def tangent(
        self, operands: Operands, steps: Steps, saved: PyTree, tangents: Operands
    ) -> tuple[PyTree, PyTree]:
        """The tangents of `(outputs, state)`, by XLA's loop."""
        swap = steps.swap_time
        operands = operands._replace(xs=swap(operands.xs))
        if is_perturbed(tangents.xs):
            tangents = tangents._replace(xs=swap(tangents.xs))
        args = self.cell, operands, steps.time_first(), swap(saved), tangents
        d_outputs, d_state = affine.push_forward(*args)
        return swap(d_outputs), d_state

    def transpose(
        self, operands: Operands, steps: Steps, saved: PyTree, cotangents: tuple
    ) -> Operands:
        """The cotangents of the operands."""

        def by_xla(operands: Operands, steps: Steps, saved: Any, cts: Any) -> Operands:
            push = functools.partial(self.tangent, operands, steps, saved)
            return jax.linear_transpose(push, operands)(cts)[0]

        args = operands, steps, saved, cotangents
        return run_beside_xla(self._backward, by_xla, *args, refusal=self.refusal)

    def _forward_by_xla(self, operands: Operands, steps: Steps, save: bool) -> tuple:
        swap = steps.swap_time
        operands = operands._replace(xs=swap(operands.xs))
        results = affine.forward(self.cell, operands, steps.time_first(), save)
        outputs, state, saved = results
        return swap(outputs), state, swap(saved)

    def _forward(self, operands: Operands, steps: Steps, save: bool) -> tuple:
        _, elementwise, xs, state, restart_states = operands
        restarts = None if steps.restarts is None else steps.restarts.starts
        args = ForwardArgs(
            row_lengths(xs, steps),
            restarts,
            xs,
            self._weights(operands),
            _stacked(elementwise),
            self._split(state),
            self._split(restart_states),
        )
        found = self._call(operands, steps).forward(args, save)
        join = functools.partial(self._join, state)
        outputs = found.outputs
        if steps.returns_states:
            outputs = outputs, join((outputs, found.new_c))
        saved = (found.zs, join(found.saved)) if save else ()
        return outputs, join(found.last), saved

    def _backward(
        self, operands: Operands, steps: Steps, saved: PyTree, cotangents: tuple
    ) -> Operands:
        (products, elementwise, xs, state, _), (zs, states) = operands, saved
        weights = self._weights(operands)
        (ct_outputs, ct_state), ct_new_c = cotangents, None
        starts = None if steps.restarts is None else steps.restarts.starts
        if steps.returns_states:
            ct_h, ct_new_c = self._split(ct_outputs[1])
            ct_outputs = ct_outputs[0] + ct_h
        args = BackwardArgs(
            row_lengths(xs, steps),
            starts,
            [w_state for _, w_state, _ in weights if w_state is not None],
            _stacked(elementwise),
            zs,
            self._split(states),
            ct_outputs,
            ct_new_c,
            self._split(ct_state),
        )
        call = self._call(operands, steps)
        found = call.backward(args)
        factors = {"h": args.saved[0], "operand": found.operand, None: None}

        def pull(product: Params, factor: str | None, ct_z: Array) -> Params:
            x, bias = xs if "inputs" in product else None, "bias" in product
            cts = call.weights(args.lengths, x, factors[factor], ct_z, bias)
            return {"state": jnp.zeros_like(product["state"])} | cts

        ct_products = list(map(pull, products, self.factors, found.ct_zs))
        pairs = zip(products, found.ct_zs, strict=True)
        pairs = [(p["inputs"], ct_z) for p, ct_z in pairs if "inputs" in p]
        ct_xs = call.inputs(args.lengths, *map(list, zip(*pairs, strict=True)))
        ct_elementwise: Params = {}
        if elementwise:
            tree = jax.tree.structure(elementwise)
            ct_elementwise = tree.unflatten(found.ct_elementwise.sum(0))
        states = found.ct_state, found.ct_restart_states
        ct_states = (self._join(state, s) for s in states)
        return Operands(ct_products, ct_elementwise, ct_xs, *ct_states)

    def _weights(self, operands: Operands) -> list[tuple]:
        """`(w_inputs, w_state, bias)` of each product; None for what there is not."""
        pairs = zip(operands.products, self.factors, strict=True)
        state = lambda p, f: None if f is None else p["state"]
        return [(p.get("inputs"), state(p, f), p.get("bias")) for p, f in pairs]

    def _call(self, operands: Operands, steps: Steps) -> Call:
        states = jax.tree.leaves(operands.restart_states)
        core = self.cell.library_cell
        bound = lambda clip: math.inf if clip is None else clip
        return Call(
            self.kind,
            _activation(self.cell),
            getattr(core, "forget_bias", 0.0),
            bound(getattr(core, "cell_clip", None)),
            bound(getattr(core, "proj_clip", None)),
            steps.axis,
            None if steps.restarts is None else states[0].shape[0],
            steps.returns_states,
        )

    def _split(self, state: PyTree) -> Any:
        """`(h, c)`, each `[..., units]`; None for what there is not."""
        if state is None:
            return None
        h, carry = self.cell.enter(state)
        return h, carry[0] if CELLS[self.kind].has_c else None

    def _join(self, like: PyTree, pair: tuple[Array, Array | None] | None) -> PyTree:
        """The inverse of `_split`, with the structure of a state; None stays None."""
        if pair is None or pair[1] is None:
            return pair and pair[0]
        return with_structure(like, self.cell.leave(pair[1], pair[0])[1])


def _activation(cell: Any) -> Any:
    return getattr(cell.library_cell, "activation", jnp.tanh)


def _stacked(elementwise: Params) -> Array | None:
    """The parameters as the calls read them, in the order of names; None without."""
    return jnp.stack(jax.tree.leaves(elementwise)) if elementwise else None
