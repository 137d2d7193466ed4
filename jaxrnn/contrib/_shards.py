"""Kernels that contrib divides by rows into several variables, `W_0`, `W_1`, ..."""

import jax.numpy as jnp

from .._base.typing import Array, Initializer, Params
from .._cells.initializers import ParamSpec


def shard_specs(
    where: str,
    name: str,
    rows: int,
    columns: int,
    shards: int,
    initializer: Initializer,
) -> dict[str, ParamSpec]:
    """`{"W_0": ..., "W_1": ...}` for a kernel `W` of this shape.

    Raises:
        ValueError: If there are fewer rows than shards.
    """
    if shards > rows:
        raise ValueError(
            f"{where}: `{name}` of {rows} rows must be stored in at most as many "
            f"shards, got {shards}. Use fewer."
        )
    least, longer = divmod(rows, shards)
    sizes = [least + (i < longer) for i in range(shards)]
    return {
        f"{name}_{i}": ParamSpec((size, columns), initializer)
        for i, size in enumerate(sizes)
    }


def joined(params: Params, name: str) -> Array:
    """The kernel `name`, from its shards."""
    shards = [key for key in params if key.rpartition("_")[0] == name]
    found = sorted((int(key.rpartition("_")[2]), key) for key in shards)
    return jnp.concatenate([params[key] for _, key in found])
