"""Kernels that contrib divides by rows into several variables, `W_0`, `W_1`, ..."""

import jax.numpy as jnp

from .._base.typing import Array, Initializer, Params
from .._cells.initializers import ParamSpec


def shard_specs(
    name: str, rows: int, columns: int, shards: int, initializer: Initializer
) -> dict[str, ParamSpec]:
    """`{"W_0": ..., "W_1": ...}` for a kernel `W` of this shape.

    Raises:
        ValueError: If there are fewer rows than shards.
    """
    if shards > rows:
        raise ValueError(
            f"`num_unit_shards` must be at most the {rows} rows of `{name}`, got "
            f"{shards}."
        )
    least, longer = divmod(rows, shards)
    sizes = [least + (i < longer) for i in range(shards)]
    return {
        f"{name}_{i}": ParamSpec((size, columns), initializer)
        for i, size in enumerate(sizes)
    }


def joined_shards(params: Params, name: str, shards: int) -> Array:
    """The kernel, all shards together."""
    return jnp.concatenate([params[f"{name}_{i}"] for i in range(shards)])
