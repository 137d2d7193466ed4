"""Products with a matrix that does not fit in a TPU's VMEM.

Its first columns stay there. The rest is streamed at every step, in chunks of columns
(of rows, for the transpose): one chunk is copied while the one before it is multiplied.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .._base.typing import Array
from .step import dot


@dataclasses.dataclass(frozen=True)
class Cut:
    """How much of a matrix stays in VMEM, and in what chunks the rest is streamed.

    Attributes:
        rows: The rows of the matrix.
        columns: Its columns.
        width: The columns of a chunk.
        resident: The number of chunks that stay, from the first column on.
    """

    rows: int
    columns: int
    width: int
    resident: int

    @property
    def streamed(self) -> int:
        """The number of chunks that are streamed; the last may be padded with zeros."""
        return -(-self.columns // self.width) - self.resident

    @property
    def missing(self) -> int:
        """The columns that pad the last chunk."""
        return (self.resident + self.streamed) * self.width - self.columns

    @property
    def resident_columns(self) -> int:
        """The number of columns that stay."""
        return min(self.columns, self.resident * self.width)

    def split(self, matrix: Array) -> "SplitMatrix":
        """A matrix `[rows, columns]` in two parts."""
        kept = self.resident_columns
        rest = jnp.pad(matrix[:, kept:], ((0, 0), (0, self.missing)))
        chunks = rest.reshape(self.rows, self.streamed, self.width).swapaxes(0, 1)
        return SplitMatrix(matrix[:, :kept] if kept else None, chunks)


class SplitMatrix(NamedTuple):
    """A matrix, or its transpose, in two parts.

    Attributes:
        resident: `[rows, columns that stay]`, or its transpose; None for nothing.
        streamed: `[chunks, rows, width]`, or `[chunks, width, rows]`.
    """

    resident: Any
    streamed: Any

    @property
    def transposed(self) -> "SplitMatrix":
        """The parts of the transpose."""
        resident = None if self.resident is None else self.resident.T
        return SplitMatrix(resident, self.streamed.swapaxes(1, 2))


class Buffers(NamedTuple):
    """What the products with a split matrix are computed in.

    Attributes:
        chunks: Two chunks: the one that is multiplied, and the next.
        pieces: `[chunks, rows of a tile, width]`, float32: the columns of the product,
            or those of the operand, that belong to each chunk.
        arrived: Semaphores, one for each of the two, signalled when its copy has ended.
    """

    chunks: Any
    pieces: Any
    arrived: Any


def split(
    cuts: tuple[Cut | None, ...], matrices: list[Any], are_transposed: bool
) -> list[Any]:
    """Matrices or their transposes, as `SplitMatrix` where they do not stay whole."""

    def one(cut: Cut | None, matrix: Any) -> Any:
        if cut is None or not cut.streamed:
            return matrix
        return cut.split(matrix.T).transposed if are_transposed else cut.split(matrix)

    return [one(*pair) for pair in zip(cuts, matrices, strict=True)]


def buffers_for(
    cuts: tuple[Cut | None, ...], matrices: list[Any], rows: int
) -> list[Buffers | None]:
    """Buffers for the products of `rows` rows; None for matrices that stay whole."""

    def one(cut: Cut | None, matrix: Any) -> Buffers | None:
        if cut is None or not cut.streamed:
            return None
        count, *chunk = matrix.streamed.shape
        return Buffers(
            pltpu.VMEM((2, *chunk), matrix.streamed.dtype),
            pltpu.VMEM((count, rows, cut.width), jnp.float32),
            pltpu.SemaphoreType.DMA((2,)),
        )

    return [one(*pair) for pair in zip(cuts, matrices, strict=True)]


def read(cuts: tuple[Cut | None, ...], refs: list[Any], buffers: list[Any]) -> list:
    """Within a kernel: the matrices to multiply with, `Chunked` if they are split."""

    def one(cut: Cut | None, ref: Any, buffer: Any) -> Any:
        if cut is None:
            return None
        return ref[...] if buffer is None else Chunked(cut, ref, buffer)

    return [one(*each) for each in zip(cuts, refs, buffers, strict=True)]


def matmul(operand: Array, matrix: Any) -> Array:
    """`operand @ matrix`, float32, of an array or a `Chunked` matrix."""
    if isinstance(matrix, Chunked):
        return matrix.matmul(operand)
    return dot(operand, matrix)


def matmul_transposed(operand: Array, matrix: Any) -> Array:
    """`operand @ transpose`, float32, of an array or a `Chunked` transpose."""
    if isinstance(matrix, Chunked):
        return matrix.matmul_transposed(operand)
    return dot(operand, matrix)


@dataclasses.dataclass(frozen=True)
class Chunked:
    """A split matrix within a kernel.

    Attributes:
        cut: How the matrix is split.
        matrix: The refs of its parts.
        buffers: The refs of its buffers.
    """

    cut: Cut
    matrix: SplitMatrix
    buffers: Buffers

    def matmul(self, operand: Array) -> Array:
        """`operand @ matrix`, `[rows of a tile, columns]`, float32."""
        pieces, resident = self.buffers.pieces, self.matrix.resident

        def put(i: Array, chunk: Array, carry: None) -> None:
            del carry
            pieces[i] = dot(operand, chunk)

        self._each(put, None)
        columns = [] if resident is None else [dot(operand, resident[...])]
        columns += [pieces[i] for i in range(self.cut.streamed)]
        return jnp.concatenate(columns, -1)[:, : self.cut.columns]

    def matmul_transposed(self, operand: Array) -> Array:
        """`operand @ transpose`, `[rows of a tile, rows]`, float32."""
        cut, pieces, resident = self.cut, self.buffers.pieces, self.matrix.resident
        kept = cut.resident_columns
        rest = jnp.pad(operand[:, kept:], ((0, 0), (0, cut.missing)))
        for i in range(cut.streamed):
            pieces[i] = rest[:, i * cut.width : (i + 1) * cut.width]
        if resident is None:
            start = jnp.zeros((operand.shape[0], cut.rows), jnp.float32)
        else:
            start = dot(operand[:, :kept], resident[...])
        add = lambda i, chunk, total: total + dot(pieces[i], chunk)
        return self._each(add, start)

    def _each(self, use: Callable, carry: Any) -> Any:
        """Carries `carry = use(i, chunk, carry)` over the streamed chunks."""
        count, (chunks, _, arrived) = self.cut.streamed, self.buffers

        def copy(i: Any) -> Any:
            slot = jax.lax.rem(i, 2)
            return pltpu.make_async_copy(
                self.matrix.streamed.at[i], chunks.at[slot], arrived.at[slot]
            )

        def body(i: Array, carry: Any) -> Any:
            pl.when(i + 1 < count)(lambda: copy(i + 1).start())
            copy(i).wait()
            return use(i, chunks[jax.lax.rem(i, 2)], carry)

        copy(jnp.int32(0)).start()
        return jax.lax.fori_loop(jnp.int32(0), jnp.int32(count), body, carry)
