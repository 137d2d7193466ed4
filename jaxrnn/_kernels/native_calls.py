"""The calls of the package `jaxrnn_native` through JAX's FFI, as functions of arrays.

Sequences are `[batch, time, size]` or `[time, batch, size]`, float32. The leaves of the
arguments, in their order, are the arguments of a call; what there is not is None.
"""

import dataclasses
import functools
import importlib
import importlib.util
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import sequential_vmap

from .._base.sharding import as_varying_as
from .._base.typing import PyTree
from .mapped_rows import SHARED, as_rows

INTERFACE = 1  # The version of the calls.


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
        h: The state before the first step, `[batch, units]`.
        c: Likewise, of an LSTM.
        restart_h: The states from which sequences start, `[sequences, units]`.
        restart_c: Likewise, of an LSTM.
    """

    lengths: Any
    starts: Any
    x: Any
    weights: Any
    h: Any
    c: Any
    restart_h: Any
    restart_c: Any


class ForwardResults(NamedTuple):
    """The results of the forward loop.

    Attributes:
        outputs: h after each step, zeros where a row is not alive.
        last_h: h after the last step of each row, `[batch, units]`.
        last_c: Likewise, of an LSTM.
        new_c: c after each step, of an LSTM with restarts.
        zs: The products of each stage; empty if nothing is saved. Finite where a row is
            not alive.
        saved_h: h before each step, after a restart; what the row keeps where it is not
            alive.
        saved_c: Likewise, of an LSTM.
    """

    outputs: Any
    last_h: Any
    last_c: Any
    new_c: Any
    zs: Any
    saved_h: Any
    saved_c: Any


class BackwardArgs(NamedTuple):
    """The arguments of the backward loop; names with c_ are cotangents.

    Attributes:
        lengths: As in `ForwardArgs`.
        starts: As in `ForwardArgs`.
        w_state: The matrix of the state in each stage, `[units, columns]`.
        zs: As in `ForwardResults`.
        saved_h: As in `ForwardResults`.
        saved_c: As in `ForwardResults`.
        c_outputs: Those of the outputs.
        c_new_c: Those of `new_c`.
        c_last_h: Those of `last_h`.
        c_last_c: Those of `last_c`.
    """

    lengths: Any
    starts: Any
    w_state: Any
    zs: Any
    saved_h: Any
    saved_c: Any
    c_outputs: Any
    c_new_c: Any
    c_last_h: Any
    c_last_c: Any


class BackwardResults(NamedTuple):
    """The results of the backward loop.

    Attributes:
        c_zs: Those of `zs`, in their memory; zeros where a row is not alive.
        operand: What the second stage of a GRU multiplies, r * h; zeros where a row is
            not alive.
        c_h: Those of `h`.
        c_c: Those of `c`.
        c_restart_h: Those of `restart_h`.
        c_restart_c: Those of `restart_c`.
    """

    c_zs: Any
    operand: Any
    c_h: Any
    c_c: Any
    c_restart_h: Any
    c_restart_c: Any


@dataclasses.dataclass(frozen=True)
class Call:
    """What both calls know statically.

    Attributes:
        kind: The cell, a key of `CELLS`.
        forget_bias: That of an LSTM.
        axis: The time axis, 0 or 1.
        sequences: The number of sequences that start within the rows; None without
            restarts.
    """

    kind: str
    forget_bias: float
    axis: int
    sequences: int | None

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
        axes = ForwardArgs(0, rows, rows, SHARED, 0, 0, SHARED, SHARED)
        result_axes = ForwardResults(rows, 0, 0, rows, rows, rows, rows)
        return as_rows(run, (axes,), result_axes)(args)

    def backward(self, args: BackwardArgs) -> BackwardResults:
        """Runs all steps backward; `vmap` makes rows of mapped axes."""
        if self.sequences is not None:
            return sequential_vmap(self._backward)(args)
        rows = 1 - self.axis
        axes = BackwardArgs(0, rows, SHARED, rows, rows, rows, rows, rows, 0, 0)
        result_axes = BackwardResults(rows, rows, 0, 0, SHARED, SHARED)
        return as_rows(self._backward, (axes,), result_axes)(args)

    def _forward(self, args: ForwardArgs, save: bool) -> ForwardResults:
        steps, units = args.x.shape[:2], args.h.shape[1]
        sequence, last = _float32(*steps, units), _float32(*args.h.shape)
        zs = [_float32(*steps, n * units) for n in CELLS[self.kind].columns]
        new_c = None if self.sequences is None else self._if_lstm(sequence)
        saved = (zs, sequence, self._if_lstm(sequence)) if save else ([], None, None)
        results = ForwardResults(sequence, last, self._if_lstm(last), new_c, *saved)
        return self._run("jaxrnn_native_forward", args, results, save=save)

    def _backward(self, args: BackwardArgs) -> BackwardResults:
        last, units = _float32(*args.c_last_h.shape), args.c_last_h.shape[1]
        operand = _float32(*args.saved_h.shape) if self.kind == "gru" else None
        restart = None if self.sequences is None else _float32(self.sequences, units)
        results = BackwardResults(
            [_float32(*z.shape) for z in args.zs],
            operand,
            *(last, self._if_lstm(last), restart, self._if_lstm(restart)),
        )
        before = len(jax.tree.leaves((args.lengths, args.starts, args.w_state)))
        aliases = {before + k: k for k in range(len(args.zs))}
        return self._run("jaxrnn_native_backward", args, results, aliases)

    def _if_lstm(self, x: Any) -> Any:
        return x if self.kind == "lstm" else None

    def _run(
        self,
        target: str,
        args: PyTree,
        types: PyTree,
        aliases: dict[int, int] | None = None,
        **attributes: bool,
    ) -> Any:
        """The results of a call, arrays of these types.

        Args:
            target: The name of the call.
            args: Its arguments.
            types: The types of its results.
            aliases: The numbers of arguments and of results that share memory.
            **attributes: Further attributes of the call.
        """
        leaves, tree = jax.tree.flatten(types)
        call = jax.ffi.ffi_call(target, leaves, input_output_aliases=aliases)
        args = as_varying_as(args, args)
        results = call(
            *jax.tree.leaves(args),
            cell=np.int32(CELLS[self.kind].number),
            forget_bias=np.float32(self.forget_bias),
            time_axis=np.int32(self.axis),
            restarts=self.sequences is not None,
            **attributes,
        )
        # The call's results do not even have types that vary over devices like these.
        return tree.unflatten(as_varying_as(args, results))


@functools.cache
def why_not_installed() -> str | None:
    """Why the package cannot be called, or None; then it is registered with JAX."""
    if importlib.util.find_spec("jaxrnn_native") is None:
        return "its package is not installed: `pip install jaxrnn-native`"
    package = importlib.import_module("jaxrnn_native")
    if package.INTERFACE != INTERFACE:
        return (
            f"the installed jaxrnn-native has version {package.INTERFACE} of its "
            f"calls, and this jaxrnn calls version {INTERFACE}: upgrade both"
        )
    try:
        package.register()
    except (OSError, RuntimeError) as error:
        return f"the installed jaxrnn-native does not fit this JAX: {error}"
    return None


def _float32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
