"""What diagonal recurrences share: factors drawn from a ring, inputs of their size."""

from typing import Any

import jax
import jax.numpy as jnp

from .._base.math import at_least_float32
from .._base.typing import Array, DType, Key
from .hyperparameters import check_number, set_field


def set_radii(cell: Any) -> None:
    """Checks and normalizes `min_radius` and `max_radius`.

    Raises:
        TypeError: If one is not a number.
        ValueError: Unless `0 <= min_radius <= max_radius <= 1`.
    """
    where = type(cell).__name__
    low, high = (
        check_number(where, name, getattr(cell, name), 0, 1)
        for name in ("min_radius", "max_radius")
    )
    if low > high:
        raise ValueError(
            f"{where}: `min_radius` must be at most `max_radius`, {high}, got {low}."
        )
    set_field(cell, min_radius=low, max_radius=high)


def draw_decays(cell: Any, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    """`-log |a|`, for factors `a` uniform in the area of the cell's ring.

    They are in at least float32, and from 1e-7 to 80: in float32 no factor is 0, where
    its logarithm has no gradient, or 1.
    """
    dtype = at_least_float32(dtype)
    low, high = cell.min_radius**2, cell.max_radius**2
    squares = jax.random.uniform(key, shape, dtype, low, high)
    return jnp.clip(-0.5 * jnp.log(squares), 1e-7, 80.0)


def check_same_depth(cell: Any, depth: int) -> None:
    """Raises ValueError unless inputs are as large as outputs."""
    if depth != cell.num_units:
        raise ValueError(
            f"{type(cell).__name__}: `inputs` must have depth `num_units`, "
            f"{cell.num_units}, got {depth}. Project them to that size before, by a "
            "layer or by `jaxrnn.contrib.InputProjectionWrapper`; of a "
            "`PastInputsWrapper` the depth is width * depth."
        )
