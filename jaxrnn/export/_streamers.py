"""Runs cells on streams, one frame or one chunk of frames per call."""

import copy
import functools
import inspect
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_count, as_dtype
from .._base.errors import check_not_masked, error_note, expect, is_array
from .._base.inputs import (
    as_arrays,
    check_concrete,
    check_like,
    check_same_size,
    check_structure,
    named_inputs,
    warn_of_plain_pair,
)
from .._base.math import in_native_order
from .._base.trees import (
    is_pytree_of_arrays,
    map_named,
    named_leaves,
    with_read_only,
    with_structure,
    with_tuples_of,
    without_read_only,
)
from .._base.typing import Array, ArrayLike, DType, PyTree, RNNCellLike
from .._cells.base import BoundCell
from .._drivers.arguments import check_both_lists, check_is_cell
from .._drivers.bidirectional import joined, run_backward
from .._drivers.dynamic_rnn import dynamic_rnn
from .._run import masking
from .._run.arguments import as_reset_state, as_resets, check_rows_of_state, fix_of_rows
from .._run.first_step import call_start, zero_state

_WIDER = "For wider inputs than {}, create a stream with the `dtype` of the inputs."

Method = TypeVar("Method", bound=Callable[..., Any])


def _locked(method: Method) -> Method:
    """Wraps a method so that only one thread at a time runs it on an object."""

    @functools.wraps(method)
    def run(self: "_Stream", *args: object, **kwargs: object) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return run  # type: ignore[return-value]


class _Stream:
    """An object with a lock. Copies and unpickled objects get new locks."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        # Omit the compiled step, which cannot be pickled. The first call restores it.
        return {k: v for k, v in vars(self).items() if k not in ("_lock", "_run")}

    def __copy__(self) -> Self:
        # Each step overwrites the state, so two objects cannot share it.
        return copy.deepcopy(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock())


class Streamer(_Stream):
    """Runs a cell on one frame per call and keeps the state between calls.

    The outputs equal the outputs of `dynamic_rnn` over all frames, up to rounding.

    Every call advances all rows. If only some rows have a frame, use `dynamic_rnn` with
    length 0 for the other rows. A streamer cannot be called under `jax.jit`, because it
    stores its state between calls. Under jit, call the bound cell:
    `output, state = cell(frame, state)`. Several threads may share a streamer, which
    runs one call at a time.

    If a call rejects its arguments, the state stays unchanged. If the step itself
    fails, e.g. in a host callback, the state is lost. In this case, call `reset`.

    The first call and the first call with `resets` compile the step. Streamers with
    equal cells share the compiled programs, unless a cell holds an object that can
    change, such as a function of yours.

    Args:
        cell: A bound cell without a random key, so dropout is inactive.
        batch_size: The number of rows. Each row is a separate sequence.
        dtype: The dtype of the zero state. Some cells support a state that is wider
            than the frames, e.g. float32 for bfloat16 frames. The outputs of these
            cells have the dtype of the frames.
        initial_state: The state before the first frame of each sequence, each leaf
            `[batch, ...]`. By default, the zero state of `dtype`. The leaves keep their
            own dtypes, e.g. int32 for a counter.

    Raises:
        TypeError: If `cell` is not a bound cell.
        ValueError: If `cell` has a random key, `batch_size` is below 1, or a leaf of
            `initial_state` does not have `batch_size` rows.

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
        self,
        cell: RNNCellLike,
        batch_size: int = 1,
        dtype: DType = jnp.float32,
        initial_state: PyTree = None,
    ) -> None:
        super().__init__()
        _check_cell("cell", cell)
        self._rows = as_count("batch_size", batch_size, fix="")
        self._dtype = as_dtype(dtype)
        # Transfer NumPy parameters to the device once, instead of at every call.
        self._cell = jax.device_put(cell)
        if initial_state is None:
            self._first = self._zeros
        else:
            given = _copied("initial_state", initial_state)
            self._first = as_arrays("initial_state", given)
            fix = fix_of_rows(self._cell, self._first, self._rows)
            why = "like the stream's `batch_size`"
            check_rows_of_state(self._first, self._rows, why, fix)
            warn_of_plain_pair("initial_state", cell.state_size, self._first)
        self._wider = _WIDER.format(self._dtype)
        self._known: set[tuple[str, DType]] = set()  # The dtypes of leaves so far.
        # The types, shapes and dtypes of frames that have passed the checks.
        self._frames: set[tuple] = set()
        self._zeros_after_reset: dict[tuple[DType, ...], PyTree] = {}
        self._given = self._state = self._first
        self.reset()

    @functools.cached_property
    def _zeros(self) -> PyTree:
        return zero_state(self._cell, self._rows, self._dtype)

    @functools.cached_property
    def _run(self) -> Callable[..., tuple]:  # Created by the first call.
        return functools.partial(_step, self._cell, program=_program_of(self._cell))

    @_locked
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
            resets: Bool `[batch]`. True sets the state of a row to `reset_state` before
                the frame, as in `dynamic_rnn`. Default: no resets.
            reset_state: The state after a reset, each leaf `[batch, ...]`. Default:
                zeros.

        Returns:
            The output of the cell, `[batch, size]` or a nest.

        Raises:
            ValueError: If the shapes of the frame or the resets do not match the cell
                or the batch size.
            TypeError: If the cell does not accept the dtype of the frame, if the resets
                are not booleans, or if an argument is traced or not an array.
        """
        frame = self._checked(frame)
        if resets is not None:
            resets = _copied("resets", resets)
        if reset_state is not None:
            reset_state = _copied("reset_state", reset_state)
        where, reset_state = as_resets(resets, reset_state, (self._rows,), None)
        if where is not None:
            reset_state = self._state_after_reset(reset_state)
        with error_note(self._wider):
            output, self._state = self._run(self._state, frame, where, reset_state)
        return output

    def _checked(self, frame: PyTree) -> PyTree:
        """Checks a frame and copies its NumPy arrays."""
        is_own = isinstance(frame, jax.Array)
        is_one = is_own or type(frame) is np.ndarray
        kind = (type(frame), frame.shape, frame.dtype) if is_one else ()
        if kind in self._frames:  # The checks take a quarter of the time of a call.
            return frame if is_own else np.array(frame)
        frame = _copied("frame", frame)
        for name, leaf in named_leaves("frame", frame):
            must = f"be [{self._rows}, ...], one entry for each row"
            fix = "For a different number of rows, create a stream with another "
            fix += "`batch_size`."
            if self._rows == 1:
                fix = f"For one row without a batch axis, pass `{name}[None]`. {fix}"
            expect(leaf.shape[:1] == (self._rows,), name, must, leaf, fix)
        if is_one and frame.dtype.isnative:
            self._frames.add(kind)
        return frame

    def _state_after_reset(self, given: PyTree) -> PyTree:
        """Returns `given`, or zeros, which are created once for each set of dtypes."""
        dtypes = tuple(leaf.dtype for leaf in jax.tree.leaves(self._state))
        if given is None and dtypes in self._zeros_after_reset:
            return self._zeros_after_reset[dtypes]
        like = with_read_only(self._state, self._given)
        state = as_reset_state(given, lambda: self._zeros, like)
        state = without_read_only(state)
        if given is None:
            self._zeros_after_reset[dtypes] = state
        return state

    @property
    @_locked
    def state(self) -> PyTree:
        """A copy of the state after the last frame, each leaf `[batch, ...]`."""
        return jax.tree.map(jnp.copy, with_read_only(self._state, self._given))

    @_locked
    def reset(self, state: PyTree = None) -> None:
        """Starts a new sequence.

        Args:
            state: The initial state, e.g. the `state` of an earlier stream, each leaf
                `[batch, ...]`. By default, the state with which the stream was created.

        Raises:
            ValueError: If the structure or a shape differs from the stream's state.
            TypeError: If a leaf's dtype differs from its dtype in the stream's first
                state. Wider dtypes, and dtypes that the leaf had in an earlier state,
                are accepted.
        """
        # A step may change a dtype of the zero state, e.g. to complex64. Accept such a
        # state, because users pass back the `state` of a stream.
        self._known |= {(k, x.dtype) for k, x in named_leaves("state", self._state)}
        state = self._first if state is None else as_arrays("state", state)
        check_structure("`state`", self._first, state, strict=True)
        state = with_tuples_of(self._first, state)
        fix = "To reset only some rows, pass `resets` with the next frame."
        firsts = jax.tree.leaves(self._first)
        for (name, leaf), own in zip(named_leaves("state", state), firsts, strict=True):
            must = f"have shape {list(own.shape)}"
            expect(leaf.shape == own.shape, name, must, leaf, fix)
            is_inexact = jnp.issubdtype(own.dtype, jnp.inexact)
            is_wide = is_inexact and np.can_cast(own.dtype, leaf.dtype)
            fits = is_wide or (name, leaf.dtype) in self._known
            must = f"have the dtype of the stream, {own.dtype}, or a wider one"
            cast = "Cast it, or create a stream with this state as `initial_state`."
            expect(fits, name, must, leaf, cast, error=TypeError)
        # Copy the user's arrays, because each step overwrites the previous state.
        self._given = state
        self._state = jax.tree.map(jnp.copy, call_start(self._cell, state))


class BidirectionalStreamer(_Stream):
    """Runs bidirectional layers chunk by chunk, with a bounded look-ahead.

    The forward cells carry their states from chunk to chunk. For each chunk, the
    backward cells start from zero states, either `lookahead` steps after the end of the
    chunk or at the end of the sequence, whichever comes first. Therefore, the outputs
    approximate the outputs of `stack_bidirectional_dynamic_rnn`. The outputs are equal
    for a chunk whose look-ahead reaches the end of the sequence. With several layers,
    the look-ahead of all earlier chunks must also reach the end, because a forward cell
    reads the backward outputs of the layer below.

    For each chunk, the streamer runs the layers over `chunk + lookahead` steps. The
    first run compiles the program. Shorter chunks reduce the delay, but increase the
    work per step of output.

    All chunks must have the structure, the step shapes and the dtypes of the first
    chunk. If a call rejects its argument, the stream stays unchanged. If the program
    itself fails, e.g. in a host callback, the states are lost. In this case, call
    `reset`.

    Args:
        cells_fw: The bound forward cell of each layer. The cells must have no random
            key, so dropout is inactive.
        cells_bw: The bound backward cell of each layer, without a random key.
        chunk: The number of steps per chunk.
        lookahead: The number of steps after a chunk that affect the chunk's outputs.
        batch_size: The number of rows. All rows advance together.
        dtype: The dtype of the zero states and the outputs.

    Raises:
        TypeError: If a cell is not a bound cell, or a number is not an integer.
        ValueError: If the lists are empty or differ in length, a cell has a random key,
            or a number is too small.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn, jaxrnn.export
        >>> cell, x = jaxrnn.GRUCell(4), jnp.ones((1, 10, 3), jnp.float32)
        >>> bound = cell.bind(cell.init(jax.random.key(0), x[:, 0]))
        >>> stream = jaxrnn.export.BidirectionalStreamer([bound], [bound], 4, 3)
        >>> stream(x[:, :4])  # The look-ahead has not arrived.
        >>> stream(x[:, 4:8]).shape, stream.flush(x[:, 8:]).shape
        ((1, 4, 8), (1, 6, 8))

    Source: latency-controlled bidirectional LSTMs, arXiv:1510.08983.
    """

    def __init__(
        self,
        cells_fw: Sequence[RNNCellLike],
        cells_bw: Sequence[RNNCellLike],
        chunk: int,
        lookahead: int,
        batch_size: int = 1,
        dtype: DType = jnp.float32,
    ) -> None:
        super().__init__()
        check_both_lists(cells_fw, cells_bw)
        for name, cells in (("cells_fw", cells_fw), ("cells_bw", cells_bw)):
            for i, cell in enumerate(cells):
                _check_cell(f"{name}[{i}]", cell)
        # Transfer NumPy parameters to the device once, instead of at every call.
        self._cells = jax.device_put((tuple(cells_fw), tuple(cells_bw)))
        self._chunk = as_count("chunk", chunk, fix="")
        self._size = self._chunk + as_count("lookahead", lookahead, 0, fix="")
        self._rows = as_count("batch_size", batch_size, fix="")
        self._dtype = as_dtype(dtype)
        # The inputs whose outputs have not been returned. None before the first chunk.
        self._waiting: PyTree = None
        self.reset()

    @functools.cached_property
    def _run(self) -> Callable[..., tuple]:  # Created by the first call.
        fw, bw = self._cells
        options = {"chunk": self._chunk, "dtype": self._dtype}
        program = _program_of(*fw, *bw)
        return functools.partial(_run_window, fw, bw, program=program, **options)

    @_locked
    def __call__(self, chunk: PyTree) -> PyTree:
        """Adds a chunk; returns the outputs of the oldest chunk with a full look-ahead.

        Args:
            chunk: The next steps, `[batch, chunk, depth]` or a nest of such arrays.

        Returns:
            The outputs, `[batch, chunk, size]`, with both directions concatenated. The
            result is None until the look-ahead of the first chunk has arrived.

        Raises:
            ValueError: If `chunk` has the wrong number of rows or steps, or does not
                match the cells or the first chunk.
            TypeError: If a leaf is traced or not an array, if the cells do not accept
                a dtype, or if a dtype differs from the first chunk.
        """
        self._append(
            "chunk", chunk, self._chunk, "Pass a shorter last chunk to `flush`."
        )
        return self._oldest() if self._steps >= self._size else None

    @_locked
    def flush(self, last: PyTree = None) -> PyTree:
        """Ends the sequence and returns the remaining outputs.

        The next call starts a new sequence.

        Args:
            last: The last 1 to `chunk` steps, `[batch, steps, depth]` or a nest of such
                arrays. Omit `last` if you have already passed all steps.

        Returns:
            The outputs, `[batch, remaining steps, size]`, or None if no steps remain.

        Raises:
            ValueError: If `last` has the wrong number of rows, does not have 1 to
                `chunk` steps, or does not match the cells or earlier chunks.
            TypeError: As for a chunk.
        """
        if last is not None:
            self._append("last", last, 1)
        outputs = []
        while steps := min(self._steps, self._chunk):
            outputs.append(_at_steps(self._oldest(), slice(steps)))
        self.reset()
        if not outputs:
            return None
        return jax.tree.map(lambda *ys: jnp.concatenate(ys, axis=1), *outputs)

    @property
    @_locked
    def state(self) -> tuple[PyTree, ...]:
        """A copy of the forward states after the last returned output."""
        return jax.tree.map(jnp.copy, self._states)

    @_locked
    def reset(self) -> None:
        """Starts a new sequence and drops the remaining outputs."""
        cells_fw, _ = self._cells
        zeros = [zero_state(cell, self._rows, self._dtype) for cell in cells_fw]
        self._states = tuple(zeros)
        self._waiting = _at_steps(self._waiting, slice(0))

    @property
    def _steps(self) -> int:
        """The number of steps whose outputs have not been returned."""
        leaves = jax.tree.leaves(self._waiting)
        return leaves[0].shape[1] if leaves else 0

    def _append(self, name: str, chunk: PyTree, least: int, fix: str = "") -> None:
        """Checks a chunk of `least` steps or more, and adds it to the waiting steps.

        Raises:
            ValueError: If a leaf has the wrong shape, or the leaves have different
                numbers of steps. If the structure differs from the first chunk.
            TypeError: If a leaf is traced or not an array, or if a dtype differs from
                the first chunk.
        """
        chunk = _copied(name, chunk)
        named = named_inputs(chunk, name=name)
        rows, most = self._rows, self._chunk
        wanted = f"{most}" if least == most else f"{least} to {most}"
        must = f"be [{rows}, {wanted}, ...]: rows, steps and at least one more axis"
        for full, leaf in named:
            fits = leaf.ndim > 2 and leaf.shape[0] == rows
            expect(fits and least <= leaf.shape[1] <= most, full, must, leaf, fix)
        check_same_size(named, 1, "number of steps")
        # Without x64, convert float64 to float32, as JAX does.
        chunk = jax.tree.map(lambda x: np.asarray(x, jnp.result_type(x)), chunk)
        if self._waiting is None:
            # Trace the program first, so that an error of a cell leaves the stream
            # unchanged.
            window = jax.tree.map(self._padded, chunk)
            with error_note(_WIDER.format(self._dtype)):
                jax.eval_shape(self._run, self._states, window, np.int32(0))
            self._waiting = _at_steps(chunk, slice(0))
        fix = "For other inputs, create another stream."
        check_like(name, chunk, self._waiting, skip=2, fix=fix)
        self._waiting = jax.tree.map(
            lambda *xs: np.concatenate(xs, axis=1), self._waiting, chunk
        )

    def _padded(self, x: np.ndarray) -> np.ndarray:
        """The first `chunk + lookahead` steps, padded with zeros."""
        x = x[:, : self._size]
        widths = [(0, 0), (0, self._size - x.shape[1]), *[(0, 0)] * (x.ndim - 2)]
        return np.pad(x, widths)

    def _oldest(self) -> PyTree:
        """Computes the outputs of the oldest chunk, then removes its steps."""
        window = jax.tree.map(self._padded, self._waiting)
        steps = np.int32(min(self._steps, self._size))
        outputs, self._states = self._run(self._states, window, steps)
        self._waiting = _at_steps(self._waiting, slice(self._chunk, None))
        return outputs


def _check_cell(name: str, cell: object) -> None:
    """Raises an error if `cell` has a key or cannot be passed to a compiled step."""
    check_is_cell(name, cell)
    has_key = isinstance(cell, BoundCell) and cell.key is not None
    must = "have no random key, because streams do not support random numbers"
    expect(not has_key, name, must, cell, "Bind the cell without a key.")
    is_bound = isinstance(cell, BoundCell)
    is_numbered = not is_bound and inspect.getattr_static(cell, "at_step", None)
    must = "have no method `at_step`, because a stream does not count its steps"
    expect(not is_numbered, name, must, cell, "Count the steps in the state instead.")
    fix = "Register its class, for example with `jax.tree_util.register_dataclass`."
    is_tree = is_pytree_of_arrays(cell)
    expect(is_tree, name, "be a pytree of arrays", cell, fix, error=TypeError)


def _copied(name: str, tree: PyTree) -> PyTree:
    """Copies NumPy arrays; returns JAX arrays unchanged.

    JAX may read a NumPy array after the call has returned, when the user has already
    written the next frame to the same array.

    Raises:
        TypeError: If a leaf is traced, not an array of numbers, or a masked array.
    """
    check_concrete(name, tree, "Under jit, call the bound cell or `dynamic_rnn`.")

    def copied(name: str, leaf: ArrayLike) -> Any:
        check_not_masked(name, leaf)
        is_own = isinstance(leaf, jax.Array)
        array = leaf if is_own else in_native_order(np.array(leaf))
        must = "be an array with a dtype that JAX supports"
        expect(is_array(array), name, must, leaf, error=TypeError)
        return array

    return map_named(name, copied, tree)


def _program_of(*cells: RNNCellLike) -> Hashable:
    """A static argument of the compiled step, which is equal if streams may share it.

    If a cell holds an object that can change, e.g. a function, its stream compiles a
    program of its own.
    """
    is_shared = all(isinstance(c, BoundCell) and c.shares_programs for c in cells)
    return None if is_shared else object()


@functools.partial(jax.jit, donate_argnames="state", static_argnames="program")
def _step(
    cell: RNNCellLike,
    state: PyTree,
    frame: PyTree,
    resets: Array | None,
    reset_state: PyTree,
    program: Hashable,
) -> tuple[PyTree, PyTree]:
    """Runs one step; returns `(output, new_state)`. `program` is from `_program_of`."""
    del program
    if resets is not None:
        own = masking.select(~resets, without_read_only(state), reset_state)
        state = with_read_only(own, state)
    read = with_tuples_of(cell.state_size, state, strict=False)
    output, new_state = cell(frame, read)
    return output, with_structure(state, new_state)


@functools.partial(
    jax.jit, static_argnames=("chunk", "dtype", "program"), donate_argnames="states"
)
def _run_window(
    cells_fw: tuple[RNNCellLike, ...],
    cells_bw: tuple[RNNCellLike, ...],
    states: tuple[PyTree, ...],
    xs: PyTree,
    steps: Array,
    *,
    chunk: int,
    dtype: DType,
    program: Hashable,
) -> tuple[PyTree, tuple[PyTree, ...]]:
    """Computes `(outputs, states)` for one chunk, with its look-ahead.

    Args:
        cells_fw: The forward cell of each layer.
        cells_bw: The backward cell of each layer.
        states: The state of each forward cell before the chunk.
        xs: The inputs of the chunk and of its look-ahead, `[batch, time, ...]`.
        steps: The number of valid steps in `xs`, an int32 scalar. Later steps are
            padding.
        chunk: The number of steps in the chunk.
        dtype: The dtype of the states and the outputs.
        program: The result of `_program_of`.
    """
    del program
    lengths = jnp.full(jax.tree.leaves(xs)[0].shape[0], steps, jnp.int32)
    now = jnp.minimum(lengths, chunk)
    new_states = []
    for cell_fw, cell_bw, state in zip(cells_fw, cells_bw, states, strict=True):
        head = _at_steps(xs, slice(chunk))
        tail = _at_steps(xs, slice(chunk, None))
        outputs, state = dynamic_rnn(cell_fw, head, now, state, dtype)
        ahead, _ = dynamic_rnn(cell_fw, tail, lengths - now, state, dtype)
        forward = jax.tree.map(lambda *y: jnp.concatenate(y, 1), outputs, ahead)
        backward, _ = run_backward(cell_bw, xs, sequence_length=lengths, dtype=dtype)
        xs = joined(forward, backward, axis=2)
        new_states.append(state)
    return _at_steps(xs, slice(chunk)), tuple(new_states)


def _at_steps(tree: PyTree, steps: slice) -> PyTree:
    return jax.tree.map(lambda x: x[:, steps], tree)
