"""Products with a matrix of which only a part stays in a TPU's VMEM.

The rest comes in chunks of columns, or of rows of its transpose: one is brought while
the one before it is multiplied.
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
from .vmem import Cut, Plan


class Parts(NamedTuple):
    """A matrix, or its transpose, in two parts.

    Attributes:
        stay: What stays, `[rows, kept]`, or `[kept, rows]`; None for nothing.
        moving: What is brought, `[chunks, rows, width]`, or `[chunks, width, rows]`.
    """

    stay: Any
    moving: Any

    @classmethod
    def of(cls, cut: Cut, matrix: Array) -> "Parts":
        """Those of a matrix `[rows, columns]`."""
        rest = jnp.pad(matrix[:, cut.kept :], ((0, 0), (0, cut.missing)))
        chunks = rest.reshape(cut.rows, cut.moving, cut.width).swapaxes(0, 1)
        return cls(matrix[:, : cut.kept] if cut.kept else None, chunks)

    @property
    def turned(self) -> "Parts":
        """Those of its transpose."""
        stay = None if self.stay is None else self.stay.T
        return Parts(stay, self.moving.swapaxes(1, 2))


class Room(NamedTuple):
    """What the products are made in.

    Attributes:
        chunks: Two of them: the one that is multiplied, and the next.
        pieces: `[chunks, rows of a tile, width]`, float32, of the product or of what
            is multiplied.
        arrived: Whether a chunk is there, for each of the two.
    """

    chunks: Any
    pieces: Any
    arrived: Any

    @classmethod
    def of(cls, cut: Cut, rows: int, parts: Parts) -> "Room":
        """For so many rows of a tile."""
        count, *chunk = parts.moving.shape
        return cls(
            pltpu.VMEM((2, *chunk), parts.moving.dtype),
            pltpu.VMEM((count, rows, cut.width), jnp.float32),
            pltpu.SemaphoreType.DMA((2,)),
        )


def parts(plan: Plan, weights: list[Any]) -> list[Any]:
    """Matrices `[rows, columns]`, those that do not stay in VMEM as `Parts`."""
    pairs = zip(plan.cuts, weights, strict=True)
    return [Parts.of(cut, w) if cut and cut.moving else w for cut, w in pairs]


def turned_parts(plan: Plan, turned: list[Any]) -> list[Any]:
    """The same of the transposes, `[columns, rows]`."""
    made = parts(plan, [None if w is None else w.T for w in turned])
    pairs = zip(made, turned, strict=True)
    return [m.turned if isinstance(m, Parts) else w for m, w in pairs]


def rooms(plan: Plan, matrices: list[Any]) -> list[Any]:
    """What the products with `Parts` are made in; None for other matrices."""
    pairs = zip(plan.cuts, matrices, strict=True)
    return [
        Room.of(cut, plan.rows, m) if cut and isinstance(m, Parts) else None
        for cut, m in pairs
    ]


def read(plan: Plan, refs: list[Any], rooms: list[Any]) -> list[Any]:
    """Within a kernel: matrices, or `Chunked` ones, to multiply with."""

    def one(cut: Cut | None, ref: Any, room: Any) -> Any:
        if cut is None:
            return None
        return ref[...] if room is None else Chunked(cut, ref, room)

    return [one(*each) for each in zip(plan.cuts, refs, rooms, strict=True)]


def times(operand: Array, matrix: Any) -> Array:
    """`operand @ matrix`, in parts or not, float32."""
    return (
        matrix.times(operand) if isinstance(matrix, Chunked) else dot(operand, matrix)
    )


def turned_times(operand: Array, matrix: Any) -> Array:
    """`operand @ transpose`, in parts or not, float32."""
    if isinstance(matrix, Chunked):
        return matrix.turned_times(operand)
    return dot(operand, matrix)


@dataclasses.dataclass(frozen=True)
class Chunked:
    """A matrix in parts, within a kernel."""

    cut: Cut
    parts: Parts
    room: Room

    def times(self, operand: Array) -> Array:
        """`operand @ matrix`, `[rows of a tile, columns]`, float32."""
        pieces, stay = self.room.pieces, self.parts.stay

        def put(i: Array, chunk: Array, done: None) -> None:
            del done
            pieces[i] = dot(operand, chunk)

        self._each(put, None)
        made = [] if stay is None else [dot(operand, stay[...])]
        made += [pieces[i] for i in range(self.cut.moving)]
        return jnp.concatenate(made, -1)[:, : self.cut.columns]

    def turned_times(self, operand: Array) -> Array:
        """`operand @ transpose`, `[rows of a tile, rows]`, float32."""
        cut, pieces, stay = self.cut, self.room.pieces, self.parts.stay
        rest = jnp.pad(operand[:, cut.kept :], ((0, 0), (0, cut.missing)))
        for i in range(cut.moving):
            pieces[i] = rest[:, i * cut.width : (i + 1) * cut.width]
        if stay is None:
            begun = jnp.zeros((operand.shape[0], cut.rows), jnp.float32)
        else:
            begun = dot(operand[:, : cut.kept], stay[...])
        add = lambda i, chunk, total: total + dot(pieces[i], chunk)
        return self._each(add, begun)

    def _each(self, use: Callable, carry: Any) -> Any:
        """What is carried by `use(i, chunk, carry)` over the chunks that move."""
        count, (chunks, _, arrived) = self.cut.moving, self.room

        def bring(i: Any) -> Any:
            place = jax.lax.rem(i, 2)
            return pltpu.make_async_copy(
                self.parts.moving.at[i], chunks.at[place], arrived.at[place]
            )

        def turn(i: Array, carry: Any) -> Any:
            pl.when(i + 1 < count)(lambda: bring(i + 1).start())
            bring(i).wait()
            return use(i, chunks[jax.lax.rem(i, 2)], carry)

        bring(jnp.int32(0)).start()
        return jax.lax.fori_loop(jnp.int32(0), jnp.int32(count), turn, carry)
