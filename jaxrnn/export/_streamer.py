"""Streaming of a cell, frame by frame."""

import functools
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_count, as_dtype, check_is_cell, check_shape
from .._base.errors import check_not_masked, describe, describe_leaves, is_array
from .._base.expect import expect
from .._base.inputs import as_arrays, check_concrete
from .._base.like import check_structure
from .._base.math import in_native_order
from .._base.trees import is_pytree_of_arrays, map_named, named_leaves, with_structure
from .._base.typing import Array, ArrayLike, DType, PyTree, RNNCellLike
from .._drivers.first_step import zero_state
from .._drivers.masks_and_resets import as_reset_state, as_resets
from .._loops import masking


class Streamer:
    """Runs a cell on one frame per call and keeps the state between calls.

    Every call advances all rows. Calls run outside of `jax.jit`, which cannot keep the
    state. Under jit, call the bound cell instead: `output, state = cell(frame, state)`.
    Use each streamer in one thread only, because a call overwrites the state in place.
    If some rows have no frame, run `dynamic_rnn` over chunks, with length 0 for these
    rows.

    The outputs equal the outputs of `dynamic_rnn` over all frames, up to rounding.

    A call that rejects its arguments leaves the state unchanged. An error while the
    step runs, such as an error of a host callback, loses the state; call `reset` then.

    The first call compiles the step, as does the first call with `resets`. Other calls
    only run the step. Streamers with equal cells share the compiled programs, unless
    the cells hold an object that can change, such as a module in a closure.

    Args:
        cell: A bound cell without a random key, so dropout is inactive.
        batch_size: The number of rows, each a sequence of its own.
        dtype: The dtype of the zero state. Some cells support a state in a wider dtype
            than the frames; their outputs still have the dtype of the frames.

    Raises:
        TypeError: If `cell` is not a bound cell.
        ValueError: If `cell` has a random key, or `batch_size` is below 1.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn, jaxrnn.export
        >>> cell, frames = jaxrnn.GRUCell(4), jnp.ones((10, 1, 3), jnp.float32)
        >>> bound = cell.bind(cell.init(jax.random.key(0), frames[0]))
        >>> stream = jaxrnn.export.Streamer(bound)
        >>> outputs = [stream(frame) for frame in frames]
        >>> outputs[-1].shape, bool((outputs[-1] == stream.state).all())
        ((1, 4), True)

    Source: jaxrnn.
    """

    def __init__(
        self, cell: RNNCellLike, batch_size: int = 1, dtype: DType = jnp.float32
    ) -> None:
        check_cell_of_stream("cell", cell)
        self._rows = as_count("batch_size", batch_size)
        # Transfer NumPy parameters to the device once, instead of at every call.
        self._cell = jax.device_put(cell)
        self._zero = self._state = zero_state(cell, self._rows, as_dtype(dtype))
        # For each leaf, the dtypes that the state has had.
        self._dtypes: list[set] = [set() for _ in jax.tree.leaves(self._zero)]
        self.reset()

    @functools.cached_property
    def _program(self) -> Hashable:  # Of the first call, which compiles.
        return program_of(self._cell)

    def __call__(
        self,
        frame: PyTree,
        *,
        resets: ArrayLike | None = None,
        reset_state: PyTree = None,
    ) -> PyTree:
        """Returns the output for the next frame.

        Args:
            frame: One step of inputs for the cell, `[batch, depth]` or a nest.
            resets: Bool `[batch]`. Where True, the state of the row is set to
                `reset_state` before the frame, as in `dynamic_rnn`. None for no resets.
            reset_state: The state after a reset, each leaf `[batch, ...]`; None for
                zeros.

        Returns:
            The output of the cell, `[batch, size]` or a nest.

        Raises:
            ValueError: If the shapes of the frame or the resets do not match the cell
                or the batch size.
            TypeError: If the cell does not accept the dtype of the frame, if the resets
                are not booleans, or if an argument is traced or not an array.
        """
        fix = "Under jit, call the bound cell instead of the stream."
        check_concrete("frame", frame, fix)
        check_concrete("resets", resets, fix)
        check_concrete("reset_state", reset_state, fix)
        frame = map_named("frame", self._as_frame, frame)
        if resets is not None:
            resets = copied("resets", resets)
        if reset_state is not None:
            reset_state = map_named("reset_state", copied, reset_state)
        where, reset_state = as_resets(resets, reset_state, (self._rows,), None)
        if where is not None:
            reset_state = as_reset_state(reset_state, self._zero, self._state)
        try:
            output, self._state = _step(
                self._cell, self._state, frame, where, reset_state, self._program
            )
        except Exception as error:
            given = f"{describe_leaves(frame)} and state {describe_leaves(self._state)}"
            error.add_note(f"Raised by one step of `Streamer` with frame {given}.")
            raise
        return output

    def _as_frame(self, name: str, leaf: ArrayLike) -> ArrayLike:
        """Copies one leaf of a frame; raises ValueError unless it is `[batch, ...]`."""
        array = copied(name, leaf)
        is_vector = self._rows == 1 == array.ndim
        fix = f"To add the batch axis, pass `{name}[None]`." if is_vector else ""
        expect(
            array.shape[:1] == (self._rows,),
            name,
            f"be [{self._rows}, ...], one entry for each row",
            array,
            fix,
        )
        return array

    @property
    def state(self) -> PyTree:
        """A copy of the state after the last frame, each leaf `[batch, ...]`."""
        return jax.tree.map(jnp.copy, self._state)

    def reset(self, state: PyTree = None) -> None:
        """Starts a new sequence.

        Args:
            state: The initial state, e.g. the `state` of an earlier stream, each leaf
                `[batch, ...]`; None for zeros.

        Raises:
            ValueError: If the structure or a shape differs from the stream's state.
            TypeError: If a dtype differs from the zero state, unless the stream's state
                has had this dtype, or this dtype is wider.
        """
        state = self._zero if state is None else as_arrays("state", state)
        check_structure("`state`", self._zero, state, strict=True)
        fix = "To reset only some rows, pass `resets` with the next frame."
        named = named_leaves("state", state)
        others = jax.tree.leaves(self._zero), jax.tree.leaves(self._state), self._dtypes
        for (name, leaf), zero, now, dtypes in zip(named, *others, strict=True):
            check_shape(name, leaf, zero.shape, fix=fix)
            # The first step may change a dtype of the zero state, e.g. to complex.
            dtypes |= {zero.dtype, now.dtype}
            fits = leaf.dtype in dtypes or _is_wider(leaf.dtype, zero.dtype)
            must = f"have the dtype of the stream, {zero.dtype}, or a wider one"
            cast = f"Cast it, or create the stream with `dtype=jnp.{leaf.dtype}`."
            expect(fits, name, must, leaf, cast, error=TypeError)
        # Each step overwrites the previous state, so copy the user's arrays.
        self._state = jax.tree.map(jnp.copy, state)


def _is_wider(dtype: DType, than: DType) -> bool:
    """Whether `dtype` has more bits, and both are floating-point or complex."""
    are_inexact = all(jnp.issubdtype(each, jnp.inexact) for each in (dtype, than))
    return are_inexact and dtype.itemsize > than.itemsize


def copied(name: str, leaf: ArrayLike) -> Any:
    """Copies an array that is not a JAX array.

    JAX may read the array after the call has returned. By then, the user may have
    written the next frame to the same array.

    Raises:
        TypeError: If the leaf is not an array of numbers, or is a masked array.
    """
    check_not_masked(name, leaf)
    array = leaf if isinstance(leaf, jax.Array) else in_native_order(np.array(leaf))
    must = "be an array with a dtype that JAX supports"
    expect(is_array(array), name, must, leaf, error=TypeError)
    return array


def program_of(*cells: RNNCellLike) -> Hashable:
    """A static argument that is equal for streams that can share their programs.

    A stream whose cells hold an object that can change compiles its own programs.
    """
    are_fixed = (getattr(cell, "cannot_change", False) for cell in cells)
    return None if all(are_fixed) else object()


@functools.partial(jax.jit, donate_argnames="state", static_argnames="program")
def _step(
    cell: RNNCellLike,
    state: PyTree,
    frame: PyTree,
    resets: Array | None,
    reset_state: PyTree,
    program: Hashable,
) -> tuple[PyTree, PyTree]:
    """Runs one step; returns `(output, new_state)`. `program` is from `program_of`."""
    del program
    if resets is not None:
        state = masking.choose(~resets, state, reset_state)
    output, new_state = cell(frame, state)
    return output, with_structure(state, new_state)


def check_cell_of_stream(name: str, cell: Any) -> None:
    """Raises an error if `cell` has a key or cannot be passed to a compiled step."""
    check_is_cell(name, cell)
    if getattr(cell, "key", None) is not None:
        raise ValueError(
            f"`{name}` must have no random key, because a stream has no step numbers, "
            "got a cell that is bound to a key. Bind the cell without a key."
        )
    if not is_pytree_of_arrays(cell):
        raise TypeError(
            f"`{name}` must be a pytree of arrays, got {describe(cell)}. Pass "
            "`cell.bind(params)` with arrays, or register the class of the cell, for "
            "example with `jax.tree_util.register_dataclass`."
        )
