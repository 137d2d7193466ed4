"""The native loops: calls through JAX's FFI, as functions of arrays.

Sequences are `[batch, time, size]` or `[time, batch, size]`, float32. The leaves of the
arguments, in their order, are the arguments of a call; what there is not is None. A
state is `(h, c)`; c is None but for an LSTM.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import sequential_vmap

from .._base.sharding import as_varying_as
from .._base.typing import Array, Params, PyTree
from .mapped_rows import SHARED, as_rows


class Cell(NamedTuple):
    """A cell that the calls know.

    Attributes:
        number: The number by which they name it.
        columns: Those of the product of each stage, in units.
    """

    number: int
    columns: tuple[int, ...]


CELLS = {"lstm": Cell(0, (4,)), "gru": Cell(1, (2, 1)), "rnn": Cell(2, (1,))}


class ForwardArgs(NamedTuple):
    """The arguments of the forward loop.

    Attributes:
        lengths: int32 `[batch]`, the number of steps of each row.
        starts: int32 `[batch, time]`, with the axes of `x`: the number of the sequence
            that starts at a step, -1 where none does; None without restarts.
        x: The inputs.
        weights: Of each stage `(w_inputs, w_state, bias)`, `[depth, columns]`, `[units,
            columns]`, `[columns]`.
        state: `(h, c)` before the first step, `[batch, units]`.
        restart_states: Those from which sequences start, `[sequences, units]`.
    """

    lengths: Any
    starts: Any
    x: Any
    weights: Any
    state: Any
    restart_states: Any


class ForwardResults(NamedTuple):
    """The results of the forward loop.

    Attributes:
        outputs: h after each step, zeros where a row is not alive.
        last: The state after the last step of each row, `[batch, units]`.
        new_c: c after each step, where `Call.new_c` asks for it.
        zs: The products of each stage; empty if nothing is saved. Finite where a row is
            not alive.
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
        w_state: The matrix of the state in each stage, `[units, columns]`.
        zs: As in `ForwardResults`.
        saved: As in `ForwardResults`.
        ct_outputs: Those of the outputs.
        ct_new_c: Those of `new_c`.
        ct_last: Those of `last`.
    """

    lengths: Any
    starts: Any
    w_state: Any
    zs: Any
    saved: Any
    ct_outputs: Any
    ct_new_c: Any
    ct_last: Any


class BackwardResults(NamedTuple):
    """The results of the backward loop.

    Attributes:
        ct_zs: Those of `zs`, in their memory; zeros where a row is not alive.
        operand: What the second stage of a GRU multiplies, r * h; zeros where a row is
            not alive.
        ct_state: Those of `state`.
        ct_restart_states: Those of `restart_states`.
    """

    ct_zs: Any
    operand: Any
    ct_state: Any
    ct_restart_states: Any


@dataclasses.dataclass(frozen=True)
class Call:
    """What all calls know statically.

    Attributes:
        kind: The cell, a key of `CELLS`.
        forget_bias: That of an LSTM.
        axis: The time axis, 0 or 1.
        sequences: The number of sequences that start within the rows; None without
            restarts.
        new_c: Whether c after each step is a result, of an LSTM with restarts.
    """

    kind: str
    forget_bias: float
    axis: int
    sequences: int | None
    new_c: bool

    def forward(self, args: ForwardArgs, save: bool) -> ForwardResults:
        """Runs all steps; `vmap` makes rows of mapped axes.

        Args:
            args: The arguments.
            save: Whether to return what the backward loop reads.
        """
        run = functools.partial(self._forward, save=save)
        if self.sequences is not None:  # `starts` counts those of one call.
            return sequential_vmap(run)(args)
        rows = 1 - self.axis
        axes = ForwardArgs(0, rows, rows, SHARED, 0, SHARED)
        result_axes = ForwardResults(rows, 0, rows, rows, rows)
        return as_rows(run, (axes,), result_axes)(args)

    def backward(self, args: BackwardArgs) -> BackwardResults:
        """Runs all steps backward; `vmap` makes rows of mapped axes."""
        if self.sequences is not None:
            return sequential_vmap(self._backward)(args)
        rows = 1 - self.axis
        axes = BackwardArgs(0, rows, SHARED, rows, rows, rows, rows, 0)
        result_axes = BackwardResults(rows, rows, 0, SHARED)
        return as_rows(self._backward, (axes,), result_axes)(args)

    def weights(self, lengths: Array, xs: Array, operand: Array, ct_z: Array) -> Params:
        """The cotangents of a stage's parameters; each mapped entry is a call.

        Args:
            lengths: int32 `[batch]`.
            xs: The inputs.
            operand: What the state's matrix multiplied: h of `saved`, or `operand`.
            ct_z: The cotangents of the stage's products.

        Returns:
            `{"inputs": [depth, columns], "state": [units, columns], "bias":
            [columns]}`.
        """

        def run(*args: Array) -> Params:
            (*_, depth), (*_, units), (*_, columns) = (x.shape for x in args[1:])
            types = _float32(depth, columns), _float32(units, columns)
            results = self._run("weights", args, (*types, _float32(columns)))
            return dict(zip(("inputs", "state", "bias"), results, strict=True))

        return sequential_vmap(run)(lengths, xs, operand, ct_z)

    def inputs(self, lengths: Array, w_inputs: list, ct_zs: list) -> Array:
        """The cotangent of the inputs; `vmap` makes rows of mapped axes.

        Args:
            lengths: int32 `[batch]`.
            w_inputs: The matrix of the inputs in each stage, `[depth, columns]`.
            ct_zs: The cotangents of each stage's products.
        """

        def run(lengths: Array, w_inputs: list, ct_zs: list) -> Array:
            types = _float32(*ct_zs[0].shape[:2], w_inputs[0].shape[0])
            pairs, stages = [*zip(w_inputs, ct_zs, strict=True)], np.int32(len(ct_zs))
            return self._run("inputs", (lengths, pairs), types, stages=stages)

        rows = 1 - self.axis
        return as_rows(run, (0, SHARED, rows), rows)(lengths, w_inputs, ct_zs)

    def _forward(self, args: ForwardArgs, save: bool) -> ForwardResults:
        steps, (batch, units) = args.x.shape[:2], args.state[0].shape
        states, last = self._state(*steps, units), self._state(batch, units)
        new_c = states[1] if self.new_c else None
        columns = CELLS[self.kind].columns if save else ()
        zs = [_float32(*steps, n * units) for n in columns]
        saved = states if save else None
        results = ForwardResults(states[0], last, new_c, zs, saved)
        return self._run("forward", args, results, **self._of_loop, save=save)

    def _backward(self, args: BackwardArgs) -> BackwardResults:
        (batch, units), count = args.ct_last[0].shape, self.sequences
        results = BackwardResults(
            [_float32(*z.shape) for z in args.zs],
            _float32(*args.saved[0].shape) if self.kind == "gru" else None,
            self._state(batch, units),
            None if count is None else self._state(count, units),
        )
        before = len(jax.tree.leaves((args.lengths, args.starts, args.w_state)))
        aliases = {before + k: k for k in range(len(args.zs))}
        return self._run("backward", args, results, aliases, **self._of_loop)

    @property
    def _of_loop(self) -> dict[str, Any]:
        """The attributes of a loop."""
        return {
            "cell": np.int32(CELLS[self.kind].number),
            "forget_bias": np.float32(self.forget_bias),
            "restarts": self.sequences is not None,
            "new_c": self.new_c,
        }

    def _state(self, *shape: int) -> tuple[Any, Any]:
        """The types of `(h, c)`."""
        h = _float32(*shape)
        return h, h if self.kind == "lstm" else None

    def _run(
        self, name: str, args: PyTree, types: PyTree, aliases: Any = None, **static: Any
    ) -> Any:
        """The results of a call, arrays of these types.

        Args:
            name: The name of the call.
            args: Its arguments.
            types: The types of its results.
            aliases: A dict of the numbers of arguments and of results that share
                memory, or None.
            **static: Further attributes of the call.
        """
        leaves, tree = jax.tree.flatten(types)
        target, time_axis = f"jaxrnn_native_{name}", np.int32(self.axis)
        call = jax.ffi.ffi_call(target, leaves, input_output_aliases=aliases)
        args = as_varying_as(args, args)
        results = call(*jax.tree.leaves(args), time_axis=time_axis, **static)
        # The call's results do not even have types that vary over devices like these.
        return tree.unflatten(as_varying_as(args, results))


def _float32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
