"""Which sequence goes into which row: best fit, the longest first."""

import bisect

import numpy as np


def best_fit(
    lengths: np.ndarray, row_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and offset of each sequence, and the steps used in each row; all int32.

    At worst it takes about 11/9 of the fewest rows. Rows with equally many free steps
    form a group, so that a sequence costs one search among the groups. Sequences of
    length 0 take no steps and have row and offset 0.

    Source: Johnson 1973, "Near-optimal bin packing algorithms".
    """
    row, offset, used = [0] * len(lengths), [0] * len(lengths), []
    rows_by_free: dict[int, list[int]] = {}
    frees: list[int] = []  # The keys of groups that are not empty, in order.
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
    as_int32 = lambda x: np.asarray(x, np.int32)
    return as_int32(row), as_int32(offset), as_int32(used)
