"""`packed_batches` packs the records of a pipeline into batches of one shape."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import jax
import numpy as np

from .._base.arguments import as_count, check_time_major
from .._base.errors import counted
from .._base.expect import expect
from .._base.typing import PyTree
from .host import Leaves, as_sequence
from .packed_sequences import PackedSequences
from .packing import PackShape, Placed, pack

State: TypeAlias = dict[str, Any]
"""The position in `records`, and the number of records before this position."""


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

    def __repr__(self) -> str:
        rows, row_length, sequences, _ = self._shape
        sizes = f"{counted(sequences, 'sequence')} in {counted(rows, 'row')}"
        return f"<packs of {sizes} of {counted(row_length, 'step')}>"


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
    check_time_major(time_major)
    rows = as_count("rows", rows, fix="")
    row_length = as_count("row_length", row_length, fix="")
    if sequences is None:
        sequences = rows * math.ceil(row_length / 4)
    sequences = as_count("sequences", sequences)
    source = _as_source(records)
    shape = PackShape(rows, row_length, sequences, bool(time_major))
    return PackedBatches(source, shape)


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
        fix = "Pass the records that the state came from."
        most = len(self._records)
        self._next = as_count("state['records']", state, 0, fix, most)


def _as_source(records: Any) -> Any:
    """An iterator over the records, with `get_state` and `set_state` if possible.

    Raises:
        TypeError: If `records` is not iterable, or is a dict.
    """
    is_dict = isinstance(records, Mapping)
    must = "be a sequence or an iterable of records"
    fix = "To pack a dict of padded arrays, use `pack_sequences`."
    expect(not is_dict, "records", must, records, fix, error=TypeError)
    can_index = hasattr(records, "__len__") and hasattr(records, "__getitem__")
    iterator = iter(records)
    if can_index and not _has_state(iterator):
        return _Indexed(records)
    return iterator


def _has_state(iterator: object) -> bool:
    return hasattr(iterator, "get_state") and hasattr(iterator, "set_state")
