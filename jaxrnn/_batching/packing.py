"""`pack_sequences`: packs sequences end to end in rows, with little padding.

Packing runs on the host, in NumPy, because shapes depend on the lengths.
"""

import bisect
from typing import Any, NamedTuple

import jax
import numpy as np

from .._base.arguments import as_count, check_time_major
from .._base.typing import Lengths, PyTree
from .packed_sequences import PackedSequences
from .records import from_list, from_padded

Placed = tuple[int, int]  # The index of a sequence, and the index of its row.


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
    packed sequences is a few percent more than the sum of their lengths. `packed_rnn`
    runs a cell over the result.

    Sequences are packed by the best-fit rule, longest sequence first. Packing runs on
    the host, outside of jit; ten thousand sequences take a few hundredths of a second.

    Args:
        inputs: With `sequence_length`, padded sequences: `[batch, time, ...]`, or
            `[time, batch, ...]` if `time_major`, or a nest of such arrays that have the
            same time and batch sizes. Without `sequence_length`, a list or tuple of
            sequences, each an array `[length, ...]` or a nest of such arrays that have
            the same length. All sequences must have the same structure, dtypes and step
            shapes. A tuple of padded arrays therefore needs `sequence_length`. The nest
            may also hold data that the cell does not read, such as a label per step. In
            a list, the nest of a sequence may hold numbers, such as its label; a number
            is stored at each step of the sequence, and `at_ends` reads it.
        sequence_length: `[batch]`, integers, clamped to `[0, time]`.
        rows: The number of rows; by default as few as needed, at least one.
        row_length: The number of steps in a row; by default the longest length, at
            least 1. If `rows` and `row_length` are given, all batches with the same
            number of sequences have the same shapes and share one compilation. To
            reach that number, add sequences of length 0 to a list; empty sequences take
            no steps.
        time_major: Whether time is the first axis of padded inputs, of the rows and of
            unpacked outputs. Sequences in a list are `[length, ...]` regardless.

    Returns:
        The packed sequences. `unpack` pads them to `time`, the size of the time axis of
        padded inputs, or `row_length` for a list.

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
    check_time_major(time_major)
    if sequence_length is None:
        records = from_list(inputs)
    else:
        records = from_padded(inputs, sequence_length, time_major)
    lengths = records.lengths
    longest = int(lengths.max(initial=1))
    fix = f"Cut the sequences of {longest} steps, or make rows longer."
    row_length = _fitting("row_length", row_length, longest, fix)
    placed, needed = _best_fit(lengths, row_length)
    fix = f"Pack fewer sequences, or make rows longer than {row_length} steps."
    rows = _fitting("rows", rows, max(needed, 1), fix)
    shape = PackShape(rows, row_length, len(records.leaves), bool(time_major))
    pack = OpenPack(shape, records.like)
    for i, row in placed:
        pack.put(i, records.leaves[i], row)
    time = row_length if records.time is None else records.time
    return pack.packed(records.structure, time)


def _fitting(name: str, given: int | None, least: int, fix: str) -> int:
    return least if given is None else as_count(name, given, least, fix)


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
            row, free = count, row_length
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


class OpenPack:
    """A pack that is being filled.

    Attributes:
        free: The number of unused steps in each row.
        count: The number of sequences in the pack.
    """

    def __init__(self, shape: PackShape, like: list[np.ndarray]) -> None:
        """Creates an empty pack, with the dtypes and step shapes of `like`."""
        self._shape, self.count = shape, 0
        self.free = [shape.row_length] * shape.rows
        dtype = lambda x: x.dtype.newbyteorder("=")
        self._leaves = [self._steps(x.shape[1:], dtype(x), 0) for x in like]
        self._starts = self._steps((), np.dtype(np.int32), -1)
        zeros = lambda: np.zeros(shape.sequences, np.int32)
        self._row, self._offset, self._length = zeros(), zeros(), zeros()

    def _steps(self, tail: tuple[int, ...], dtype: np.dtype, fill: int) -> np.ndarray:
        """An array `[rows, row_length, ...]`, stored time-first if `time_major`."""
        rows, row_length, _, time_major = self._shape
        if time_major:
            return np.full((row_length, rows, *tail), fill, dtype).swapaxes(0, 1)
        return np.full((rows, row_length, *tail), fill, dtype)

    def put(self, i: int, sequence: list[np.ndarray], row: int) -> None:
        """Appends sequence number `i` to a row that has room for it."""
        self.count += 1
        length = len(sequence[0])
        if not length:  # An empty sequence takes no steps: row and offset stay 0.
            return
        start = self._shape.row_length - self.free[row]
        self.free[row] -= length
        self._row[i], self._offset[i], self._length[i] = row, start, length
        self._starts[row, start] = i
        for leaf, steps in zip(self._leaves, sequence, strict=True):
            leaf[row, start : start + length] = steps

    def packed(self, structure: Any, time: int) -> PackedSequences:
        """The finished pack, with inputs in `structure`; `unpack` pads to `time`."""
        rows, row_length, sequences, time_major = self._shape
        turn = lambda x: x.swapaxes(0, 1) if time_major else x
        return PackedSequences(
            inputs=jax.tree.unflatten(structure, map(turn, self._leaves)),
            lengths=row_length - np.asarray(self.free, np.int32),
            starts=turn(self._starts),
            row=self._row,
            offset=self._offset,
            sequence_length=self._length,
            time=time,
            time_major=time_major,
            rows=rows,
            sequences=sequences,
        )
