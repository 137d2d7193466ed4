"""How a loop is cut to fit the VMEM of a TPU."""

import dataclasses
from collections.abc import Iterable, Iterator

import jax.numpy as jnp

from .._base.typing import DType
from .machines import MIB
from .work import Work

# The least rows of a tile.
LEAST = 8
# About so many bytes of a matrix move at a time: enough for the memory to be at its
# fastest, and little beside what stays.
CHUNK = MIB


@dataclasses.dataclass(frozen=True)
class Cut:
    """How much of a matrix stays in VMEM; the rest is brought again at every step.

    Attributes:
        rows: The rows of the matrix.
        columns: Its columns.
        width: The columns of a chunk.
        stay: The number of chunks that stay, from the first column on.
    """

    rows: int
    columns: int
    width: int
    stay: int

    @property
    def moving(self) -> int:
        """The number of chunks that are brought; the last may be filled with zeros."""
        return -(-self.columns // self.width) - self.stay

    @property
    def missing(self) -> int:
        """The columns that fill up the last chunk."""
        return (self.stay + self.moving) * self.width - self.columns

    @property
    def kept(self) -> int:
        """The number of columns that stay."""
        return min(self.columns, self.stay * self.width)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a loop is cut.

    Attributes:
        rows: The rows of a tile.
        block: The steps of a block.
        cuts: How each stage's matrix is; None where there is none.
    """

    rows: int
    block: int
    cuts: tuple[Cut | None, ...]

    def bytes(self, work: Work) -> int:
        """The VMEM that the larger of both kernels takes."""
        room = lambda sizes, dtype: sum(_padded(self.rows, n, dtype) for n in sizes)
        states = sum(room([n], dtype) for n, dtype in work.state)
        outputs = sum(room([n], dtype) for n, dtype in work.outputs)
        columns = [columns for _, columns in work.matrices]
        kept = room(columns, work.product_dtype) + states
        f32 = jnp.dtype(jnp.float32)
        forward = room(filter(None, work.shares), f32) + outputs + kept
        backward = kept + outputs + room(columns, work.dtype)
        matrices = sum(self._of_matrix(cut, work.dtype) for cut in self._matrices)
        pairs = zip(work.matrices, work.shares, strict=True)
        biases = [columns for (_, columns), share in pairs if not share]
        # The cotangents of small parameters move, too.
        small = sum(_padded(1, n, f32) for n in (*biases, *work.small * 3))
        carried = room([n for n, _ in work.state], f32)
        # What moves is there twice.
        moving = 2 * (self.block * max(forward, backward) + 2 * states + room([1], f32))
        return matrices + small + moving + carried + self.spills(work)

    def spills(self, work: Work) -> int:
        """Of these, what a step computes with.

        With chunks the compiler has been seen to spill up to 10.4 times the products
        (an LSTM with peepholes, clip and projection, 4096 units, on v5e).
        """
        f32 = jnp.dtype(jnp.float32)
        products = sum(_padded(self.rows, n, f32) for _, n in work.matrices)
        return (12 if self.moved(work) else 4) * products

    def moved(self, work: Work) -> int:
        """The bytes of the matrices that are brought again at every step."""
        columns = sum(cut.rows * (cut.columns - cut.kept) for cut in self._matrices)
        return columns * work.dtype.itemsize

    @property
    def _matrices(self) -> Iterable[Cut]:
        return filter(None, self.cuts)

    def _of_matrix(self, cut: Cut, dtype: DType) -> int:
        """What stays of it, two chunks, and what is made of those that move."""
        either = lambda n: max(_padded(cut.rows, n, dtype), _padded(n, cut.rows, dtype))
        stays = either(cut.kept) if cut.kept else 0
        if not cut.moving:
            return stays
        pieces = cut.moving * _padded(self.rows, cut.width, jnp.dtype(jnp.float32))
        return stays + 2 * either(cut.width) + pieces


def plan(work: Work, rows: int, block: int, memory: int) -> Plan | None:
    """How a loop is cut to fit; None if nothing fits.

    All matrices stay if they can, for as many rows, and then steps, as fit. Otherwise
    as much of them as makes what is brought the least.

    Args:
        work: The cell and the sizes.
        rows: The most rows of a tile.
        block: The most steps of a block.
        memory: The bytes of VMEM.
    """
    whole = tuple(_cuts(work, None))
    for tile in _tiles(min(rows, work.batch)):
        steps = min(block, work.time)
        while steps:
            made = Plan(tile, steps, whole)
            if made.bytes(work) <= memory:
                return made
            steps //= 2
    cut = [_fullest(work, tile, memory) for tile in _tiles(min(rows, work.batch))]
    brought = lambda made: -(-work.batch // made.rows) * made.moved(work)
    return min(filter(None, cut), key=brought, default=None)


def least(work: Work) -> Plan:
    """What takes the least VMEM."""
    return Plan(LEAST, 1, tuple(_cuts(work, 0)))


def _fullest(work: Work, rows: int, memory: int) -> Plan | None:
    """That with the most chunks that stay."""
    most = sum(cut.stay for cut in _cuts(work, None) if cut)
    plans = (Plan(rows, 1, tuple(_cuts(work, stay))) for stay in range(most, -1, -1))
    return next((made for made in plans if made.bytes(work) <= memory), None)


def _cuts(work: Work, stay: int | None) -> Iterator[Cut | None]:
    """Cuts of which so many chunks in all stay, those of the first matrices first."""
    for rows, columns in work.matrices:
        if not rows:
            yield None
            continue
        # In whole tiles, since chunks are put side by side.
        width = max(128, CHUNK // (rows * work.dtype.itemsize) // 128 * 128)
        chunks = -(-columns // width)
        own = chunks if stay is None else min(stay, chunks)
        stay = None if stay is None else stay - own
        yield Cut(rows, columns, width, own)


def _tiles(rows: int) -> Iterator[int]:
    """Rows of a tile, the most first, in eights, or in sixteens if of 16 bits."""
    while True:
        yield rows
        if rows <= LEAST:
            return
        rows = max(LEAST, rows // 2 // 16 * 16)


def _padded(rows: int, columns: int, dtype: DType) -> int:
    """The bytes of a matrix in VMEM, in tiles of 128 columns and 32 bytes of rows."""
    sublanes = 32 // dtype.itemsize
    return -(-rows // sublanes) * sublanes * -(-columns // 128) * 128 * dtype.itemsize
