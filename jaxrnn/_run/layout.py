"""Divides the rows of a run over devices, and copies the cell to each device."""

import dataclasses
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from .._base.errors import expect, is_key
from .._base.mesh import explicit_mesh_of, meshes_of, varying_like
from .._base.sharding import as_rows_of, key_of_device, replicated_on_explicit_mesh
from .._base.trees import is_pytree_of_arrays, map_named
from .._base.typing import Array, PyTree, RNNCellLike, bound_or_none
from .run import Run

T = TypeVar("T")


def laid_out(cell: RNNCellLike, run: Run) -> tuple[RNNCellLike, Run]:
    """Copies the cell to each device, and divides all rows like the inputs."""
    steps, axis = run.steps, run.steps.axis
    inputs = with_only_rows_divided(
        run.inputs, (cell, steps.lengths, run.state), 1 - axis
    )
    arrays = run.state, steps.to_batch_major(steps.resets), run.reset_state
    cell, lengths, arrays = lay_out(cell, inputs, steps.lengths, arrays, 1 - axis)
    state, resets, reset_state = arrays
    resets = steps.from_batch_major(resets)
    steps = dataclasses.replace(steps, lengths=lengths, resets=resets)
    run = run.replace(inputs=inputs, state=state, reset_state=reset_state, steps=steps)
    return cell, run


def lay_out(
    cell: object, inputs: PyTree, lengths: T, state: PyTree, batch_axis: int = 0
) -> tuple[Any, T, PyTree]:
    """Prepares the cell for a loop, and shards lengths and state like the inputs.

    On each device, the cell gets the device's key and all parameters. If the parameters
    were divided over devices, the loop would gather them at every step. In `shard_map`,
    all returned arrays vary over the same axes.

    Args:
        cell: The cell.
        inputs: Inputs with rows along `batch_axis`, such as one step.
        lengths: Integers `[batch]`, the lengths of the rows. None: all steps.
        state: The state, each leaf `[batch, ...]` or without axes.
        batch_axis: The axis of the rows, 0 or 1.
    """
    lengths, state = as_rows_of(inputs, (lengths, state), batch_axis)
    if not is_pytree_of_arrays(cell):
        return cell, *varying_like((inputs, lengths, state), (lengths, state))
    bound = bound_or_none(cell)
    if bound and bound.key is not None:
        cell = dataclasses.replace(bound, key=key_of_device(bound.key, inputs))
    cell = _whole_on_auto_mesh(cell, (inputs, lengths, state))
    arrays = replicated_on_explicit_mesh(cell, inputs), lengths, state
    return varying_like((inputs, arrays), arrays)


def _whole_on_auto_mesh(cell: object, beside: PyTree) -> Any:
    """Copies the whole cell to each device of an automatic mesh, if there is one.

    The mesh is found in the types of the cell and `beside`, or in the context. The
    compiler gathers an array where a program reads the array, so it would gather the
    cell's arrays at every step of a loop.
    """
    # Ignore meshes with a single device, on which every array is already whole.
    meshes = [m for m in meshes_of((cell, beside)) if m.size > 1]
    mesh = next((m for m in meshes if AxisType.Auto in m.axis_types), None)
    if mesh is None:
        return cell
    whole = NamedSharding(mesh, PartitionSpec())

    def gather(x: Array) -> Array:
        return x if is_key(x) else jax.lax.with_sharding_constraint(x, whole)

    return jax.tree.map(gather, cell)


def with_only_rows_divided(xs: PyTree, beside: PyTree, batch_axis: int) -> PyTree:
    """Divides the rows of all inputs over an explicit mesh in the same way.

    Args:
        xs: Inputs with rows along `batch_axis` and time along the other of the first
            two axes.
        beside: Other arrays. Inputs without a mesh are moved to the mesh of these
            arrays.
        batch_axis: 0 or 1.

    Raises:
        ValueError: If the inputs are sharded along time.
    """
    mesh = explicit_mesh_of((xs, beside))
    if mesh is None:
        return xs

    # If some inputs are replicated, divide their rows like the rows of other inputs.
    specs = [jax.typeof(x).sharding.spec for x in jax.tree.leaves(xs)]
    rows = next(filter(None, (spec[batch_axis] for spec in specs)), None)

    def put(name: str, x: Array) -> Array:
        spec = jax.typeof(x).sharding.spec
        fix = (
            f"The sharding is {spec}. Only `dynamic_rnn` accepts time that is divided "
            "over devices. For `explain`, pass the types of the steps on one device, "
            "without a sharding. For other functions, shard the rows, with "
            "`jax.sharding.reshard`."
        )
        is_undivided = spec[1 - batch_axis] is None
        expect(is_undivided, name, "not be sharded along time", x, fix)
        spec = PartitionSpec(*[None] * batch_axis, rows)
        return jax.sharding.reshard(x, NamedSharding(mesh, spec))

    return map_named("inputs", put, xs)
