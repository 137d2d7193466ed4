"""TensorArrays in the carry of a loop, whose structure and shapes must not change."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .._base.math import module_for_size
from .._base.trees import is_tensor_array
from .._base.typing import Array
from .store import Rows
from .tensor_array import TensorArray


def is_opaque(value: Any) -> bool:
    """An `is_leaf` function for which TensorArrays and None are leaves."""
    return value is None or is_tensor_array(value)


def opaque(tree: Any) -> Any:
    """Replaces every leaf of the nest by 0; TensorArrays and None are leaves."""
    return jax.tree.map(lambda _: 0, tree, is_leaf=is_opaque)


def is_like(array: TensorArray, other: Any) -> bool:
    """Whether two arrays were created with equal arguments; elements may differ."""
    return is_tensor_array(other) and array._config == other._config


def with_capacity_for(tree: Any, steps: Any, first: int = 0) -> Any:
    """Extends TensorArrays with `dynamic_size` to hold one write for each step.

    Inside a compiled loop, a TensorArray cannot grow, and writes out of range are
    dropped. If the loop has no steps, each TensorArray gets capacity for one write,
    because a step is still traced. If `steps` is symbolic, the tree does not change.

    Args:
        tree: The carry of a loop before its first step.
        steps: The number of steps.
        first: The index at which the first step writes to an array that has no elements
            yet.
    """
    if not isinstance(steps, int):
        return tree
    steps = max(1, steps)

    def extend(array: TensorArray) -> TensorArray:
        config, store = array._config, array._store
        if not config.dynamic_size:
            return array
        if isinstance(store, Rows):
            array._checked(store)
            rows = store.padded(max(first, store.written_end()) + steps)
            return array._with(rows)
        capacity = max(first + steps, config.capacity)
        config = dataclasses.replace(config, capacity=capacity)
        return array.tree_unflatten(config, () if store is None else (store,))

    return _map_tensor_arrays(extend, tree)


def with_known_shapes(tree: Any, after: Callable[[], Any]) -> Any:
    """Gives each TensorArray the element shape that it has after a step.

    Args:
        tree: The carry of a loop before its first step.
        after: A function that returns the carry after a step. It is called only if the
            tree holds a TensorArray to which nothing was written.
    """
    leaves = jax.tree.leaves(tree, is_leaf=is_tensor_array)
    if not any(is_tensor_array(x) and x._store is None for x in leaves):
        return tree

    def shaped(array: TensorArray, other: Any) -> TensorArray:
        written = is_tensor_array(other) and isinstance(other._store, Rows)
        if array._store is not None or not written:
            return array
        return array._with(array._rows(other.element_shape))

    return _map_tensor_arrays(shaped, tree, after())


def _map_tensor_arrays(fn: Callable, tree: Any, *rest: Any) -> Any:
    of_leaf = lambda x, *others: fn(x, *others) if is_tensor_array(x) else x
    return jax.tree.map(of_leaf, tree, *rest, is_leaf=is_tensor_array)


def of_rows(rows: Array, size: Any) -> TensorArray:
    """Returns a TensorArray with `dynamic_size` that holds the first `size` rows."""
    array = TensorArray(rows.dtype, 0, dynamic_size=True)
    capacity = rows.shape[0]
    written = module_for_size(capacity).arange(capacity, dtype=np.int32) < size
    return array._with(Rows(rows, written, size))
