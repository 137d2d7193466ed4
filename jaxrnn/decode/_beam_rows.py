"""Rows of beams: the state of a cell has a row for each beam of each example."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.errors import describe
from .._base.inputs import as_state
from .._base.read_only import is_read_only
from .._base.trees import is_tensor_array, named_leaves
from .._base.typing import Array, PyTree


def tile(caller: str, name: str, tree: PyTree, width: int) -> PyTree:
    """The tree with each row repeated `width` times.

    Raises:
        TypeError: If a leaf is not an array.
        ValueError: If a leaf is a TensorArray.
    """
    for leaf_name, leaf in named_leaves(name, tree, is_tensor_array):
        if is_tensor_array(leaf):
            raise ValueError(
                f"{caller}: `{leaf_name}` must have rows that beams can be made of, "
                f"got {describe(leaf)}. Keep what it holds in arrays [batch, ...]."
            )
    tree = as_state(caller, name, tree)
    return map_rows(lambda x: repeated(x, width), tree)


def map_rows(fn: Callable[[Array], Array], tree: PyTree) -> PyTree:
    """The tree with `fn(leaf)` for each leaf that has a row for each beam.

    These are the arrays with axes, but for TensorArrays and read-only parts.
    """
    is_shared = lambda x: is_read_only(x) or is_tensor_array(x)

    def of_rows(leaf: Any) -> Any:
        return leaf if is_shared(leaf) or not leaf.ndim else fn(leaf)

    return jax.tree.map(of_rows, tree, is_leaf=is_shared)


def repeated(x: Array, width: int) -> Array:
    """Each row `width` times; unlike in `jnp.repeat`, on any mesh."""
    rows, *rest = x.shape
    wide = jnp.broadcast_to(jnp.expand_dims(x, 1), (rows, width, *rest))
    return wide.reshape(rows * width, *rest)


def reordered(state: PyTree, parents: Array) -> PyTree:
    """The state in which each beam has the state of its parent."""
    batch, width = parents.shape

    def reorder(x: Array) -> Array:
        # Among the rows of an example, so that no device needs those of another.
        beams = x.reshape(batch, width, *x.shape[1:])
        return jax.vmap(lambda x, places: x[places])(beams, parents).reshape(x.shape)

    return map_rows(reorder, state)
