"""`pack_sequences`: sequences end to end in rows, so that few steps are padding.

They are packed on the host, in NumPy, since shapes depend on the lengths.
"""

import bisect
from typing import NamedTuple

import jax
import numpy as np

from .._base.arguments import as_count, check_time_major
from .._base.typing import Lengths, PyTree
from .host import from_padded
from .packed_sequences import PackedSequences
from .records import from_list

_WHERE = "pack_sequences"


def pack_sequences(
    inputs: PyTree,
    sequence_length: Lengths | None = None,
    *,
    rows: int | None = None,
    row_length: int | None = None,
    time_major: bool = False,
) -> PackedSequences:
    """Packs sequences end to end into few rows, so that few steps are padding.

    The cost of a padded batch is the batch size times the longest length; that of
    packed sequences is the sum of the lengths plus a few percent. `packed_rnn` runs a
    cell over the result.

    The packing is best fit, longest sequence first. It runs on the host, outside jit:
    ten thousand sequences take some hundredths of a second.

    Args:
        inputs: With `sequence_length`, padded sequences: `[batch, time, ...]`, or
            `[time, batch, ...]` if `time_major`, or a nest of such arrays that agree in
            time and batch. Without it, a list or tuple of sequences, each an array
            `[length, ...]` or a nest of such arrays that agree in length; all sequences
            have the same structure, dtypes and shapes of a step. (So a tuple of padded
            arrays needs `sequence_length`.) The nest may also hold data that the cell
            does not read, such as a label per step. A number in the nest of a sequence
            in a list, such as its label, is stored at each of its steps: `at_ends`
            reads it.
        sequence_length: `[batch]`, integers, clamped to `[0, time]`.
        rows: The number of rows; by default as few as needed, at least one.
        row_length: The number of steps in a row; by default the longest length, at
            least 1. With `rows` and `row_length` given, all batches of as many
            sequences have the same shapes and share one compilation. Sequences of
            length 0 take no steps: pad a list with them.
        time_major: Whether time is the first axis of padded inputs, of the rows and of
            unpacked outputs. Sequences in a list are `[length, ...]` regardless.

    Returns:
        The packed sequences. Their `time`, to which `unpack` pads, is that of padded
        inputs, or `row_length` for a list.

    Raises:
        TypeError: If an argument is traced (pack outside jit) or of the wrong kind.
        ValueError: If `inputs` hold no array, or disagree in structure, shape or dtype;
            if a sequence is longer than a row; if there are too few rows (the message
            gives the number needed).

    Example:
        >>> import numpy as np, jaxrnn
        >>> x = np.ones((4, 7, 3), np.float32)
        >>> packed = jaxrnn.pack_sequences(x, [7, 0, 3, 4])
        >>> packed
        PackedSequences(4 sequences in 2 rows of 7 steps, 100% full)
        >>> packed.unpack(packed.inputs).shape
        (4, 7, 3)
    """
    check_time_major(_WHERE, time_major)
    if rows is not None:
        rows = as_count(_WHERE, "rows", rows)
    if row_length is not None:
        row_length = as_count(_WHERE, "row_length", row_length)
    if sequence_length is None:
        steps, lengths = from_list(_WHERE, inputs)
        time = None
    else:
        steps, lengths, time = from_padded(_WHERE, inputs, sequence_length, time_major)
    row_length = _fitting_row_length(lengths, row_length)
    row, offset, needed = _best_fit(lengths, row_length)
    rows = _fitting_rows(needed, rows, row_length)
    shape = PackShape(rows, row_length, len(lengths), bool(time_major))
    return lay_out(
        steps, lengths, row, offset, shape, row_length if time is None else time
    )


def _fitting_row_length(lengths: np.ndarray, row_length: int | None) -> int:
    longest = int(lengths.max(initial=1))
    if row_length is None or row_length >= longest:
        return row_length or longest
    raise ValueError(
        f"{_WHERE}: `row_length` must be at least {longest}, the length of sequence "
        f"{lengths.argmax()}, got {row_length}. Make rows longer, or cut the sequence."
    )


def _fitting_rows(needed: int, rows: int | None, row_length: int) -> int:
    if rows is None or rows >= needed:
        return rows or max(needed, 1)
    raise ValueError(
        f"{_WHERE}: `rows` must be at least {needed} for these sequences in rows of "
        f"{row_length} steps, got {rows}. Pack fewer sequences, or make more rows, or "
        "longer ones."
    )


def _best_fit(
    lengths: np.ndarray, row_length: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Row and offset of each sequence, int32, and the number of rows.

    It needs at most about 11/9 of the minimum number of rows. Rows with equally many
    free steps form a group, so a sequence costs one search among the groups. Sequences
    of length 0 take no steps and have row and offset 0.

    Source: Johnson 1973, "Near-optimal bin packing algorithms".
    """
    row, offset, used = [0] * len(lengths), [0] * len(lengths), []
    rows_by_free: dict[int, list[int]] = {}
    frees: list[int] = []  # The keys of groups that are not empty, ascending.
    longest_first = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
    for i, length in zip(
        longest_first.tolist(), lengths[longest_first].tolist(), strict=True
    ):
        at = bisect.bisect_left(frees, length)
        if at == len(frees):
            r = len(used)
            used.append(0)
        else:
            group = rows_by_free[frees[at]]
            r = group.pop()
            if not group:
                del frees[at]
        row[i], offset[i] = r, used[r]
        used[r] += length
        free = row_length - used[r]
        group = rows_by_free.setdefault(free, [])
        if not group:
            bisect.insort(frees, free)
        group.append(r)
    return np.asarray(row, np.int32), np.asarray(offset, np.int32), len(used)


class PackShape(NamedTuple):
    """The sizes that packs of one program have in common."""

    rows: int
    row_length: int
    sequences: int
    time_major: bool


def lay_out(
    steps: PyTree,
    lengths: np.ndarray,
    row: np.ndarray,
    offset: np.ndarray,
    shape: PackShape,
    time: int,
) -> PackedSequences:
    """The pack of sequences whose places are known.

    Args:
        steps: The steps of all sequences, end to end, each leaf `[steps, ...]`.
        lengths: The length of each sequence.
        row: int32, the row of each; 0 for those of length 0.
        offset: int32, the step of that row at which each starts; 0 likewise.
        shape: The sizes of the pack; it may have more sequences, of length 0.
        time: The size of the time axis that `unpack` returns.
    """
    axes = slice(None, None, -1 if shape.time_major else 1)

    def put(x: np.ndarray, row: np.ndarray, step: np.ndarray, fill: int) -> np.ndarray:
        packed = np.full(shape[:2][axes] + x.shape[1:], fill, x.dtype)
        packed[(row, step)[axes]] = x
        return packed

    # For each step its sequence, and its index in that.
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    t = np.arange(len(sequence)) - (np.cumsum(lengths) - lengths)[sequence]
    place = row[sequence], offset[sequence] + t
    not_empty = np.flatnonzero(lengths).astype(np.int32)
    pad = lambda x: np.pad(x.astype(np.int32), (0, shape.sequences - len(x)))
    return PackedSequences(
        inputs=jax.tree.map(lambda x: put(x, *place, 0), steps),
        lengths=np.bincount(row, lengths, shape.rows).astype(np.int32),
        starts=put(not_empty, row[not_empty], offset[not_empty], -1),
        row=pad(row),
        offset=pad(offset),
        sequence_length=pad(lengths),
        time=time,
        time_major=shape.time_major,
        rows=shape.rows,
        sequences=shape.sequences,
    )
