"""Calls of other libraries under `vmap`: mapped axes become part of one call.

Such a call has entries, which are independent. Its arrays have them along their first
axis; an argument has 1 there if all entries share it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from .._base.typing import Array, PyTree

# In place of the axis of rows: of what the rows of an entry share, such as a matrix.
ENTRIES = 0


def in_one_call(
    call: Callable[..., PyTree], axes: PyTree, result_axes: PyTree
) -> Callable[..., PyTree]:
    """`call` as a function of the arrays of one entry.

    Axes that `vmap` maps become rows of the same call; entries of it, if something that
    rows share is mapped.

    Args:
        call: A function of arrays with entries, which closes over none.
        axes: The axis of the rows of each array, or `ENTRIES`; a prefix of the tuple of
            arguments.
        result_axes: The axis of the rows of each result; a prefix of the results.
    """

    @custom_vmap
    def run(*args: PyTree) -> PyTree:
        return call(*args)

    @run.def_vmap
    def _(size: int, in_batched: Any, *args: PyTree) -> tuple[PyTree, PyTree]:
        leaves, tree = jax.tree.flatten(args)
        batched = jax.tree.leaves(in_batched)
        row_axes = jax.tree.leaves(jax.tree.broadcast(axes, args))
        by_rows = (ENTRIES, True) not in zip(row_axes, batched, strict=True)
        if by_rows:
            marks = list(zip(leaves, batched, row_axes, strict=True))
            count = next(x.shape[b + n] for x, b, n in marks if n != ENTRIES)
            joined = [_join(size, x, b, n) if n != ENTRIES else x for x, b, n in marks]
        else:
            marks = list(zip(leaves, batched, strict=True))
            count = _common(x.shape[is_batched] for x, is_batched in marks)
            joined = [_join_entries(size, count, *mark) for mark in marks]
        results = run(*tree.unflatten(joined))
        out_axes = jax.tree.broadcast(result_axes if by_rows else ENTRIES, results)
        split = functools.partial(_split, size, count)
        results = jax.tree.map(split, results, out_axes)
        return results, jax.tree.map(lambda _: True, results)

    def run_one(*args: PyTree) -> PyTree:
        results = run(*jax.tree.map(lambda x: jnp.expand_dims(x, ENTRIES), args))
        return jax.tree.map(lambda x: jnp.squeeze(x, ENTRIES), results)

    return run_one


def entries(args: PyTree) -> int:
    """The number of entries of a call with these arguments."""
    return _common(x.shape[ENTRIES] for x in jax.tree.leaves(args))


def _common(sizes: Any) -> int:
    """The size of an axis along which some arrays have size 1."""
    return next((size for size in sizes if size != 1), 1)


def _join_entries(size: int, count: int, x: Array, is_batched: bool) -> Array:
    """The mapped axis of `x` joined with its `count` entries, unless all share it."""
    if not is_batched and x.shape[ENTRIES] == 1:
        return x
    mapped, rest = x.shape[:is_batched], x.shape[is_batched + 1 :]
    return _join(
        size, jnp.broadcast_to(x, (*mapped, count, *rest)), is_batched, ENTRIES
    )


def _join(size: int, x: Array, is_batched: bool, axis: int) -> Array:
    """The mapped axis of `x`, its first, joined with another."""
    x = x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
    return jax.lax.collapse(jnp.moveaxis(x, 0, axis), axis, axis + 2)


def _split(size: int, count: int, x: Array, axis: int) -> Array:
    """The inverse of `_join`, for an axis of size `count`."""
    x = x.reshape(*x.shape[:axis], size, count, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)
