"""`windows`: cuts long sequences along time, one window at a time.

A window of packed rows also consists of packed rows. Window boundaries cut sequences
into parts, which are numbered like sequences. The first parts (one for each row)
continue the last sequence of each row from the previous window. The other parts belong
to the sequences that start in the window. All windows have the same number of parts, so
all windows have the same shapes; absent parts have length 0.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_count, check_time_major
from .._base.errors import describe_leaves, expect
from .._base.inputs import check_concrete, like
from .._base.trees import serializable
from .._base.typing import Array, Lengths, PyTree
from .host import as_sources, cut, host_lengths
from .packed_sequences import PackedSequences, check_whole, with_first_axes

AnyWindow: TypeAlias = "Window | PackedWindow"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LazyWindows(Sequence[AnyWindow]):
    """A sequence of windows, each of which is computed on access and not stored.

    Attributes:
        window_at: Computes a window, given the index of its first step. The function
            must support pickling, e.g. as a partial of a module's function.
        starts: The index of the first step of each window.
    """

    window_at: Callable[[int], AnyWindow]
    starts: range

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return LazyWindows(self.window_at, self.starts[i])
        return self.window_at(self.starts[i])

    def __iter__(self) -> Iterator[AnyWindow]:
        # `Sequence.__iter__` would stop without an error if reading the data raised an
        # IndexError.
        return map(self.window_at, self.starts)

    def __repr__(self) -> str:
        return f"<{len(self)} windows>"


@serializable
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Window:
    """Consecutive steps of a batch of long sequences, as `windows` yields them.

    A `Window` is a pytree of NumPy arrays.

    Attributes:
        inputs: The nest with leaves `[batch, size, ...]`, or `[size, batch, ...]` if
            `time_major`; zeros past the end of the time axis.
        sequence_length: int32 `[batch]`, the length of each row in this window. None if
            `windows` received no lengths and `size` divides the number of steps.
        start: int32, the index of the window's first step in the sequences.
    """

    inputs: PyTree
    sequence_length: Array | np.ndarray | None
    start: Array | np.int32

    def __repr__(self) -> str:
        return f"Window(start={self.start}, inputs={describe_leaves(self.inputs)})"


@serializable
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PackedWindow:
    """Consecutive steps of packed rows, as `windows` yields them.

    A `PackedWindow` is a pytree of NumPy arrays. Run each window with `packed_rnn`, and
    pass the state of each row to the next window:

        start = window.start_from(row_state, cell.zero_state(1, dtype))
        outputs, states = packed_rnn(cell.bind(params), window.packed, start)
        row_state = window.row_state(states)

    In the first window, no sequence continues, so the values of `row_state` do not
    matter; pass `cell.zero_state(window.rows, dtype)`.

    Attributes:
        packed: The parts of sequences in the window, as `PackedSequences` of
            `rows + new` sequences. For each row r, part r continues a sequence of the
            previous window; the other parts start in this window. Absent parts have
            length 0.
        part_of: int32 `[parts]`, the sequence to which each part belongs; -1 for parts
            of length 0.
        ends: int32 `[parts]`, equal to `part_of` for parts at which a sequence ends,
            otherwise -1. Collect final states with
            `.at[ends].set(states, wrap_negative_indices=False)`. No window contains
            sequences of length 0.
        last: int32 `[rows]`, the last part of each row.
        start: int32, the index of the window's first step in the rows.
    """

    packed: PackedSequences
    part_of: Array | np.ndarray
    ends: Array | np.ndarray
    last: Array | np.ndarray
    start: Array | np.int32

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.last.shape[0]

    @property
    def new(self) -> int:
        """The largest number of sequences that start in any window."""
        return self.part_of.shape[0] - self.rows

    def start_from(self, row_state: PyTree, fresh_state: PyTree) -> PyTree:
        """The initial state of all parts, for `packed_rnn`.

        Args:
            row_state: The state of each row after the previous window, `[rows, ...]`.
            fresh_state: The initial state of new sequences: `[1, ...]`, shared by all
                new sequences, or `[new, ...]`, one for each of the sequences
                `part_of[rows:]`.

        Returns:
            The nest with leaves `[parts, ...]`.

        Raises:
            ValueError: If the two states differ in structure, shapes or dtypes.
            TypeError: If a leaf is not an array.
        """
        fix = "Pass the result of the previous window's `row_state`."
        old = with_first_axes("row_state", row_state, (self.rows,), fix)
        fix = "The leaves of `row_state` and `fresh_state` are concatenated."
        new = like("fresh_state", fresh_state, old, skip=1, fix=fix, error=ValueError)

        def join(old: Array, new: Array) -> Array:
            new = jnp.broadcast_to(new, (self.new, *new.shape[1:]))
            return jnp.concatenate([old, new])

        return jax.tree.map(join, old, new)

    def row_state(self, states: PyTree) -> PyTree:
        """The state of each row after its last step in the window.

        Args:
            states: The states of all parts that `packed_rnn` returned, `[parts, ...]`.

        Returns:
            The nest with leaves `[rows, ...]`; rows without a step in the window keep
            their state.

        Raises:
            ValueError: If a leaf is not `[parts, ...]`.
            TypeError: If a leaf is not an array.
        """
        states = with_first_axes("states", states, self.part_of.shape)
        return jax.tree.map(lambda x: x[jnp.asarray(self.last)], states)

    def __repr__(self) -> str:
        return f"PackedWindow(start={self.start}, packed={self.packed})"


def windows(
    inputs: PyTree,
    size: int,
    sequence_length: Lengths | None = None,
    *,
    time_major: bool = False,
) -> Sequence[Any]:
    """Cuts sequences along time into windows, on the host, outside of jit.

    All windows have the same structure and shapes, so they share one compilation. Each
    window is read on access. If `inputs` is an `np.memmap`, or any object with `shape`,
    `dtype` and slicing, only the windows in use are in memory.

    Args:
        inputs: `[batch, time, ...]`, or `[time, batch, ...]` if `time_major`; or a nest
            of such arrays (with labels, for example) that have the same time and batch
            sizes; or `PackedSequences`.
        size: The number of steps in a window. If `size` does not divide the number of
            steps, the last window is padded with zeros.
        sequence_length: The length of each row, `[batch]`, integers, clamped to
            `[0, time]`; None for all steps.
        time_major: Whether time is the first axis.

    Returns:
        A sequence of `ceil(time / size)` windows, each a `Window`, or a `PackedWindow`
        for `PackedSequences`. The result supports `len` and slices. For example,
        `windows(x, 25)[k:]` resumes an interrupted run.

    Raises:
        TypeError: If an argument is traced or has the wrong type.
        ValueError: If `inputs` contains no array, if an array has fewer than two axes,
            or if the sizes of axes do not match; if `size` is below 1; if
            `sequence_length` or `time_major` is given with `PackedSequences`.

    Example:
        >>> import numpy as np, jaxrnn
        >>> x, ids = np.ones((2, 10, 3), np.float32), np.ones((2, 10), np.int32)
        >>> made = jaxrnn.windows((x, ids), 4, [10, 5])
        >>> len(made)
        3
        >>> for window in made:
        ...     print(window, window.sequence_length)
        Window(start=0, inputs=(float32[2, 4, 3], int32[2, 4])) [4 4]
        Window(start=4, inputs=(float32[2, 4, 3], int32[2, 4])) [4 1]
        Window(start=8, inputs=(float32[2, 4, 3], int32[2, 4])) [2 0]
    """
    size = as_count("size", size, fix="Pass the number of steps of a window.")
    check_time_major(time_major)
    if isinstance(inputs, PackedSequences):
        must = "be omitted for `PackedSequences`, which hold it"
        expect(sequence_length is None, "sequence_length", must, sequence_length)
        expect(not time_major, "time_major", must, time_major)
        return _packed_windows(inputs, size)
    inputs, time, batch_size = as_sources(inputs, time_major)
    if sequence_length is None:
        lengths = np.full(batch_size, time) if time % size else None
    else:
        lengths = host_lengths(sequence_length, batch_size, time)
    window_at = functools.partial(
        _window, inputs=inputs, size=size, lengths=lengths, time_major=time_major
    )
    return LazyWindows(window_at, range(0, time, size))


def _window(
    start: int,
    inputs: PyTree,
    size: int,
    lengths: np.ndarray | None,
    time_major: bool,
) -> Window:
    if lengths is not None:
        lengths = (lengths - start).clip(0, size).astype(np.int32)
    return Window(cut(inputs, start, size, time_major), lengths, np.int32(start))


def _packed_windows(packed: PackedSequences, size: int) -> LazyWindows:
    check_whole("inputs", packed)
    check_concrete("inputs", packed)
    packed = jax.tree.map(np.asarray, packed)
    starts_in = packed.offset[packed.sequence_length > 0] // size
    new = np.bincount(starts_in, minlength=1).max().item()
    window_at = functools.partial(_packed_window, packed=packed, size=size, new=new)
    return LazyWindows(window_at, range(0, packed.row_length, size))


def _packed_window(
    start: int, packed: PackedSequences, size: int, new: int
) -> PackedWindow:
    end = packed.offset + packed.sequence_length
    begin = np.maximum(packed.offset, start)
    stop = np.minimum(end, start + size)
    here = np.flatnonzero(begin < stop)
    here = here[np.argsort(begin[here], kind="stable")]  # Sort by the start step.
    continues = packed.offset[here] < start
    row = packed.row[here]
    at = begin[here] - start
    last = np.arange(len(packed.lengths), dtype=np.int32)
    part = np.where(continues, row, len(last) - 1 + np.cumsum(~continues))
    last[row] = part  # A later part of a row overwrites the earlier parts.

    def of_parts(values: Any, fill: int) -> np.ndarray:
        all_parts = np.full(len(last) + new, fill, np.int32)
        all_parts[part] = values
        return all_parts

    starts = np.full((len(last), size), -1, np.int32)
    starts[row, at] = part
    parts = PackedSequences(
        inputs=cut(packed.inputs, start, size, packed.time_major),
        lengths=(packed.lengths - start).clip(0, size),
        starts=starts.T if packed.time_major else starts,
        row=of_parts(row, 0),
        offset=of_parts(at, 0),
        sequence_length=of_parts((stop - begin)[here], 0),
        time=size,
        time_major=packed.time_major,
        rows=len(last),
        sequences=len(last) + new,
    )
    return PackedWindow(
        packed=parts,
        part_of=of_parts(here, -1),
        ends=of_parts(np.where(end[here] <= start + size, here, -1), -1),
        last=last,
        start=np.int32(start),
    )
