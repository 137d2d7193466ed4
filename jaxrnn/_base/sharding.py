"""Giving what a driver makes itself the layout over devices that the inputs have."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from .errors import is_key
from .math import expand_rows
from .trees import is_pytree_of_arrays
from .typing import Array, PyTree


def lay_out(
    cell: Any, xs: PyTree, lengths: Array | None, state: PyTree, batch_axis: int
) -> tuple[Any, Array | None, PyTree]:
    """All but `xs` over devices as the rows of `xs` are, along their `batch_axis`."""
    if not is_pytree_of_arrays(cell):
        return cell, *as_rows_of(xs, (lengths, state), batch_axis)
    lengths, state = as_rows_of(xs, (lengths, state), batch_axis, beside=cell)
    return as_varying_as(xs, cell), lengths, state


def as_rows_of(
    xs: PyTree, tree: PyTree, batch_axis: int, beside: PyTree = ()
) -> PyTree:
    """The same values, laid out over devices as the rows of `xs` are.

    A zero state is made without knowledge of the inputs' sharding. In a loop its type
    must be that of the state after a step: sharded on explicit meshes, varying inside
    of `shard_map`. Taking away a zero that is made of the inputs joins the types, and
    is removed by the compiler.

    Args:
        xs: Inputs with rows along `batch_axis` and time along the other of axes 0, 1.
        tree: What is laid out together, each leaf `[batch, ...]` or without axes.
        batch_axis: 0 or 1.
        beside: Arrays that vary over devices by themselves, such as parameters.
    """
    mask = _no_row(xs, batch_axis)
    for leaf in jax.tree.leaves(tree):
        if leaf.ndim == 1 and leaf.shape == mask.shape:
            mask = mask | _never(leaf, axis=())
    for leaf in jax.tree.leaves(beside):
        mask = mask | _never(jnp.asarray(leaf), axis=None)

    def spread(leaf: Array) -> Array:
        if leaf.ndim == 0:
            return _minus_nothing(leaf, jnp.any(mask))
        if leaf.shape[0] != mask.shape[0]:
            return leaf  # Nothing is broadcast: the probe says what is wrong.
        return _minus_nothing(leaf, expand_rows(mask, leaf))

    return jax.tree.map(spread, tree)


def as_varying_as(xs: PyTree, tree: PyTree) -> PyTree:
    """The same values, varying inside of `shard_map` over the devices that `xs` does.

    Parameters are the same on all devices and become varying where they meet the
    inputs. If that is inside of a loop, the backward pass sums their gradient over the
    devices at every step; if it is before the loop, once.
    """
    if AxisType.Manual not in jax.sharding.get_abstract_mesh().axis_types:
        return tree
    nothing = (_never(jnp.asarray(x), axis=None) for x in jax.tree.leaves(xs))
    mask = functools.reduce(jnp.logical_or, nothing)
    return jax.tree.map(lambda leaf: _minus_nothing(jnp.asarray(leaf), mask), tree)


def sharding_of(x: Array, beside: Array) -> Any:
    """What a product of `beside` must be told to be laid out as `x` is, if anything."""
    mesh = jax.typeof(beside).sharding.mesh
    if AxisType.Explicit not in mesh.axis_types:
        return None
    return NamedSharding(mesh, jax.typeof(x).sharding.spec)


def zeros_along(axis: int, count: int, like: Any) -> Array:
    """Zeros, `count` of the type `like` along a new axis, sharded as that is."""
    shape = (*like.shape[:axis], count, *like.shape[axis:])
    zeros = jnp.zeros(shape, like.dtype)
    if AxisType.Explicit not in jax.sharding.get_abstract_mesh().axis_types:
        return zeros
    spec = like.sharding.spec
    return jax.sharding.reshard(zeros, PartitionSpec(*spec[:axis], None, *spec[axis:]))


def buffers_for(like: PyTree, types: PyTree, count: int, axis: int) -> PyTree:
    """Zeros, `count` of each of the types along `axis`, varying as `like` does."""
    buffers = jax.tree.map(lambda x: zeros_along(axis, count, x), types)
    return as_varying_as(like, buffers)


def _no_row(xs: PyTree, batch_axis: int) -> Array:
    """False `[batch]`, laid out as the rows of `xs`."""
    time_axis = 1 - batch_axis

    def no_row(x: Array) -> Array:
        step = jax.lax.slice_in_dim(x, 0, min(1, x.shape[time_axis]), axis=time_axis)
        return _never(step, axis=tuple(a for a in range(x.ndim) if a != batch_axis))

    return functools.reduce(jnp.logical_or, map(no_row, jax.tree.leaves(xs)))


def _minus_nothing(leaf: Array, never: Array) -> Array:
    """The same value, in a type that joins the shardings of both."""
    if leaf.dtype == bool:
        return leaf ^ never
    if is_key(leaf):
        data = jax.random.key_data(leaf)
        data = data - never[..., None].astype(data.dtype)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return leaf - never.astype(leaf.dtype)  # Keeps the sign of -0.0, as + would not.


def _never(leaf: Array, axis: tuple[int, ...] | None) -> Array:
    """False in the sharding of `leaf`, with the axes `axis` (None: all) reduced."""
    if is_key(leaf):
        leaf, axis = jax.random.key_data(leaf), None if axis is None else (*axis, -1)
    return jnp.any(jnp.zeros_like(leaf, dtype=bool), axis=axis)
