"""`packed_batches`: records of a pipeline, packed into batches of one shape."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .._base.arguments import as_count, check_time_major
from .._base.errors import describe
from .packed_sequences import PackedSequences
from .packing import OpenPack, PackShape
from .records import RecordReader

_CALLER = "packed_batches"


class PackedBatches(Iterator[PackedSequences]):
    """An iterator over packs of one shape, as `packed_batches` returns it."""

    def __init__(self, source: Iterator[Any], shape: PackShape) -> None:
        self._source, self._shape = source, shape
        self._reader = RecordReader(_CALLER)
        self._number = 0  # Of records that were read.
        self._restart()

    def _restart(self) -> None:
        self._batch: OpenPack | None = None
        self._held: list[np.ndarray] | None = None  # A record in no batch yet.
        # States before the record that is held and the first of the next batch.
        self._before_held: dict[str, Any] | None = None
        self._before_batch: dict[str, Any] | None = None

    def __next__(self) -> PackedSequences:
        # An open batch outlasts an error, such as that of a record that is too long.
        while record := self._held or self._read():
            self._batch = pack = self._batch or OpenPack(self._shape, record)
            fitting = (r for r, free in enumerate(pack.free) if len(record[0]) <= free)
            row = next(fitting, None)
            if row is None or pack.count == self._shape.sequences:
                break
            pack.put(pack.count, record, row)
            self._held = None
        if self._batch is None:
            raise StopIteration
        time = self._shape.row_length
        packed = self._batch.packed(self._reader.structure, time)
        self._batch = None
        self._before_batch = None if self._held is None else self._before_held
        return packed

    def _read(self) -> list[np.ndarray] | None:
        """The next record, which is held from now on; None if there is none."""
        self._before_held = self._state()
        if self._batch is None:
            self._before_batch = self._before_held
        try:
            record = next(self._source)
        except StopIteration:
            return None
        name = f"records[{self._number}]"
        self._number += 1
        leaves = self._reader.leaves(name, record)
        length = leaves[0].shape[0]
        if length > self._shape.row_length:
            raise ValueError(
                f"{_CALLER}: `{name}` must have at most {self._shape.row_length} "
                f"steps, the `row_length`, got {length}. Make rows longer, or cut it."
            )
        self._held = leaves
        return leaves

    def _state(self) -> dict[str, Any]:
        return {"records": _position(self._source), "number": self._number}

    def get_state(self) -> dict[str, Any]:
        """Where the next batch starts, to be passed to `set_state`.

        Returns:
            `{"records": position, "number": count}`: the position in `records` of the
            first record of the next batch, an index or what their own `get_state`
            returns, and the number of records before it. JSON can hold it if it can
            hold the position.

        Raises:
            TypeError: If `records` have no position.
        """
        state = self._before_batch or self._state()
        if state["records"] is None:
            raise TypeError(
                f"{_CALLER}: to be resumed, `records` must be a sequence, or have "
                "`get_state` and `set_state` as Grain's have, got "
                f"{describe(self._source)}. Pass a list (`__len__` and `__getitem__`), "
                "or a Grain dataset."
            )
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on where the state was taken: the same batches follow.

        Args:
            state: What `get_state` returned, of an iterator over the same records.

        Raises:
            TypeError: If `records` have no position, or `state` is of another form.
            ValueError: If it is a position beyond their end.
        """
        self.get_state()  # Raises where there is none.
        if not isinstance(state, dict) or set(state) != {"records", "number"}:
            raise TypeError(
                f"{_CALLER}: `state` must come from `get_state`, got {describe(state)}."
            )
        _set_position(self._source, state["records"])
        self._number = state["number"]
        self._restart()

    def __repr__(self) -> str:
        rows, steps, sequences, _ = self._shape
        return f"<packs of {sequences} sequences in {rows} rows of {steps} steps>"


def packed_batches(
    records: Iterable[Any],
    rows: int,
    row_length: int,
    *,
    sequences: int | None = None,
    time_major: bool = False,
) -> PackedBatches:
    """Packs the records of an input pipeline into batches of one shape.

    All batches share one compilation. The packing is first fit: a record goes into the
    first row of the batch that has room; if there is none, or if the batch has as many
    sequences as it may, the batch is complete and the record is the first of the next
    one. No record is cut, and none goes into an earlier batch than those before it.

    The last batch may be less full than the others; it has the same shape. Numbers of
    sequences that are not used have length 0: a loss must leave them out, by
    `packed.sequence_length > 0`.

    Args:
        records: A dataset or iterator of Grain; a sequence (anything with `__len__` and
            `__getitem__`); or any iterable. Each record is a sequence as in a list
            that `pack_sequences` takes: an array `[length, ...]` or a nest of such
            arrays; a number in the nest, such as a label, is stored at each step.
        rows: The number of rows of a batch.
        row_length: The number of steps of a row, at least that of the longest record.
            Rows are fuller the longer they are, compared with the records.
        sequences: The number of sequences of a batch, the same for all; by default one
            for every 4 steps of a row, rounded up, in each row. Records of fewer steps
            on average need more.
        time_major: Whether time is the first axis of the rows and of unpacked outputs.
            Records are `[length, ...]` regardless.

    Returns:
        An iterator over `PackedSequences`. Its `get_state()` and `set_state(state)` are
        as those of Grain's iterators: a run that was killed goes on with the same
        batches. For several epochs repeat the records, or call `packed_batches` again.

    Raises:
        TypeError: If an argument is of the wrong kind; on iteration, if a leaf of a
            record is traced or not an array.
        ValueError: If a number is below 1; on iteration, if a record is longer than a
            row, or differs from the first in structure, dtypes or the shape of a step.

    Example:
        >>> import numpy as np, jaxrnn
        >>> records = [np.ones((n, 3), np.float32) for n in [5, 2, 7, 4, 1, 8, 6]]
        >>> for packed in jaxrnn.packed_batches(records, rows=2, row_length=8):
        ...     print(packed, packed.sequence_length)
        PackedSequences(4 sequences in 2 rows of 8 steps, 88% full) [5 2 7 0]
        PackedSequences(4 sequences in 2 rows of 8 steps, 81% full) [4 1 8 0]
        PackedSequences(4 sequences in 2 rows of 8 steps, 38% full) [6 0 0 0]
    """
    check_time_major(_CALLER, time_major)
    rows = as_count(_CALLER, "rows", rows, fix="")
    row_length = as_count(_CALLER, "row_length", row_length, fix="")
    if sequences is None:
        sequences = rows * math.ceil(row_length / 4)
    sequences = as_count(_CALLER, "sequences", sequences)
    source = _as_source(records)
    shape = PackShape(rows, row_length, sequences, bool(time_major))
    return PackedBatches(source, shape)


class _Indexed(Iterator[Any]):
    """The records of a sequence; the position is an index."""

    def __init__(self, records: Any) -> None:
        self._records, self._next = records, 0

    def __next__(self) -> Any:
        if self._next >= len(self._records):
            raise StopIteration
        self._next += 1
        return self._records[self._next - 1]

    def get_state(self) -> int:
        return self._next

    def set_state(self, state: int) -> None:
        fix = "Resume over the records that the state was taken from."
        count = len(self._records)
        self._next = as_count(_CALLER, "state['records']", state, 0, fix, most=count)


def _as_source(records: Any) -> Iterator[Any]:
    """An iterator over the records, with `get_state` and `set_state` if it can be.

    Raises:
        TypeError: If they are not iterable, or a dict.
    """
    can_index = hasattr(records, "__len__") and hasattr(records, "__getitem__")
    if isinstance(records, Mapping) or not (can_index or isinstance(records, Iterable)):
        raise TypeError(
            f"{_CALLER}: `records` must be a sequence or an iterable of records, got "
            f"{describe(records)}. Padded arrays go to `pack_sequences`."
        )
    iterator = iter(records)
    if can_index and not _has_state(iterator):
        return _Indexed(records)
    return iterator


def _has_state(iterator: Any) -> bool:
    return hasattr(iterator, "get_state") and hasattr(iterator, "set_state")


def _position(iterator: Any) -> Any:
    """The position of an iterator, to be held by JSON; None if it has none."""
    if not _has_state(iterator):
        return None
    state = iterator.get_state()
    return state.decode() if isinstance(state, bytes) else state


def _set_position(iterator: Any, position: Any) -> None:
    """Goes to a position that `_position` returned for such an iterator."""
    # The state of a Grain `DataLoader` is JSON in bytes.
    is_bytes = isinstance(iterator.get_state(), bytes)
    iterator.set_state(position.encode() if is_bytes else position)
