"""How arrays are cut into blocks of rows and steps for a TPU."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .._base.typing import Array, PyTree
from .blocks import Tiles


@dataclasses.dataclass(frozen=True)
class Tiling(Tiles):
    """How arrays are cut into blocks.

    Attributes:
        block: The steps of a block.
        memory: The bytes of VMEM that there are.
        reverse: Whether the last block comes first.
    """

    block: int
    memory: int
    reverse: bool = False

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles of rows, blocks of steps."""
        return self.tiles, pl.cdiv(self.time, self.block)

    def by_steps(self, x: Any) -> pl.BlockSpec:
        """Blocks of sequences, `[time, batch, size]`."""
        last = self.grid[1] - 1
        place = (lambda t: last - t) if self.reverse else (lambda t: t)
        block = self.block, self.rows, x.shape[-1]
        return pl.BlockSpec(block, lambda b, t: (place(t), b, 0))

    def scalars(self, x: Any) -> pl.BlockSpec:
        """All of an array of numbers that are asked for one by one."""
        del x
        return pl.BlockSpec(memory_space=pltpu.SMEM)

    def longest(self, column: Array) -> Array:
        """`[tiles, 1, 1]`, the longest row of each; `vmap` may put an axis before."""
        return column.reshape(self.tiles, self.rows).max(1)[:, None, None]

    def whole(self, x: Any) -> pl.BlockSpec:
        """All of an array, brought once."""
        zeros = (0,) * x.ndim
        return pl.BlockSpec(x.shape, lambda b, t: zeros, pipeline_mode=pl.Buffered(1))

    def matrix(self, x: Any) -> pl.BlockSpec:
        """All of a matrix; the chunks of one that moves stay where they are."""
        return pl.BlockSpec(memory_space=pl.ANY) if x.ndim == 3 else self.whole(x)

    def carries(self, state: PyTree) -> PyTree:
        """Room for a tile's state, in float32."""
        room = lambda x: pltpu.VMEM((self.rows, x.shape[-1]), jnp.float32)
        return jax.tree.map(room, state)

    def at_first(self, fn: Callable[[], None]) -> None:
        """Calls it in the first block of each tile."""
        pl.when(pl.program_id(1) == 0)(fn)

    def at_last(self, fn: Callable[[], None]) -> None:
        """Calls it in the last block of each tile."""
        pl.when(pl.program_id(1) == self.grid[1] - 1)(fn)

    def each_step(
        self,
        longest: Any,
        step: Callable[[Array, Array], None],
        clear: Callable[[], None],
    ) -> None:
        """Calls `step(i, t)` for the steps of a block in turn; i is t's place in it.

        Where all rows of the tile have ended it calls `clear()` in place of them.
        """
        turn = pl.program_id(1)
        begin = (self.grid[1] - 1 - turn if self.reverse else turn) * self.block

        def body(i: Array, _: None) -> None:
            i = self.block - 1 - i if self.reverse else i
            step(i, begin + i)

        runs = begin < longest[pl.program_id(0), 0, 0]
        pl.when(runs)(lambda: jax.lax.fori_loop(0, self.block, body, None))
        pl.when(jnp.logical_not(runs))(clear)
