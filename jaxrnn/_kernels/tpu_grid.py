"""The grid of a TPU kernel from within: where arrays are, and which steps it runs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .._base.typing import Array, PyTree
from .blocks import Tiles


def scalars(x: Any) -> pl.BlockSpec:
    """All of an array whose numbers are read one by one."""
    del x
    return pl.BlockSpec(memory_space=pltpu.SMEM)


def whole(x: Any) -> pl.BlockSpec:
    """All of an array, copied to VMEM once."""
    zeros = (0,) * x.ndim
    return pl.BlockSpec(x.shape, lambda b, t: zeros, pipeline_mode=pl.Buffered(1))


def matrix(x: Any) -> pl.BlockSpec:
    """All of a matrix; streamed chunks, of rank 3, stay in HBM."""
    return pl.BlockSpec(memory_space=pl.ANY) if x.ndim == 3 else whole(x)


def carries(tiles: Tiles, state: PyTree) -> PyTree:
    """Buffers for the state of a tile, in float32."""
    buffer = lambda x: pltpu.VMEM((tiles.rows, x.shape[-1]), jnp.float32)
    return jax.tree.map(buffer, state)


def longest(tiles: Tiles, column: Array) -> Array:
    """`[tiles, 1, 1]`, the longest row of each; `vmap` may put an axis before."""
    return column.reshape(tiles.grid[0], tiles.rows).max(1)[:, None, None]


def at_first(fn: Callable[[], None]) -> None:
    """Calls it in the first block of each tile."""
    pl.when(pl.program_id(1) == 0)(fn)


def at_last(tiles: Tiles, fn: Callable[[], None]) -> None:
    """Calls it in the last block of each tile."""
    pl.when(pl.program_id(1) == tiles.grid[1] - 1)(fn)


def each_step(
    tiles: Tiles,
    longest: Any,
    step: Callable[[Array, Array], None],
    clear: Callable[[], None],
) -> None:
    """Calls `step(i, t)` for step t of the sequence, number i of this block, in turn.

    Blocks in which all rows of the tile have ended call `clear()` instead.
    """
    turn = pl.program_id(1)
    start = (tiles.grid[1] - 1 - turn if tiles.reverse else turn) * tiles.block

    def body(i: Array, _: None) -> None:
        i = tiles.block - 1 - i if tiles.reverse else i
        step(i, start + i)

    runs = start < longest[pl.program_id(0), 0, 0]
    pl.when(runs)(lambda: jax.lax.fori_loop(0, tiles.block, body, None))
    pl.when(jnp.logical_not(runs))(clear)
