"""Sharding the arrays that a driver creates as the inputs are sharded."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from .cell_keys import cell_of_device
from .errors import describe, is_array, is_key
from .gathers import explicit_sharding
from .math import expand_rows
from .trees import is_pytree_of_arrays, map_named
from .typing import Array, PyTree


def lay_out(
    cell: Any, xs: PyTree, lengths: Array | None, state: PyTree, batch_axis: int
) -> tuple[Any, Array | None, PyTree]:
    """Lengths and state divided like the rows of `xs`; the cell as a loop reads it.

    The cell gets the key of its device. Where the compiler divides arrays, its
    parameters become whole on each device: gathered inside of a loop, they would be
    gathered at every step. Inside of `shard_map` they vary as `xs` do.
    """
    if not is_pytree_of_arrays(cell):
        return cell, *as_rows_of(xs, (lengths, state), batch_axis)
    cell = _whole_on_auto_mesh(cell_of_device(cell, xs))
    beside = whole_on_explicit_mesh(cell)
    lengths, state = _rows_divided_as(xs, (lengths, state), batch_axis)
    lengths, state = as_rows_of(xs, (lengths, state), batch_axis, beside=beside)
    return as_varying_as(xs, cell), lengths, state


def whole_features(where: str, xs: PyTree, batch_axis: int) -> PyTree:
    """The inputs with whole features on each device of an explicit mesh.

    Args:
        where: The driver, for the message.
        xs: Inputs with rows along `batch_axis` and time along the other of axes 0, 1.
        batch_axis: 0 or 1.

    Raises:
        ValueError: If they are divided along time.
    """
    if explicit_mesh_of(xs) is None:
        return xs

    def put(name: str, x: Array) -> Array:
        sharding = jax.typeof(x).sharding
        if AxisType.Explicit not in sharding.mesh.axis_types:
            return x
        rows, time = sharding.spec[batch_axis], sharding.spec[1 - batch_axis]
        if time is not None:
            raise ValueError(
                f"{where}: `{name}` must be whole along time, got {describe(x)} that "
                f"is divided over {time!r}: the steps run one after another. Divide "
                f"the rows, by `jax.sharding.reshard`."
            )
        spec = PartitionSpec(*[None] * batch_axis, rows)
        return jax.sharding.reshard(x, NamedSharding(sharding.mesh, spec))

    return map_named("inputs", put, xs)


def _rows_divided_as(xs: PyTree, tree: PyTree, batch_axis: int) -> PyTree:
    """The arrays; on an explicit mesh divided as the rows of `xs` are, and no more."""
    first = jax.tree.leaves(xs)[0]
    mesh, batch = explicit_mesh_of(xs), first.shape[batch_axis]
    if mesh is None:
        return tree
    rows = PartitionSpec(jax.typeof(first).sharding.spec[batch_axis])

    def put(leaf: Array) -> Array:
        if leaf.shape[:1] != (batch,):
            return leaf
        return jax.sharding.reshard(leaf, NamedSharding(mesh, rows))

    return jax.tree.map(put, tree)


def onto_explicit_mesh(*trees: PyTree) -> list[PyTree]:
    """The arrays; if some are on an explicit mesh, the others are put on it, too."""
    mesh = explicit_mesh_of(list(filter(is_array, jax.tree.leaves(trees))))
    if mesh is None:
        return list(trees)
    whole = NamedSharding(mesh, PartitionSpec())

    def put(leaf: Any) -> Any:
        is_on_it = not is_array(leaf) or jax.typeof(leaf).sharding.mesh == mesh
        return leaf if is_on_it else jax.sharding.reshard(leaf, whole)

    return [jax.tree.map(put, tree) for tree in trees]


def whole_on_explicit_mesh(cell: Any) -> Any:
    """The cell with parameters that are whole on each device of an explicit mesh."""
    mesh = explicit_mesh_of(cell) if is_pytree_of_arrays(cell) else None
    if mesh is None:
        return cell
    return jax.tree.map(
        lambda x: jax.sharding.reshard(x, NamedSharding(mesh, PartitionSpec())), cell
    )


def _whole_on_auto_mesh(cell: Any) -> Any:
    def gather(leaf: Any) -> Any:
        mesh = jax.typeof(leaf).sharding.mesh
        if AxisType.Auto not in mesh.axis_types or is_key(leaf):
            return leaf
        whole = NamedSharding(mesh, PartitionSpec())
        return jax.lax.with_sharding_constraint(leaf, whole)

    return jax.tree.map(gather, cell)


def meshes_of(tree: PyTree) -> list[Any]:
    """The meshes that the types of arrays tell of, and the one that is set."""
    of_arrays = [jax.typeof(x).sharding.mesh for x in jax.tree.leaves(tree)]
    return [*of_arrays, jax.sharding.get_abstract_mesh()]


def explicit_mesh_of(tree: PyTree) -> Any:
    """The mesh over which types tell how arrays are divided; None if none do."""
    explicit = (m for m in meshes_of(tree) if AxisType.Explicit in m.axis_types)
    return next(explicit, None)


def devices_of(tree: PyTree) -> int:
    """The number of devices over which the compiler may divide the arrays.

    That is the size of the axes of their mesh that are neither explicit, where types
    tell whether arrays are divided, nor mapped by `shard_map`; 1 without a mesh.
    """

    def size(mesh: Any) -> int:
        axes = zip(mesh.axis_sizes, mesh.axis_types, strict=True)
        return math.prod(n for n, kind in axes if kind == AxisType.Auto)

    return max(map(size, meshes_of(tree)))


def _has_typed_sharding(xs: PyTree) -> bool:
    """Whether sharding is part of types: on explicit meshes, and inside `shard_map`."""
    kinds = {kind for mesh in meshes_of(xs) for kind in mesh.axis_types}
    return not kinds.isdisjoint({AxisType.Explicit, AxisType.Manual})


def as_rows_of(
    xs: PyTree, tree: PyTree, batch_axis: int, beside: PyTree = ()
) -> PyTree:
    """The same values, sharded like the rows of `xs`.

    A zero state is created without knowledge of the inputs' sharding. In a loop its
    type must be that of the state after a step: sharded on explicit meshes, varying
    inside of `shard_map`. Subtracting a zero that is computed from the inputs joins the
    types; the compiler removes the subtraction.

    Args:
        xs: Inputs with rows along `batch_axis` and time along the other of axes 0, 1.
        tree: The arrays, each leaf `[batch, ...]` or without axes.
        batch_axis: 0 or 1.
        beside: More arrays whose types are joined in, such as parameters.
    """
    if not _has_typed_sharding(xs):
        return tree
    false = _false_rows(xs, batch_axis)
    for leaf in jax.tree.leaves(tree):
        if leaf.ndim == 1 and leaf.shape == false.shape:
            false = false | _false_like(leaf, reduced=())
    for leaf in jax.tree.leaves(beside):
        false = false | _false_like(jnp.asarray(leaf), reduced=None)

    def join(leaf: Array) -> Array:
        if leaf.ndim == 0:
            return _join_type(leaf, jnp.any(false))
        if leaf.shape[0] != false.shape[0]:
            return leaf  # Nothing is broadcast: the probe reports the error.
        return _join_type(leaf, expand_rows(false, leaf))

    return jax.tree.map(join, tree)


def as_varying_as(xs: PyTree, tree: PyTree) -> PyTree:
    """The same values, varying over the same axes of `shard_map` as `xs`.

    Parameters are the same on all devices and become varying where they meet the
    inputs. If that is inside of a loop, the backward pass sums their gradient over the
    devices at every step; if it is before the loop, once.
    """
    if AxisType.Manual not in jax.sharding.get_abstract_mesh().axis_types:
        return tree
    falses = (_false_like(jnp.asarray(x), reduced=None) for x in jax.tree.leaves(xs))
    false = functools.reduce(jnp.logical_or, falses)
    return jax.tree.map(lambda leaf: _join_type(jnp.asarray(leaf), false), tree)


def sharding_of(x: Array, beside: Array) -> Any:
    """The `out_sharding` for a product of `beside` to be sharded like `x`, or None."""
    spec, mesh = jax.typeof(x).sharding.spec, jax.typeof(beside).sharding.mesh
    return explicit_sharding(spec, mesh)


def zeros_along(axis: int, count: int, like: Any) -> Array:
    """`count` zeros of the type `like` along a new axis, sharded like it."""
    shape = (*like.shape[:axis], count, *like.shape[axis:])
    zeros = jnp.zeros(shape, like.dtype)
    if like.sharding is None:
        return zeros
    # The mesh is named: without `jax.set_mesh` it is that of the inputs alone.
    spec, mesh = like.sharding.spec, like.sharding.mesh
    wide = PartitionSpec(*spec[:axis], None, *spec[axis:])
    sharding = explicit_sharding(wide, mesh)
    return zeros if sharding is None else jax.sharding.reshard(zeros, sharding)


def zeros_of(types: PyTree, count: int, like: PyTree) -> PyTree:
    """`count` zeros of each type along a new first axis, varying like `like`."""
    return buffers_for(like, types, count, 0)


def buffers_for(like: PyTree, types: PyTree, count: int, axis: int) -> PyTree:
    """`count` zeros of each of the types along a new `axis`, varying like `like`."""
    buffers = jax.tree.map(lambda x: zeros_along(axis, count, x), types)
    return as_varying_as(like, buffers)


def _false_rows(xs: PyTree, batch_axis: int) -> Array:
    """False `[batch]`, sharded like the rows of `xs`."""
    time_axis = 1 - batch_axis

    def false_rows(x: Array) -> Array:
        step = jax.lax.slice_in_dim(x, 0, min(1, x.shape[time_axis]), axis=time_axis)
        reduced = tuple(a for a in range(x.ndim) if a != batch_axis)
        return _false_like(step, reduced)

    return functools.reduce(jnp.logical_or, map(false_rows, jax.tree.leaves(xs)))


def _join_type(leaf: Array, false: Array) -> Array:
    """The same value, in a type that joins the shardings of both."""
    if leaf.dtype == bool:
        return leaf ^ false
    if is_key(leaf):
        data = jax.random.key_data(leaf)
        data = data - false[..., None].astype(data.dtype)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return leaf - false.astype(leaf.dtype)  # Keeps the sign of -0.0, as + would not.


def _false_like(leaf: Array, reduced: tuple[int, ...] | None) -> Array:
    """False in the sharding of `leaf`, over all but the `reduced` axes (None: all)."""
    if is_key(leaf):
        leaf = jax.random.key_data(leaf)
        reduced = None if reduced is None else (*reduced, -1)
    return jnp.any(jnp.zeros_like(leaf, dtype=bool), axis=reduced)
