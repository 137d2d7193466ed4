"""Rows of beams: the state of a cell has a row for each beam of each example."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.errors import describe, error_note
from .._base.inputs import as_state
from .._base.read_only import is_read_only
from .._base.trees import is_tensor_array, named_leaves
from .._base.typing import Array, PyTree, RNNCellLike
from ._model import Decoded, Loop, Model, run


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


def tile_model(model: Model, width: int) -> Model:
    """The model with `width` rows for each of its rows.

    Raises:
        ValueError: If the state holds a TensorArray.
    """
    state = tile(model.caller, "initial_state", model.initial_state, width)
    ids = repeated(model.start_ids, width)
    return dataclasses.replace(model, initial_state=state, start_ids=ids)


def run_beams(cell: RNNCellLike, loop: Loop, max_time: Any) -> Decoded:
    """`run` of a loop whose model is tiled."""
    with error_note(
        f"{loop.model.caller}: the cell, `embed` and `project` are run on batch * "
        f"beam_width = {loop.model.batch_size} rows; apply `jaxrnn.decode.tile_beams` "
        "to memories over which they close."
    ):
        return run(cell, loop, max_time)


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
