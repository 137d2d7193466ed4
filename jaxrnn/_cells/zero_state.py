"""The batch size and dtype of a zero state, checked or read from inputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_dtype
from .._base.errors import describe
from .._base.trees import named_leaves
from .._base.typing import DType, PyTree


def as_batch_size(batch_size: Any) -> Any:
    """The batch size as an int; a symbolic dimension of `jax.export` as it is.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is None or negative.
    """
    if isinstance(batch_size, jax.Array | np.ndarray | np.generic):
        if batch_size.ndim or not jnp.issubdtype(batch_size.dtype, jnp.integer):
            raise TypeError(
                "zero_state: `batch_size` must be an integer, got "
                f"{describe(batch_size)}. The number of rows of an array is "
                "`x.shape[0]`."
            )
        batch_size = int(batch_size)
    if batch_size is None:
        raise ValueError(
            "zero_state: `batch_size` must be known, got None. It is the number of "
            "rows of the inputs."
        )
    if isinstance(batch_size, bool | float | str | complex | tuple | list):
        raise TypeError(
            f"zero_state: `batch_size` must be an integer, got {describe(batch_size)}."
        )
    if isinstance(batch_size, int) and batch_size < 0:
        raise ValueError(
            f"zero_state: `batch_size` must not be negative, got {batch_size}."
        )
    return batch_size


def from_inputs(inputs: PyTree, batch_size: Any, dtype: DType) -> tuple[int, DType]:
    """The batch size and dtype of `inputs`.

    Raises:
        ValueError: If `inputs` have none, or the arguments differ from them.
    """
    name, leaf = next(named_leaves("inputs", inputs), ("inputs", None))
    if leaf is None or not getattr(leaf, "shape", ()):
        raise ValueError(
            "get_initial_state: `inputs` must be arrays [batch, ...], got "
            f"{describe(inputs)}."
        )
    if batch_size is not None and batch_size != leaf.shape[0]:
        raise ValueError(
            f"get_initial_state: `batch_size` must be that of `{name}`, "
            f"{leaf.shape[0]}, got {batch_size}. Leave it out."
        )
    if dtype is not None and as_dtype("get_initial_state", dtype) != leaf.dtype:
        raise ValueError(
            f"get_initial_state: `dtype` must be that of `{name}`, {leaf.dtype}, got "
            f"{dtype}. Leave it out."
        )
    return leaf.shape[0], leaf.dtype
