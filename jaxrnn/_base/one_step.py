"""The shapes and dtypes of one step's results, derived from parameters and inputs."""

from typing import Any

import jax

from .trees import map_sizes
from .typing import DType, Params, PyTree


def rows_and_dtype(params: Params, inputs: PyTree, dtype: Any = None) -> tuple:
    """The number of rows, and the dtype of the parameters or a default dtype."""
    first = jax.tree.leaves(inputs)[0]
    dtypes = (leaf.dtype for leaf in jax.tree.leaves(params))
    return first.shape[0], next(dtypes, dtype or first.dtype)


def output_of(cell: Any, params: Params, inputs: PyTree, dtype: DType) -> PyTree:
    """The shapes of the cell's output for `inputs`, in the parameters' dtype."""
    rows, dtype = rows_and_dtype(params, inputs, dtype)

    def of_size(size: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *size), dtype)

    return map_sizes(of_size, cell.output_size)
