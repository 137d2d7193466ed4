"""A loop on each device of an explicit mesh, by itself."""

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
    """`fn(shared, run)` in `shard_map` over the explicit mesh of the inputs.

    Args:
        fn: A function of arrays that all devices share, and of the run of a device.
        shared: These arrays.
        run: The whole run, a `Run` or `Given`.
        specs: The run, with a `PartitionSpec` for each array; see `prefix_tree`.
        out_specs: How the mesh divides the results.
        names: The axes of the mesh over which `fn` runs by device.
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
