"""What kernels share that go over tiles of rows."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from .._base.sharding import as_varying_as
from .._base.typing import Array, Params, PyTree
from .operands import Backward
from .step import in_float32


@dataclasses.dataclass(frozen=True)
class Tiles:
    """How rows are cut into tiles; the first axis of the grid goes over them.

    Attributes:
        time: The number of steps.
        batch: The number of rows.
        rows: The rows of a tile.
    """

    time: int
    batch: int
    rows: int

    @property
    def tiles(self) -> int:
        """The number of tiles of rows."""
        return pl.cdiv(self.batch, self.rows)

    def by_rows(self, x: Any) -> pl.BlockSpec:
        """Tiles of what has rows alone, `[batch, size]`."""
        return pl.BlockSpec((self.rows, x.shape[-1]), lambda b, *_: (b, 0))

    def by_tile(self, x: Any) -> pl.BlockSpec:
        """What each tile has for itself, `[tiles, 1, size]`."""
        return pl.BlockSpec((1, *x.shape[1:]), lambda b, *_: (b, 0, 0))

    def column(self, lengths: Array) -> Array:
        """`[rows of all tiles, 1]`: rows that fill the last tile are never alive."""
        missing = self.tiles * self.rows - self.batch
        return jnp.pad(lengths, (0, missing))[:, None]

    def over_time(self, types: PyTree) -> PyTree:
        """The types of one step, of all steps."""
        longer = lambda x: jax.ShapeDtypeStruct((self.time, *x.shape), x.dtype)
        return jax.tree.map(longer, types)

    def one_each(self, small: Params) -> Params:
        """The types of what each tile has for itself, in place of such parameters."""
        room = lambda x: jax.ShapeDtypeStruct((self.tiles, 1, *x.shape), jnp.float32)
        return jax.tree.map(room, small)


def call(
    kernel: Callable,
    args: tuple,
    in_specs: tuple,
    outs: tuple,
    out_specs: tuple,
    **how: Any,
) -> Any:
    """A kernel on arguments, with a spec for each of them and for each result.

    Args:
        kernel: What `pallas_call` calls.
        args: Trees of arrays.
        in_specs: For each of them what makes the spec of a leaf.
        outs: Trees of the types of what is made.
        out_specs: For each of them what makes the spec of a leaf.
        **how: What else `pallas_call` takes.
    """
    each = lambda specs, trees: tuple(map(jax.tree.map, specs, trees))
    args = as_varying_as(args, args)
    zeros = lambda x: jnp.zeros(x.shape, x.dtype)
    make = lambda args: as_varying_as(args, jax.tree.map(zeros, outs))
    made = pl.pallas_call(
        kernel,
        out_shape=jax.eval_shape(make, args),
        in_specs=each(in_specs, args),
        out_specs=each(out_specs, outs),
        **how,
    )
    with jax.enable_x64(False):  # Mosaic knows no integers of 64 bits.
        return made(*args)


def as_rows(small: PyTree) -> PyTree:
    """Vectors as matrices of one row: kernels are handed no less."""
    return jax.tree.map(lambda x: x[None, :], small)


def read_small(small: PyTree) -> PyTree:
    """The vectors again, in float32."""
    return in_float32(jax.tree.map(lambda r: r[0], small))


def c_zs_types(given: Backward) -> list[jax.ShapeDtypeStruct]:
    """The cotangents of the products, in the dtype of the matrices."""
    zs, dtype = given.kept[0], jax.tree.leaves(given.turned)[0].dtype
    return [jax.ShapeDtypeStruct(z.shape, dtype) for z in zs]


def total(c_small: Params, small: Params) -> Params:
    """The sum of what each tile made, in the dtypes of the parameters."""
    return jax.tree.map(lambda c, x: jnp.sum(c, (0, 1)).astype(x.dtype), c_small, small)
