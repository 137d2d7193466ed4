"""The sizes of another library's cell."""

from collections.abc import Callable
from typing import Any

import jax

from .._base.arguments import as_count
from .._base.errors import noting
from .._base.tensor_shape import TensorShape
from .._base.typing import PyTree, Size


def sizes_of_cell(
    step: Callable[[tuple[int, ...]], tuple[PyTree, PyTree]], in_features: Any
) -> tuple[Size, Size]:
    """`(state_size, output_size)` of a cell, from an abstract step of one row.

    Args:
        step: `step(shape) -> (carry, output)` for inputs of the shape `[1, ...]`.
        in_features: The size of the inputs or their shape, without the batch axis.

    Raises:
        TypeError: If `in_features` is neither an int nor a tuple of ints.
        ValueError: If one of them is below 1.
    """
    fix = "It is the size of the inputs or their shape, without the batch axis."
    sizes = in_features if isinstance(in_features, tuple) else (in_features,)
    shape = (1, *(as_count("as_cell", "in_features", n, fix=fix) for n in sizes))
    with noting(f"as_cell: in a step of inputs {list(shape)}, as `in_features` says."):
        state, output = jax.eval_shape(lambda: step(shape))
    size = lambda x: TensorShape(x.shape[1:])
    return jax.tree.map(size, state), jax.tree.map(size, output)
