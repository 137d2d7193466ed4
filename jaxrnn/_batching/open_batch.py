"""A batch of packed sequences that is being filled."""

from typing import Any, NamedTuple

import jax
import numpy as np

from .packed_sequences import PackedSequences


class PackShape(NamedTuple):
    """The sizes that packs have in common."""

    rows: int
    row_length: int
    sequences: int
    time_major: bool


class OpenBatch:
    """A batch of packed sequences that is being filled, first fit."""

    def __init__(self, shape: PackShape, like: list[np.ndarray]) -> None:
        """An empty batch for sequences of the dtypes and shapes of a step of `like`."""
        self._shape, self._count = shape, 0
        self._free = [shape.row_length] * shape.rows
        self._leaves = [self._steps(x.shape[1:], x.dtype, 0) for x in like]
        self._starts = self._steps((), np.dtype(np.int32), -1)
        zeros = lambda: np.zeros(shape.sequences, np.int32)
        self._row, self._offset, self._length = zeros(), zeros(), zeros()

    def _steps(self, tail: tuple[int, ...], dtype: np.dtype, fill: int) -> np.ndarray:
        """`[rows, row_length, ...]`; in memory time is first if `time_major`."""
        rows, row_length, _, time_major = self._shape
        if time_major:
            return np.full((row_length, rows, *tail), fill, dtype).swapaxes(0, 1)
        return np.full((rows, row_length, *tail), fill, dtype)

    def add(self, sequence: list[np.ndarray]) -> bool:
        """Copies a sequence into the first row with room; whether there was room."""
        length, i = sequence[0].shape[0], self._count
        fitting = (r for r, free in enumerate(self._free) if length <= free)
        row = next(fitting, None)
        if row is None or i == self._shape.sequences:
            return False
        self._count += 1
        if length:  # Else it takes no steps, and row and offset stay 0.
            start = self._shape.row_length - self._free[row]
            self._free[row] -= length
            self._row[i], self._offset[i], self._length[i] = row, start, length
            self._starts[row, start] = i
            for leaf, steps in zip(self._leaves, sequence, strict=True):
                leaf[row, start : start + length] = steps
        return True

    def packed(self, structure: Any) -> PackedSequences:
        """The batch, whose inputs have this structure."""
        rows, row_length, sequences, time_major = self._shape
        turn = lambda x: x.swapaxes(0, 1) if time_major else x
        return PackedSequences(
            inputs=jax.tree.unflatten(structure, map(turn, self._leaves)),
            lengths=row_length - np.asarray(self._free, np.int32),
            starts=turn(self._starts),
            row=self._row,
            offset=self._offset,
            sequence_length=self._length,
            time=row_length,
            time_major=time_major,
            rows=rows,
            sequences=sequences,
        )
