"""Runs a loop on each device of an explicit mesh, in `jax.shard_map`."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from .._base.mesh import explicit_mesh_of
from .._base.typing import PyTree


def by_device(
    fn: Callable[[PyTree, Any], PyTree],
    shared: PyTree,
    run: Any,
    specs: Any,
    out_specs: object,
    names: set[str],
) -> PyTree:
    """Runs `fn(shared, run)` in `shard_map` over the explicit mesh of the inputs.

    Args:
        fn: A function of `shared` and of the rows or steps of `run` on one device.
        shared: Arrays that all devices share, such as parameters.
        run: The whole run, a `Run` or `Given`.
        specs: The run with a `PartitionSpec` in place of each array; see `prefix_tree`.
        out_specs: The `PartitionSpec`s of the results.
        names: The axes of the mesh over which `shard_map` maps.
    """
    mesh, whole = explicit_mesh_of(run.inputs), PartitionSpec()

    def put(spec: PartitionSpec, part: PyTree) -> PyTree:
        place = NamedSharding(mesh, spec)
        return jax.tree.map(lambda x: jax.sharding.reshard(x, place), part)

    is_spec = lambda x: isinstance(x, PartitionSpec)
    return jax.shard_map(
        fn,
        mesh=mesh,
        in_specs=(whole, specs),
        out_specs=out_specs,
        axis_names=names,
    )(shared, jax.tree.map(put, specs, run, is_leaf=is_spec))
