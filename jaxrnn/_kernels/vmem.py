"""How a loop is cut to fit the VMEM of a TPU."""

import dataclasses
from collections.abc import Iterable, Iterator

import jax.numpy as jnp

from .._base.typing import DType
from .chunks import Cut
from .machines import MIB
from .work import Work

# A float32 tile of VMEM has 8 sublanes.
FEWEST_ROWS = 8
# The bytes of a chunk, about: enough for the full bandwidth of HBM, and little compared
# with what stays in VMEM.
CHUNK = MIB
_F32 = jnp.dtype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How a loop is cut.

    Attributes:
        rows: The rows of a tile.
        block: The steps of a block.
        cuts: How much of each stage's matrix stays; None for a stage without one.
    """

    rows: int
    block: int
    cuts: tuple[Cut | None, ...]

    def bytes(self, work: Work) -> int:
        """The bytes of VMEM of the larger of the two kernels, forward and backward."""
        tile = lambda sizes, dtype: sum(_bytes(self.rows, n, dtype) for n in sizes)
        states = sum(tile([n], dtype) for n, dtype in work.state)
        outputs = sum(tile([n], dtype) for n, dtype in work.outputs)
        columns = [columns for _, columns in work.matrices]
        residuals = tile(columns, work.product_dtype) + states
        forward = tile(filter(None, work.input_columns), _F32) + outputs + residuals
        backward = residuals + outputs + tile(columns, work.dtype)
        matrices = sum(self._matrix_bytes(cut, work.dtype) for cut in self._matrices)
        pairs = zip(work.matrices, work.input_columns, strict=True)
        biases = [columns for (_, columns), inputs in pairs if not inputs]
        # Elementwise parameters are read once, and their cotangents double-buffered.
        vectors = sum(_bytes(1, n, _F32) for n in (*biases, *work.elementwise * 3))
        carried = tile([n for n, _ in work.state], _F32)
        # Each block has two buffers, to be copied while another is computed.
        blocks = self.block * max(forward, backward) + 2 * states + tile([1], _F32)
        return matrices + vectors + 2 * blocks + carried + self.spilled_bytes(work)

    def spilled_bytes(self, work: Work) -> int:
        """The part of `bytes` that holds a step's intermediate values.

        With streamed chunks the compiler has been observed to spill up to 10.4 times
        the products (an LSTM with peepholes, clip and projection, 4096 units, on v5e).
        """
        products = sum(_bytes(self.rows, n, _F32) for _, n in work.matrices)
        return (12 if self.streamed_bytes(work) else 4) * products

    def streamed_bytes(self, work: Work) -> int:
        """The bytes of the matrices that a tile reads again at every step."""
        return work.dtype.itemsize * sum(
            cut.rows * (cut.columns - cut.resident_columns) for cut in self._matrices
        )

    @property
    def _matrices(self) -> Iterable[Cut]:
        return filter(None, self.cuts)

    def _matrix_bytes(self, cut: Cut, dtype: DType) -> int:
        """The bytes of the resident part, and of `Buffers` for the streamed part."""
        either = lambda n: max(_bytes(cut.rows, n, dtype), _bytes(n, cut.rows, dtype))
        resident = either(cut.resident_columns) if cut.resident else 0
        if not cut.streamed:
            return resident
        pieces = cut.streamed * _bytes(self.rows, cut.width, _F32)
        return resident + 2 * either(cut.width) + pieces


def find_tiling(work: Work, rows: int, block: int, memory: int) -> Tiling | None:
    """The best tiling that fits; None if none fits.

    All matrices stay if they can, with as many rows, and then steps, as fit. Otherwise
    the tiling that streams the fewest bytes is the best.

    Args:
        work: The cell and the sizes.
        rows: The maximum number of rows of a tile.
        block: The maximum number of steps of a block.
        memory: The bytes of VMEM.
    """
    whole = tuple(_cuts(work, None))
    for tile in _tiles(min(rows, work.batch)):
        steps = min(block, work.time)
        while steps:
            tiling = Tiling(tile, steps, whole)
            if tiling.bytes(work) <= memory:
                return tiling
            steps //= 2
    tilings = [_fullest(work, tile, memory) for tile in _tiles(min(rows, work.batch))]
    streamed = lambda tiling: (
        -(-work.batch // tiling.rows) * tiling.streamed_bytes(work)
    )
    return min(filter(None, tilings), key=streamed, default=None)


def smallest(work: Work) -> Tiling:
    """The tiling that takes the least VMEM."""
    return Tiling(FEWEST_ROWS, 1, tuple(_cuts(work, 0)))


def _fullest(work: Work, rows: int, memory: int) -> Tiling | None:
    """The tiling with the most resident chunks that fits; None if none fits."""
    all_chunks = sum(cut.resident for cut in _cuts(work, None) if cut)
    counts = range(all_chunks, -1, -1)
    tilings = (Tiling(rows, 1, tuple(_cuts(work, count))) for count in counts)
    return next((tiling for tiling in tilings if tiling.bytes(work) <= memory), None)


def _cuts(work: Work, resident: int | None) -> Iterator[Cut | None]:
    """Cuts with `resident` chunks in all, those of the first matrices; None for all."""
    for rows, columns in work.matrices:
        if not rows:
            yield None
            continue
        # In whole tiles of 128 columns, since chunks are put side by side.
        width = max(128, CHUNK // (rows * work.dtype.itemsize) // 128 * 128)
        chunks = -(-columns // width)
        stay = chunks if resident is None else min(resident, chunks)
        resident = None if resident is None else resident - stay
        yield Cut(rows, columns, width, stay)


def _tiles(rows: int) -> Iterator[int]:
    """Rows of a tile, descending: `rows`, multiples of 16, `FEWEST_ROWS`."""
    while True:
        yield rows
        if rows <= FEWEST_ROWS:
            return
        rows = max(FEWEST_ROWS, rows // 2 // 16 * 16)


def _bytes(rows: int, columns: int, dtype: DType) -> int:
    """The bytes of a matrix in VMEM, in tiles of 128 columns and 32 bytes of rows."""
    sublanes = 32 // dtype.itemsize
    return -(-rows // sublanes) * sublanes * -(-columns // 128) * 128 * dtype.itemsize
