"""The native loops: calls through JAX's FFI, as functions of arrays.

Sequences are `[batch, time, size]` or `[time, batch, size]`, float32. The leaves of the
arguments, in their order, are the arguments of a call; what there is not is None. A
state is `(h, c)`, `[batch, outputs]` and `[batch, units]`, whose sizes differ if h is
projected; c is None but for an LSTM.

A call has entries along a first axis of all arrays, of size 1 where entries share one.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._base.sharding import as_varying_as
from .._base.typing import Array, Params, PyTree
from .mapped_calls import ENTRIES, entries, in_one_call


class Cell(NamedTuple):
    """A cell that the calls know.

    Attributes:
        number: The number by which they name it.
        has_c: Whether it is an LSTM.
        factors: What each product multiplies beside the inputs: "h"; "operand", which
            is computed from it in the step; or nothing.
    """

    number: int
    has_c: bool
    factors: tuple[str | None, ...]


CELLS = {
    "lstm": Cell(0, True, ("h",)),
    "gru": Cell(1, False, ("h", "operand")),
    "rnn": Cell(2, False, ("h",)),
    "cudnn_gru": Cell(3, False, ("h", None, "h")),
    "peephole_lstm": Cell(4, True, ("h",)),
    "projected_lstm": Cell(5, True, ("h", "operand")),
    "normed_lstm": Cell(6, True, ("h",)),
}


# Those of the candidate, or of j and c of an LSTM, by the number of each.
ACTIVATIONS = jnp.tanh, jax.nn.relu, jax.nn.sigmoid


class ForwardArgs(NamedTuple):
    """The arguments of the forward loop.

    Attributes:
        lengths: int32 `[batch]`, the number of steps of each row.
        starts: int32 `[batch, time]`, with the axes of `x`: the number of the sequence
            that starts at a step, -1 where none does; None without restarts.
        x: The inputs.
        weights: Of each product `(w_inputs, w_state, bias)`, `[depth, columns]`,
            `[rows, columns]`, `[columns]`.
        elementwise: What the elementwise work of an LSTM reads, or None: the peepholes
            of gates f, i, o, `[3, units]`; or of the norms of f, i, o, c, j the shift
            and the gain of each, `[10, units]`.
        state: `(h, c)` before the first step.
        restart_states: Those from which sequences start, `[sequences, ...]`.
    """

    lengths: Any
    starts: Any
    x: Any
    weights: Any
    elementwise: Any
    state: Any
    restart_states: Any


class ForwardResults(NamedTuple):
    """The results of the forward loop.

    Attributes:
        outputs: h after each step, zeros where a row is not alive.
        last: The state after the last step of each row.
        new_c: c after each step, where `Call.new_states` asks for it.
        zs: The products; empty if nothing is saved. Finite where a row is not alive.
        saved: The state before each step, after a restart; zeros where a row is not
            alive.
    """

    outputs: Any
    last: Any
    new_c: Any
    zs: Any
    saved: Any


class BackwardArgs(NamedTuple):
    """The arguments of the backward loop; names with ct_ are cotangents.

    Attributes:
        lengths: As in `ForwardArgs`.
        starts: As in `ForwardArgs`.
        w_state: The `w_state` of each product that has one.
        elementwise: As in `ForwardArgs`.
        zs: As in `ForwardResults`.
        saved: As in `ForwardResults`.
        ct_outputs: Those of the outputs.
        ct_new_c: Those of `new_c`.
        ct_last: Those of `last`.
    """

    lengths: Any
    starts: Any
    w_state: Any
    elementwise: Any
    zs: Any
    saved: Any
    ct_outputs: Any
    ct_new_c: Any
    ct_last: Any


class BackwardResults(NamedTuple):
    """The results of the backward loop.

    Attributes:
        ct_zs: Those of `zs`, in their memory; of no meaning where a row is not alive.
        operand: What a product multiplies beside h; zeros where a row is not alive.
        ct_state: Those of `state`.
        ct_restart_states: Those of `restart_states`.
        ct_elementwise: Those of `elementwise` from each row, `[batch, 3 or 10, units]`.
    """

    ct_zs: Any
    operand: Any
    ct_state: Any
    ct_restart_states: Any
    ct_elementwise: Any


@dataclasses.dataclass(frozen=True)
class Call:
    """What all calls know statically.

    Attributes:
        kind: The cell, a key of `CELLS`.
        activation: One of `ACTIVATIONS`.
        forget_bias: That of an LSTM.
        cell_clip: The bound on its c, or infinity.
        output_clip: The bound on a projected h, or infinity.
        axis: The time axis, 0 or 1.
        sequences: The number of sequences that start within the rows; None without
            restarts.
        new_states: Whether the state after each step is a result.
    """

    kind: str
    activation: Any
    forget_bias: float
    cell_clip: float
    output_clip: float
    axis: int
    sequences: int | None
    new_states: bool

    def forward(self, args: ForwardArgs, save: bool) -> ForwardResults:
        """Runs all steps; what `vmap` maps is part of the same call.

        Args:
            args: The arguments.
            save: Whether to return what the backward loop reads.
        """
        run = functools.partial(self._forward, save=save)
        if self.sequences is not None:  # `starts` counts those of one entry.
            return in_one_call(run, ENTRIES, ENTRIES)(args)
        rows = 2 - self.axis
        axes = ForwardArgs(1, rows, rows, ENTRIES, ENTRIES, 1, ENTRIES)
        result_axes = ForwardResults(rows, 1, rows, rows, rows)
        return in_one_call(run, (axes,), result_axes)(args)

    def backward(self, args: BackwardArgs) -> BackwardResults:
        """Runs all steps backward; what `vmap` maps is part of the same call."""
        if self.sequences is not None:
            return in_one_call(self._backward, ENTRIES, ENTRIES)(args)
        rows = 2 - self.axis
        axes = BackwardArgs(1, rows, ENTRIES, ENTRIES, rows, rows, rows, rows, 1)
        result_axes = BackwardResults(rows, rows, 1, ENTRIES, 1)
        return in_one_call(self._backward, (axes,), result_axes)(args)

    def weights(
        self, lengths: Array, xs: Any, operand: Any, ct_z: Array, bias: bool
    ) -> Params:
        """The cotangents of a product's parameters; what `vmap` maps is in the call.

        Args:
            lengths: int32 `[batch]`.
            xs: The inputs, or None if the product has no part of them.
            operand: What the state's matrix multiplied: h of `saved`, `operand` or
                None.
            ct_z: The cotangents of the product.
            bias: Whether it has one.

        Returns:
            `{"inputs": [depth, columns], "state": [rows, columns], "bias":
            [columns]}`, those that there are.
        """

        def run(*args: Any) -> Params:
            columns = args[3].shape[-1]
            named = {"inputs": args[1], "state": args[2]}
            factors = {name: x for name, x in named.items() if x is not None}
            types = {n: _float32(x.shape[-1], columns) for n, x in factors.items()}
            types |= {"bias": _float32(columns)} if bias else {}
            has = {name: name in types for name in ("inputs", "state", "bias")}
            results = self._run("weights", args, list(types.values()), **has)
            return dict(zip(types, results, strict=True))

        return in_one_call(run, ENTRIES, ENTRIES)(lengths, xs, operand, ct_z)

    def inputs(self, lengths: Array, w_inputs: list, ct_zs: list) -> Array:
        """The cotangent of the inputs; what `vmap` maps is part of the same call.

        Args:
            lengths: int32 `[batch]`.
            w_inputs: The matrix of the inputs in each product that has one, `[depth,
                columns]`.
            ct_zs: The cotangents of these products.
        """

        def run(lengths: Array, w_inputs: list, ct_zs: list) -> Array:
            types = _float32(*ct_zs[0].shape[1:3], w_inputs[0].shape[1])
            pairs, count = [*zip(w_inputs, ct_zs, strict=True)], np.int32(len(ct_zs))
            return self._run("inputs", (lengths, pairs), types, products=count)

        rows = 2 - self.axis
        return in_one_call(run, (1, ENTRIES, rows), rows)(lengths, w_inputs, ct_zs)

    def _forward(self, args: ForwardArgs, save: bool) -> ForwardResults:
        steps = args.x.shape[1:3]
        states = _types_like(args.state, *steps)
        new_c = states[1] if self.new_states else None
        columns = [jax.tree.leaves(w)[0].shape[-1] for w in args.weights]
        zs = [_float32(*steps, n) for n in columns] if save else []
        last = _types_like(args.state, args.lengths.shape[1])
        results = ForwardResults(states[0], last, new_c, zs, states if save else None)
        static = self._of_loop(args)
        return self._run("forward", args, results, **static, save=save)

    def _backward(self, args: BackwardArgs) -> BackwardResults:
        batch, count = args.lengths.shape[1], self.sequences
        elementwise = args.elementwise
        units = [x.shape[-1] for x in args.ct_last if x is not None][-1]
        has_operand = "operand" in CELLS[self.kind].factors
        results = BackwardResults(
            [_float32(*z.shape[1:]) for z in args.zs],
            _float32(*args.zs[0].shape[1:3], units) if has_operand else None,
            _types_like(args.ct_last, batch),
            None if count is None else _types_like(args.ct_last, count),
            None if elementwise is None else _float32(batch, *elementwise.shape[1:]),
        )
        before = len(jax.tree.leaves(args[: args._fields.index("zs")]))
        has_memory = args.zs[0].shape[0] == entries(args)  # That of all results.
        aliases = {before + k: k for k in range(len(args.zs)) if has_memory}
        return self._run("backward", args, results, aliases, **self._of_loop(args))

    def _of_loop(self, args: ForwardArgs | BackwardArgs) -> dict[str, Any]:
        """The attributes of a loop."""
        return {
            "cell": np.int32(CELLS[self.kind].number),
            "activation": np.int32(ACTIVATIONS.index(self.activation)),
            "forget_bias": np.float32(self.forget_bias),
            "cell_clip": np.float32(self.cell_clip),
            "output_clip": np.float32(self.output_clip),
            "elementwise": args.elementwise is not None,
            "restarts": self.sequences is not None,
            "new_states": self.new_states,
        }

    def _run(
        self, name: str, args: PyTree, types: PyTree, aliases: Any = None, **static: Any
    ) -> Any:
        """The results of a call, arrays of these types for each entry.

        Args:
            name: The name of the call.
            args: Its arguments, with entries.
            types: The types of an entry's results.
            aliases: A dict of the numbers of arguments and of results that share
                memory, or None.
            **static: Further attributes of the call.
        """
        leaves, tree = jax.tree.flatten(types)
        leaves = [_float32(entries(args), *x.shape) for x in leaves]
        target, time_axis = f"jaxrnn_native_{name}", np.int32(self.axis)
        call = jax.ffi.ffi_call(target, leaves, input_output_aliases=aliases)
        args = as_varying_as(args, args)
        results = call(*jax.tree.leaves(args), time_axis=time_axis, **static)
        # The call's results do not even have types that vary over devices like these.
        return tree.unflatten(as_varying_as(args, results))


def _types_like(state: PyTree, *first: int) -> PyTree:
    """The types of states with other first axes."""
    return jax.tree.map(lambda x: _float32(*first, x.shape[-1]), state)


def _float32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
