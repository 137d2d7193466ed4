"""Helpers of the loops that compute many steps of a cell at once."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

from .._base import trees
from .._base.derivatives import with_forward_only
from .._base.math import at_least_float32, cast, widest_dtype
from .._base.mesh import explicit_mesh_of, platform_of, varying_like
from .._base.sharding import replicated_on_explicit_mesh
from .._base.typing import Params, PyTree
from .._cells.base import RNNCell, scope_name
from .._run.run import Choice, Loop, Run
from .._run.scans import scan_steps
from .by_device import by_device


def choose_many_steps(name: str, cell: RNNCell, loop: Loop, run: Run) -> Choice:
    """Returns `loop` as the choice `name`, or a scan.

    A scan runs if the user asks for another implementation, or if the number of steps
    is symbolic.
    """
    if run.implementation not in (None, "xla", name):
        kinds = {"native": "an `AffineCell`"}
        kind = kinds.get(run.implementation, "a matrix memory")
        return Choice.scan(f"{type(cell).__name__} is not {kind}")
    if not isinstance(run.steps.time, int):
        return Choice.scan("the number of steps is symbolic")
    return Choice(name, functools.partial(_run_all, cell, loop))


def scanned_without_derivatives(
    choice: Choice, cell: Any, stored: Callable, run: Run
) -> Choice:
    """Returns the choice, but with a scan on a CPU if a call is not differentiated.

    Args:
        choice: The choice of a loop, or of a scan.
        cell: The cell, whose `step` computes in at least float32.
        stored: `stored(like, state)` casts a state to the dtypes of `like`.
        run: All steps; only types are read.
    """
    if (
        choice.loop is None
        or platform_of(run.inputs) != "cpu"
        or explicit_mesh_of(run.inputs) is not None
    ):
        return choice
    reason = "they are faster with derivatives; without derivatives, a faster scan runs"
    scan = functools.partial(_scan_alone, cell, stored)
    loop = with_forward_only(choice.loop, scan)
    return dataclasses.replace(choice, loop=loop, reason=reason)


def _scan_alone(
    cell: Any, stored: Callable, params: Params, run: Run
) -> tuple[PyTree, PyTree]:
    """Scans all steps, with states in the dtype of the arithmetic."""
    dtype = at_least_float32(widest_dtype((run.inputs, run.state)))
    state, reset_state = cast((run.state, run.reset_state), dtype)
    # Without derivatives, NaN in the dropped results of finished rows does no harm.
    steps = dataclasses.replace(run.steps, stand_in=None)
    wide = run.replace(state=state, reset_state=reset_state, steps=steps)
    outputs, last = scan_steps(lambda t, *step: cell.step(params, *step), wide)
    if steps.returns_states:
        outputs = outputs[0], stored(run.state, outputs[1])
    return outputs, stored(run.state, last)


def _run_all(
    cell: RNNCell, loop: Loop, params: Params, run: Run
) -> tuple[PyTree, PyTree]:
    """Runs the loop on each device, with the state in the cell's structure."""
    state = trees.with_structure(cell.state_size, run.state)
    # The sharding of the parameters might conflict with the sharding of the state.
    params = replicated_on_explicit_mesh(params)
    with jax.named_scope(scope_name(cell)):
        return _on_rows(loop, params, run.replace(state=state))


def _on_rows(loop: Loop, params: Params, run: Run) -> tuple[PyTree, PyTree]:
    """Runs the loop; on an explicit mesh, each device runs its rows in `shard_map`.

    Outside of `shard_map`, the type of a parameter's gradient says that the gradient is
    equal on all devices, so the backward loop would sum over devices in each iteration.
    In `shard_map`, JAX sums over devices once.
    """
    axis = run.steps.axis
    # All inputs have their rows divided in the same way (`_run/layout.py`).
    name = jax.typeof(jax.tree.leaves(run.inputs)[0]).sharding.spec[1 - axis]
    if name is None or explicit_mesh_of(run.inputs) is None:
        return loop(params, run)
    run = run.replace(key_of_step=None)  # A loop of many steps draws no random numbers.
    rows, sequences = PartitionSpec(name), PartitionSpec(*[None] * (1 - axis), name)
    specs = run.prefix_tree(rows=rows, sequences=sequences, shared=PartitionSpec())

    def of_device(params: Params, run: Run) -> tuple[PyTree, PyTree]:
        return loop(varying_like(run.inputs, params), run)

    # The caller may already map over another axis of the mesh, which this `shard_map`
    # must not name.
    names = set(name) if isinstance(name, tuple) else {name}
    return by_device(of_device, params, run, specs, (sequences, rows), names)
