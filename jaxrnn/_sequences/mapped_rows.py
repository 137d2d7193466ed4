"""Calls of other libraries under `vmap`: mapped axes become rows of one call."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap, sequential_vmap

from .._base.typing import Array, PyTree

# In place of the axis of rows: of what all rows share, such as a matrix.
SHARED = -1


def as_rows(
    one: Callable[..., PyTree], axes: tuple[PyTree, ...], result_axes: PyTree
) -> Callable[..., PyTree]:
    """`one`, in which axes that `vmap` maps become rows of one call.

    If something that rows share is mapped, the calls run one after the other.

    Args:
        one: A function of arrays that treats each row by itself; it closes over none.
        axes: The axis of the rows of each argument, or `SHARED`; a prefix of them.
        result_axes: The axis of the rows of each result; a prefix of the results.
    """

    @custom_vmap
    def run(*args: PyTree) -> PyTree:
        return one(*args)

    @run.def_vmap
    def _(size: int, in_batched: Any, *args: PyTree) -> tuple[PyTree, PyTree]:
        leaves, tree = jax.tree.flatten(args)
        batched = jax.tree.leaves(in_batched)
        row_axes = jax.tree.leaves(jax.tree.broadcast(axes, args))
        marks = list(zip(row_axes, batched, strict=True))
        if (SHARED, True) in marks:
            each = jax.tree.map(lambda is_batched: 0 if is_batched else None, batched)
            one_of_leaves = lambda *leaves: one(*tree.unflatten(leaves))
            results = jax.vmap(sequential_vmap(one_of_leaves), each)(*leaves)
        else:
            pairs = zip(leaves, marks, strict=True)
            joined = [_join(size, x, *mark) for x, mark in pairs]
            results = run(*tree.unflatten(joined))
            all_axes = jax.tree.broadcast(result_axes, results)
            results = jax.tree.map(lambda x, n: _split(size, x, n), results, all_axes)
        return results, jax.tree.map(lambda _: True, results)

    return run


def _join(size: int, x: Array, axis: int, is_batched: bool) -> Array:
    """The mapped axis of `x`, its first, joined with its rows."""
    if axis == SHARED:
        return x
    x = x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
    return jax.lax.collapse(jnp.moveaxis(x, 0, axis), axis, axis + 2)


def _split(size: int, x: Array, axis: int) -> Array:
    """The inverse of `_join`."""
    x = x.reshape(*x.shape[:axis], size, -1, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)
