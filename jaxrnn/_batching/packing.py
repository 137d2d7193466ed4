"""Packs sequences end to end in rows, with little padding.

`pack_sequences` packs a batch, and `packed_batches` the records of an input pipeline.
Both run on the host, in NumPy, because shapes depend on the lengths.
"""

import bisect
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from .._base.arguments import as_count, check_time_major
from .._base.errors import expect
from .._base.trees import with_structure
from .._base.typing import Lengths, PyTree
from .host import Leaves, as_sequence, cut_padding, from_list
from .packed_sequences import PackedSequences

Placed: TypeAlias = tuple[int, int]
"""The index of a sequence, and the index of its row."""

State: TypeAlias = dict[str, Any]
"""The position in `records`, and the number of records before this position."""


def pack_sequences(
    inputs: PyTree,
    sequence_length: Lengths | None = None,
    *,
    rows: int | None = None,
    row_length: int | None = None,
    time_major: bool = False,
) -> PackedSequences:
    """Packs sequences end to end into few rows, with little padding.

    The cost of a padded batch is the batch size times the longest length. The cost of
    packed sequences is usually a few percent more than the sum of the lengths.
    `packed_rnn` runs a cell over the result.

    Sequences are packed by the best-fit rule, longest sequence first. Packing runs on
    the host, outside of jit. On one CPU core, packing ten thousand sequences of 100
    steps on average, with 8 features, takes about 0.2 seconds.

    Args:
        inputs: With `sequence_length`, padded sequences: `[batch, time, ...]`, or
            `[time, batch, ...]` if `time_major`, or a nest of such arrays that have the
            same time and batch sizes. Without `sequence_length`, a list or tuple of
            sequences, each an array `[length, ...]` or a nest of such arrays that have
            the same length. All sequences must have the same structure, dtypes and step
            shapes. A tuple of padded arrays therefore needs `sequence_length`. The nest
            may also hold data that the cell does not read, such as a label per step. In
            a list, the nest of a sequence may also hold numbers, such as a label of the
            whole sequence. A number is stored at each step of the sequence; `at_ends`
            returns one number per sequence again.
        sequence_length: `[batch]`, integers, clamped to `[0, time]`.
        rows: The number of rows; by default as few as needed, at least one.
        row_length: The number of steps in a row; by default the longest length, at
            least 1. If `rows` and `row_length` are given, all batches with the same
            number of sequences have the same shapes and share one compilation. To reach
            this number, add sequences of length 0, which take no steps, to a list.
        time_major: Whether time is the first axis of padded inputs, of the rows and of
            unpacked outputs. Sequences in a list are `[length, ...]` regardless.

    Returns:
        The packed sequences. `unpack` pads each sequence to the size of the time axis
        of padded inputs or, for a list, to `row_length`.

    Raises:
        TypeError: If an argument is traced (pack outside of jit) or has the wrong type.
        ValueError: If `inputs` contains no array, or if structures, shapes or dtypes do
            not match; if a sequence is longer than a row; if there are too few rows
            (the message gives the number needed).

    Example:
        >>> import numpy as np, jaxrnn
        >>> x = np.ones((4, 7, 3), np.float32)
        >>> packed = jaxrnn.pack_sequences(x, [7, 0, 3, 4])
        >>> packed
        PackedSequences(4 sequences in 2 rows of 7 steps, 100% full)
        >>> packed.unpack(packed.inputs).shape
        (4, 7, 3)
    """
    time_major = check_time_major(time_major)
    time = None
    if sequence_length is None:
        records = from_list(inputs)
        sequences = [jax.tree.leaves(record) for record in records]
        like = records[0]
    else:
        sequences, time = cut_padding(inputs, sequence_length, time_major)
        like = jax.tree.map(lambda x: np.empty((0, *x.shape[2:]), x.dtype), inputs)
    lengths = np.asarray([len(leaves[0]) for leaves in sequences], np.int32)
    longest = int(lengths.max(initial=1))
    fix = "Increase `row_length`, or split the sequences that are longer."
    row_length = longest if row_length is None else row_length
    row_length = as_count("row_length", row_length, longest, fix)
    placed, needed = _best_fit(lengths, row_length)
    rows = needed or 1 if rows is None else rows
    fix = "Increase `rows` or `row_length`, or pack fewer sequences."
    rows = as_count("rows", rows, needed or 1, fix)
    shape = PackShape(rows, row_length, len(sequences), time_major)
    return pack(sequences, placed, like, shape, row_length if time is None else time)


def _best_fit(lengths: np.ndarray, row_length: int) -> tuple[list[Placed], int]:
    """Pairs `(sequence, row)` in the order of packing, and the number of rows.

    The packing needs at most about 11/9 of the minimum number of rows. Rows with the
    same number of free steps form a group, so placing a sequence requires a single
    search among the groups. Sequences of length 0 take no steps and are not packed.

    Source: Johnson 1973, "Near-optimal bin packing algorithms".
    """
    placed: list[Placed] = []
    count = 0
    rows_by_free: dict[int, list[int]] = {}
    frees: list[int] = []  # The keys of nonempty groups, ascending.
    longest_first = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
    for i in longest_first.tolist():
        length = int(lengths[i])
        at = bisect.bisect_left(frees, length)
        if at == len(frees):
            row = count
            free = row_length
            count += 1
        else:
            free = frees[at]
            row = rows_by_free[free].pop()
            if not rows_by_free[free]:
                del frees[at]
        placed.append((i, row))
        free -= length
        group = rows_by_free.setdefault(free, [])
        if not group:
            bisect.insort(frees, free)
        group.append(row)
    return placed, count


class PackShape(NamedTuple):
    """The sizes that packs must share to use the same compiled program."""

    rows: int
    row_length: int
    sequences: int
    time_major: bool


def pack(
    sequences: list[Leaves],
    placed: list[Placed],
    like: PyTree,
    shape: PackShape,
    time: int,
) -> PackedSequences:
    """The pack that holds sequences end to end.

    Args:
        sequences: The arrays of each sequence.
        placed: `(sequence, row)` in the order of packing.
        like: A nest of arrays `[any, ...]` with the dtypes and step shapes of the
            sequences.
        shape: The sizes of the pack.
        time: The size of the time axis that `unpack` returns.
    """
    rows, row_length, count, time_major = shape
    row_of, offset, length = np.zeros((3, count), np.int32)
    used = np.zeros(rows, np.int32)
    starts = np.full((rows, row_length), -1, np.int32)
    leaves = [
        np.zeros((rows, row_length, *x.shape[1:]), x.dtype.newbyteorder("="))
        for x in jax.tree.leaves(like)
    ]
    for i, row in placed:
        length[i] = len(sequences[i][0])
        if not length[i]:  # For an empty sequence, row and offset stay 0.
            continue
        row_of[i] = row
        offset[i] = used[row]
        used[row] += length[i]
        starts[row, offset[i]] = i
        for leaf, steps in zip(leaves, sequences[i], strict=True):
            leaf[row, offset[i] : used[row]] = steps
    if time_major:
        starts = starts.swapaxes(0, 1)
        leaves = [leaf.swapaxes(0, 1) for leaf in leaves]
    return PackedSequences(
        inputs=with_structure(like, leaves),
        lengths=used,
        starts=starts,
        row=row_of,
        offset=offset,
        sequence_length=length,
        time=time,
        time_major=time_major,
        rows=rows,
        sequences=count,
    )


class PackedBatches(Iterator[PackedSequences]):
    """An iterator over packs of one shape, returned by `packed_batches`."""

    def __init__(self, source: Any, shape: PackShape) -> None:
        self._source = source
        self._shape = shape
        self._number = 0  # The number of records read so far.
        self._first: PyTree = None  # The first record, which all others are like.
        # Records that are not in a batch yet, each with the `State` from before the
        # record was read.
        self._waiting: list[tuple[State, Leaves]] = []

    def __next__(self) -> PackedSequences:
        placed: list[Placed] = []
        free = [self._shape.row_length] * self._shape.rows
        # `_waiting` may hold a record that did not fit into the last batch or, after an
        # error, the records of the batch that was not returned.
        while len(self._waiting) > len(placed) or self._read():
            _, record = self._waiting[len(placed)]
            length = len(record[0])
            row = next((r for r, steps in enumerate(free) if length <= steps), None)
            if row is None or len(placed) == self._shape.sequences:
                break
            placed.append((len(placed), row))
            free[row] -= length
        if not placed:
            raise StopIteration
        sequences = [record for _, record in self._waiting[: len(placed)]]
        del self._waiting[: len(placed)]
        row_length = self._shape.row_length
        return pack(sequences, placed, self._first, self._shape, row_length)

    def _read(self) -> bool:
        """Reads the next record into `_waiting`; returns False at the end."""
        state = self._state()
        try:
            record = next(self._source)
        except StopIteration:
            return False
        name = f"records[{self._number}]"
        self._number += 1
        record = as_sequence(name, record, self._first)
        self._first = record if self._first is None else self._first
        # Copy the leaves, because the source may write its next record into the same
        # buffer.
        leaves = [np.array(leaf) for leaf in jax.tree.leaves(record)]
        most = self._shape.row_length
        must = f"have at most `row_length` ({most}) steps"
        fix = "Increase `row_length`, or split the record."
        expect(len(leaves[0]) <= most, name, must, leaves[0], fix)
        self._waiting.append((state, leaves))
        return True

    def _state(self) -> State:
        position = self._source.get_state() if _has_state(self._source) else None
        if isinstance(position, bytes):  # A Grain `DataLoader` returns JSON as bytes.
            position = position.decode()
        return {"records": position, "number": self._number}

    def get_state(self) -> State:
        """The position at which the next batch starts, for `set_state`.

        Returns:
            `{"records": position, "number": count}` for the first record of the next
            batch. `position` is the index of this record in `records`, or the result of
            the records' own `get_state`. `count` is the number of records before this
            record. The state can be stored as JSON if `position` can.

        Raises:
            TypeError: If `records` has no position.
        """
        state = self._waiting[0][0] if self._waiting else self._state()
        is_known = state["records"] is not None
        must = "be a sequence, or have `get_state` and `set_state`"
        expect(is_known, "records", must, self._source, error=TypeError)
        return state

    def set_state(self, state: State) -> None:
        """Continues with the batches that followed when the state was taken.

        Args:
            state: A state from `get_state` of an iterator over the same records.

        Raises:
            TypeError: If `records` has no position.
            ValueError: If the position is past the end of `records`.
        """
        self.get_state()  # Raises an error if `records` has no position.
        position = state["records"]
        is_bytes = isinstance(self._source.get_state(), bytes)
        self._source.set_state(position.encode() if is_bytes else position)
        self._number = state["number"]
        self._waiting = []


def packed_batches(
    records: Iterable[PyTree],
    rows: int,
    row_length: int,
    *,
    sequences: int | None = None,
    time_major: bool = False,
) -> PackedBatches:
    """Packs the records of an input pipeline into batches of one shape.

    All batches share one compilation. Records are packed by the first-fit rule: a
    record goes into the first row of the batch that has room for the record. If no row
    has room, or if the batch already has `sequences` sequences, the batch is complete,
    and the record goes into the next batch. Records are never cut, and batches keep the
    order of the records.

    The last batch may be less full than the others, but has the same shape. If a
    batch has fewer than `sequences` sequences, the unused entries have length 0. Mask
    these entries in a loss, with `packed.sequence_length > 0`.

    Args:
        records: A Grain dataset or iterator, a sequence (anything with `__len__` and
            `__getitem__`), or any iterable. Each record is one sequence, in the form
            of an entry of a list for `pack_sequences`: an array `[length, ...]` or a
            nest of such arrays. A number in the nest, such as a label, is stored at
            each step.
        rows: The number of rows in a batch.
        row_length: The number of steps in a row, at least the length of the longest
            record. If rows are much longer than the records, less padding is needed.
        sequences: The number of sequences in each batch; by default
            `rows * ceil(row_length / 4)`. Pass a larger number for records with fewer
            than 4 steps on average.
        time_major: Whether time is the first axis of the rows and of unpacked outputs.
            Records are `[length, ...]` regardless.

    Returns:
        An iterator over `PackedSequences`. Like Grain's iterators, this iterator has
        `get_state()` and `set_state(state)`, so an interrupted run can continue with
        the same batches. For several epochs, repeat the records or call
        `packed_batches` again.

    Raises:
        TypeError: If an argument has the wrong type; on iteration, if a leaf of a
            record is traced or not an array.
        ValueError: If a number is below 1; on iteration, if a record is longer than a
            row, or differs from the first record in structure, dtypes or the shape of a
            step.

    Example:
        >>> import numpy as np, jaxrnn
        >>> records = [np.ones((n, 3), np.float32) for n in [5, 2, 7, 4, 1, 8, 6]]
        >>> for packed in jaxrnn.packed_batches(records, rows=2, row_length=8):
        ...     print(packed, packed.sequence_length)
        PackedSequences(4 sequences in 2 rows of 8 steps, 88% full) [5 2 7 0]
        PackedSequences(4 sequences in 2 rows of 8 steps, 81% full) [4 1 8 0]
        PackedSequences(4 sequences in 2 rows of 8 steps, 38% full) [6 0 0 0]
    """
    time_major = check_time_major(time_major)
    rows = as_count("rows", rows, fix="")
    row_length = as_count("row_length", row_length, fix="")
    if sequences is None:
        sequences = rows * math.ceil(row_length / 4)
    sequences = as_count("sequences", sequences)
    shape = PackShape(rows, row_length, sequences, time_major)
    return PackedBatches(_as_source(records), shape)


class _Indexed(Iterator[PyTree]):
    """An iterator over a sequence of records, with an index as its position."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self._next = 0

    def __next__(self) -> PyTree:
        if self._next >= len(self._records):
            raise StopIteration
        self._next += 1
        return self._records[self._next - 1]

    def get_state(self) -> int:
        return self._next

    def set_state(self, state: int) -> None:
        self._next = as_count("state['records']", state, 0, "", len(self._records))


def _as_source(records: Any) -> Any:
    """An iterator over the records, with `get_state` and `set_state` if possible.

    Raises:
        TypeError: If `records` is not iterable.
    """
    iterator = iter(records)
    can_index = hasattr(records, "__len__") and hasattr(records, "__getitem__")
    return _Indexed(records) if can_index and not _has_state(iterator) else iterator


def _has_state(iterator: object) -> bool:
    return hasattr(iterator, "get_state") and hasattr(iterator, "set_state")
