"""Reads and copies whose layout has to be given on an explicit mesh."""

from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from .typing import Array


def read_at(array: Array, *indices: Array) -> Array:
    """`array[indices]`, sharded as the indices are.

    Args:
        array: Of as many axes as there are indices, or more.
        *indices: Integers for each of the first axes, of one shape; all are in bounds.
    """
    at, of = jax.typeof(indices[0]).sharding, jax.typeof(array).sharding
    spec = PartitionSpec(*at.spec, *of.spec[len(indices) :])
    sharding = explicit_sharding(spec, at.mesh) or explicit_sharding(spec, of.mesh)
    return array.at[indices].get(mode="promise_in_bounds", out_sharding=sharding)


def broadcast_first(array: Array, like: Array, axis: int) -> Array:
    """Copies of `array` along a new first axis, sharded like `axis` of `like`."""
    sharding = jax.typeof(like).sharding
    spec = PartitionSpec(sharding.spec[axis], *jax.typeof(array).sharding.spec)
    out_sharding = explicit_sharding(spec, sharding.mesh)
    return jax.lax.broadcast(array, (like.shape[axis],), out_sharding=out_sharding)


def explicit_sharding(spec: PartitionSpec, mesh: Any) -> NamedSharding | None:
    """The sharding on a mesh whose types tell it; None on any other."""
    is_explicit = AxisType.Explicit in mesh.axis_types
    return NamedSharding(mesh, spec) if is_explicit else None
