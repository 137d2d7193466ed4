"""Helpers for beam search, where a state has one row per beam of each example."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.errors import InvalidValue, describe, error_note
from .._base.inputs import as_state
from .._base.read_only import is_read_only
from .._base.trees import is_tensor_array, named_leaves
from .._base.typing import Array, PyTree, RNNCellLike
from ._model import Decoded, Loop, Model, run


def tile(name: str, tree: PyTree, width: int) -> PyTree:
    """Repeats each row of the tree `width` times.

    Raises:
        TypeError: If a leaf is not an array.
        ValueError: If a leaf is a TensorArray.
    """
    for leaf_name, leaf in named_leaves(name, tree, is_tensor_array):
        if is_tensor_array(leaf):
            raise InvalidValue(
                f"`{leaf_name}` must be an array with rows to repeat, got "
                f"{describe(leaf)}. Store its contents in arrays [batch, ...]."
            )
    tree = as_state(name, tree)
    return map_rows(lambda x: repeated(x, width), tree)


def tile_model(model: Model, width: int) -> Model:
    """Repeats each row of the model's initial state and start ids `width` times.

    Raises:
        ValueError: If the state contains a TensorArray.
    """
    state = tile("initial_state", model.initial_state, width)
    ids = repeated(model.start_ids, width)
    return dataclasses.replace(model, initial_state=state, start_ids=ids)


def run_beams(cell: RNNCellLike, loop: Loop, max_time: Any) -> Decoded:
    """Calls `run` for a tiled model; adds a note about the row count to any error."""
    with error_note(
        "The cell, `embed` and `project` run on batch * "
        f"beam_width = {loop.model.batch_size} rows; apply `jaxrnn.decode.tile_beams` "
        "to memories that these functions close over."
    ):
        return run(cell, loop, max_time)


def map_rows(fn: Callable[[Array], Array], tree: PyTree) -> PyTree:
    """Applies `fn` to each leaf that has one row per beam.

    Scalars, TensorArrays and read-only parts remain unchanged.
    """
    is_shared = lambda x: is_read_only(x) or is_tensor_array(x)

    def of_rows(leaf: Any) -> Any:
        return leaf if is_shared(leaf) or not leaf.ndim else fn(leaf)

    return jax.tree.map(of_rows, tree, is_leaf=is_shared)


def repeated(x: Array, width: int) -> Array:
    """Repeats each row `width` times; unlike `jnp.repeat`, this works on any mesh."""
    rows, *rest = x.shape
    wide = jnp.broadcast_to(jnp.expand_dims(x, 1), (rows, width, *rest))
    return wide.reshape(rows * width, *rest)


def reordered(state: PyTree, parents: Array) -> PyTree:
    """Replaces the state of each beam with the state of its parent beam."""
    batch, width = parents.shape

    def reorder(x: Array) -> Array:
        # Index within each example, so that no device reads rows from another device.
        beams = x.reshape(batch, width, *x.shape[1:])
        return jax.vmap(lambda x, places: x[places])(beams, parents).reshape(x.shape)

    return map_rows(reorder, state)
