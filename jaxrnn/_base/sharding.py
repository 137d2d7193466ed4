"""Shards arrays over devices, for example a zero state like the rows of the inputs."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from .errors import is_array
from .mesh import explicit_mesh_of, varying_axes, varying_like
from .typing import Array, Key, PyTree


def replicated_on_explicit_mesh(tree: PyTree, beside: PyTree = ()) -> PyTree:
    """Copies the arrays of `tree` to each device of an explicit mesh.

    The mesh is found in the types of `tree` and `beside`, or in the context. Without an
    explicit mesh, the arrays do not change.
    """
    mesh = explicit_mesh_of((tree, beside))
    if mesh is None:
        return tree
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.sharding.reshard(x, whole), tree)


def parts_of_time(xs: PyTree, axis: int) -> int:
    """The number of parts into which an explicit mesh divides time; 1 if undivided."""
    spec = spec_of_divided_time(xs, axis) or PartitionSpec(None, None)
    names = spec[axis] if isinstance(spec[axis], tuple) else (spec[axis],)
    mesh = explicit_mesh_of(xs)
    return math.prod(mesh.shape[name] for name in names if name is not None)


def spec_of_divided_time(xs: PyTree, axis: int) -> PartitionSpec | None:
    """The spec of the first two axes of the inputs; None if time is not divided.

    Args:
        xs: Inputs with time along `axis`. The spec is read from the first leaf whose
            time is divided.
        axis: The time axis, 0 or 1.
    """
    if explicit_mesh_of(xs) is None:
        return None
    specs = (jax.typeof(x).sharding.spec[:2] for x in jax.tree.leaves(xs))
    divided = (PartitionSpec(*spec) for spec in specs if spec[axis] is not None)
    return next(divided, None)


def as_rows_of(xs: PyTree, tree: PyTree, batch_axis: int = 0) -> PyTree:
    """Shards the arrays of `tree` over devices like the rows of `xs`.

    A zero state is created without the inputs' sharding. In a loop, the state must have
    the same type before and after a step. After a step on an explicit mesh, the state
    is sharded like the rows of the inputs. After a step in `shard_map`, the state
    varies over the same axes as the inputs.

    Args:
        xs: Inputs with rows along `batch_axis`.
        tree: The arrays, each leaf `[batch, ...]` or without axes.
        batch_axis: The axis of the rows in `xs`.
    """
    first = jax.tree.leaves(xs)[0]
    mesh = explicit_mesh_of((xs, tree))

    def put(leaf: Array) -> Array:
        # Replicate leaves that do not have one entry per row. A later check rejects
        # such leaves, unless they have no axes.
        spec = PartitionSpec()
        if leaf.shape[:1] == (first.shape[batch_axis],):
            spec = PartitionSpec(jax.typeof(first).sharding.spec[batch_axis])
        return jax.sharding.reshard(leaf, NamedSharding(mesh, spec))

    return varying_like(xs, tree if mesh is None else jax.tree.map(put, tree))


def key_of_device(key: Key, rows: PyTree) -> Key:
    """Derives a different key on each device if `shard_map` divides the rows.

    A key whose type already varies over the devices is returned unchanged.
    """
    axes = set().union(*map(varying_axes, jax.tree.leaves(rows))) - varying_axes(key)
    if not axes:
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(tuple(sorted(axes))))


def zeros_like(x: Array) -> Array:
    """Zeros with the shape, dtype and sharding of `x`, even without `jax.set_mesh`."""
    return as_sharded_as(x, jnp.zeros_like(x))


def instantiated(ct: Any) -> Any:
    """Returns a cotangent as an array; `jax.custom_vjp` may pass a symbolic zero."""
    if is_array(ct):
        return ct
    wanted = ct.aval
    if wanted.dtype == jax.dtypes.float0:
        return np.zeros(wanted.shape, wanted.dtype)
    zeros = as_sharded_as(wanted, jnp.zeros(wanted.shape, wanted.dtype))
    axes = tuple(sorted(wanted.mat.varying))
    return jax.lax.pcast(zeros, axes, to="varying") if axes else zeros


def zeros_of(types: PyTree, count: int, like: PyTree) -> PyTree:
    """Zeros of each type with a new first axis of size `count`, varying like `like`."""
    zeros = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), types)
    return varying_like(like, as_sharded_as(types, zeros, new_axes=1))


def as_sharded_as(types: PyTree, tree: PyTree, new_axes: int = 0) -> PyTree:
    """Shards arrays like `types` on an explicit mesh.

    Args:
        types: Arrays or `jax.ShapeDtypeStruct`s.
        tree: The arrays to shard, with the structure of `types`. The shape of each leaf
            is `new_axes` sizes, followed by the shape of the leaf's type.
        new_axes: The number of leading axes that the types lack. These axes are not
            divided.
    """

    def put(x: Any, leaf: Array) -> Array:
        wanted = jax.typeof(x).sharding if is_array(x) else x.sharding
        if wanted is None:
            return leaf
        # Name the mesh, because without `jax.set_mesh`, a new array has no mesh.
        spec = PartitionSpec(*[None] * new_axes, *wanted.spec)
        wanted = explicit_sharding(spec, wanted.mesh)
        return leaf if wanted is None else jax.sharding.reshard(leaf, wanted)

    return jax.tree.map(put, types, tree)


def read_at(
    array: Array, *indices: Array, mode: str | None = "promise_in_bounds"
) -> Array:
    """`array[indices]`, sharded like the indices.

    Args:
        array: An array whose number of axes is at least the number of index arrays.
        *indices: One integer array for each of the first axes. The arrays have equal
            shapes.
        mode: The treatment of indices out of bounds, as in `array.at[...].get`. By
            default, all indices must be in bounds.
    """
    first = jax.typeof(indices[0]).sharding
    whole = jax.typeof(array).sharding
    spec = PartitionSpec(*first.spec, *whole.spec[len(indices) :])
    sharding = explicit_sharding(spec, first.mesh)
    sharding = sharding or explicit_sharding(spec, whole.mesh)
    return array.at[indices].get(mode=mode, out_sharding=sharding)


def broadcast_first(array: Array, like: Array, axis: int) -> Array:
    """Repeats `array` along a new first axis, sharded like `axis` of `like`."""
    sharding = jax.typeof(like).sharding
    spec = PartitionSpec(sharding.spec[axis], *jax.typeof(array).sharding.spec)
    out_sharding = explicit_sharding(spec, sharding.mesh)
    return jax.lax.broadcast(array, (like.shape[axis],), out_sharding=out_sharding)


def explicit_sharding(spec: PartitionSpec, mesh: AbstractMesh) -> NamedSharding | None:
    """The sharding of an array on an explicit mesh; None on any other mesh."""
    is_explicit = AxisType.Explicit in mesh.axis_types
    return NamedSharding(mesh, spec) if is_explicit else None
