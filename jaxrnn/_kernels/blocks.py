"""How kernels cut arrays into tiles of rows and blocks of steps, and are called."""

import dataclasses
from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from .._base.sharding import as_varying_as
from .._base.typing import Array, Params, PyTree
from .step import in_float32


@final
@dataclasses.dataclass(frozen=True)
class Tiles:
    """The grid of a kernel.

    Attributes:
        time: The number of steps.
        batch: The number of rows.
        rows: The rows of a tile.
        block: The steps of a block.
        reverse: Whether the last block comes first.
    """

    time: int
    batch: int
    rows: int
    block: int
    reverse: bool = False

    @property
    def grid(self) -> tuple[int, int]:
        """The numbers of tiles of rows and of blocks of steps."""
        return pl.cdiv(self.batch, self.rows), pl.cdiv(self.time, self.block)

    def by_rows(self, x: Any) -> pl.BlockSpec:
        """Tiles of `[batch, size]`."""
        return pl.BlockSpec((self.rows, x.shape[-1]), lambda b, t: (b, 0))

    def by_tile(self, x: Any) -> pl.BlockSpec:
        """One entry a tile, of `[tiles, 1, size]`."""
        return pl.BlockSpec((1, *x.shape[1:]), lambda b, t: (b, 0, 0))

    def by_steps(self, x: Any) -> pl.BlockSpec:
        """Blocks of `[time, batch, size]`."""
        last = self.grid[1] - 1
        nth = (lambda t: last - t) if self.reverse else (lambda t: t)
        block = self.block, self.rows, x.shape[-1]
        return pl.BlockSpec(block, lambda b, t: (nth(t), b, 0))

    def specs(self, kernel_inputs: Any, matrix: Callable, whole: Callable) -> tuple:
        """The function that makes a leaf's spec, for each of a kernel's inputs.

        Args:
            kernel_inputs: `ForwardInputs` or `BackwardInputs`.
            matrix: The function for a matrix.
            whole: The function for another array that all tiles read.
        """
        makers = {"matrices": matrix, "biases": whole, "elementwise": whole}
        makers |= dict.fromkeys(("lengths", "state", "c_state"), self.by_rows)
        return tuple(makers.get(name, self.by_steps) for name in kernel_inputs._fields)

    def column(self, lengths: Array) -> Array:
        """`[rows of all tiles, 1]`; the rows that pad the last tile have length 0."""
        missing = self.grid[0] * self.rows - self.batch
        return jnp.pad(lengths, (0, missing))[:, None]

    def over_time(self, types: PyTree) -> PyTree:
        """The types of arrays of all steps, from those of one step."""
        longer = lambda x: jax.ShapeDtypeStruct((self.time, *x.shape), x.dtype)
        return jax.tree.map(longer, types)

    def per_tile(self, params: Params) -> Params:
        """Types `[tiles, 1, size]`, float32, for each vector of parameters."""
        tiles = self.grid[0]
        wide = lambda x: jax.ShapeDtypeStruct((tiles, 1, *x.shape), jnp.float32)
        return jax.tree.map(wide, params)


def call(
    kernel: Callable, args: tuple, in_specs: tuple, outs: list[tuple], **options: Any
) -> Any:
    """The results of a kernel.

    Args:
        kernel: The function that `pallas_call` takes.
        args: The kernel's arguments, trees of arrays.
        in_specs: For each argument the function that makes a leaf's spec.
        outs: For each result the tree of its types, and the function that makes a
            leaf's spec.
        **options: Further arguments of `pallas_call`.
    """
    args = as_varying_as(args, args)
    types, out_specs = zip(*outs, strict=True)
    zeros = lambda x: jnp.zeros(x.shape, x.dtype)
    make = lambda args: as_varying_as(args, jax.tree.map(zeros, types))
    run = pl.pallas_call(
        kernel,
        out_shape=jax.eval_shape(make, args),
        in_specs=tuple(map(jax.tree.map, in_specs, args)),
        out_specs=tuple(map(jax.tree.map, out_specs, types)),
        **options,
    )
    with jax.enable_x64(False):  # Mosaic has no integers of 64 bits.
        return run(*args)


def as_rows(vectors: PyTree) -> PyTree:
    """Vectors as matrices of one row, since kernels take no arrays of lower rank."""
    return jax.tree.map(lambda x: x[None, :], vectors)


def read_rows(refs: PyTree) -> PyTree:
    """The vectors that `as_rows` made matrices of, in float32."""
    return in_float32(jax.tree.map(lambda r: r[0], refs))
