"""Runs a cell over sequences whose time axis is divided over devices.

Each device holds a *part*: consecutive steps of its rows. It runs its part twice:

1. It computes the map from the state before the part to the state after the part
   (`Transition` in `loops.py`). The devices exchange these maps, and apply them one
   after another. So each device knows the state before its part.
2. It runs the cell from this state. The last device sends the final state to all.

With a mask, the devices also exchange which resets wait for a valid step. No loop over
steps exchanges anything. The gradient is JAX's.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from .._base.derivatives import summed_in_float32
from .._base.math import widened
from .._base.sharding import (
    as_varying_as,
    explicit_axes_of,
    explicit_mesh_of,
    whole_on_explicit_mesh,
)
from .._base.trees import with_structure
from .._base.typing import Array, AxisName, PyTree, RNNCellLike, bound_or_none
from . import masking
from .arguments import check_axis_name, check_rows_of_states, transition_of
from .given import Given
from .memory import CheckpointPlan
from .run import Run, by_device
from .run_cell import Results, choose, prepared, results_of
from .scans import checkpointed_run


def run_on_mesh(cell: RNNCellLike, given: Given, spec: PartitionSpec) -> Results:
    """Runs a cell over inputs whose time axis is divided on an explicit mesh.

    Args:
        cell: The cell.
        given: All steps, with a plan for the steps of one device.
        spec: How the mesh divides the first two axes of the inputs.

    Returns:
        `(outputs, state, states)`; see `run_cell`.

    Raises:
        ValueError: If the cell has no `Transition`, or a state has other rows.
    """
    transition_of(cell)
    check_rows_of_states(given)
    if bound_or_none(cell).shares_programs:
        return _compiled(cell, given, spec)
    # Each call compiles any other cell, as in `run_cell`.
    run_all = lambda cell, given: _run_on_mesh(cell, given, spec)
    return jax.jit(run_all)(cell, given)


def _run_on_mesh(cell: Any, given: Given, both: PartitionSpec) -> Results:
    rows, name = PartitionSpec(both[1 - given.axis]), both[given.axis]
    run_one = lambda cell, given: run_on_device(cell, given, name)
    cell = whole_on_explicit_mesh(cell, given)
    names = explicit_axes_of(explicit_mesh_of(given.inputs))
    specs = given.with_each(rows=rows, sequences=both)
    return by_device(run_one, cell, given, specs, (both, rows, both), names)


_compiled = jax.jit(_run_on_mesh, static_argnames="both")


def run_on_device(cell: RNNCellLike, given: Given, name: Any) -> Results:
    """Runs the part of the time axis that a device holds, in `jax.shard_map`.

    Args:
        cell: The cell.
        given: The inputs, mask and resets of the part; the lengths, the initial state
            and the reset state of the whole sequences.
        name: The axis of the mesh that divides time, or a tuple of axes.

    Returns:
        `(outputs, state, states)`; see `run_cell`. The state is that of the last
        part.

    Raises:
        ValueError: If the cell has no `Transition`, or the inputs are not divided over
            the axis.
    """
    check_axis_name(name, given.inputs)
    transition = transition_of(cell)
    cell = as_varying_as(given.inputs, cell)
    cell, run, moved = prepared(cell, _of_part(given, name))
    choice = choose(cell, run, given.plan)
    count = jax.lax.axis_size(name)
    if count > 1 and given.time != 0:
        state = _state_before(transition, cell, run, given.plan, name)
        run = run.replace(state=state)
    outputs, last, states = results_of(cell, run, choice, moved, given)
    last = masking.zero_unless(jax.lax.axis_index(name) == count - 1, last)
    return outputs, jax.lax.psum(last, name), states


def _of_part(given: Given, name: AxisName) -> Given:
    """What was given, with the lengths and the resets of the part."""
    lengths, resets = given.lengths, given.resets
    if lengths is not None:
        start = jax.lax.axis_index(name) * given.time
        lengths = jnp.clip(lengths - start, 0, given.time)
    if resets is not None and given.mask is not None and given.time != 0:
        of_rows, mask = given.swap_rows((resets, given.mask))
        resets = given.swap_rows(_with_earlier_resets(of_rows, mask, name))
    return given.replace(lengths=lengths, resets=resets)


def _with_earlier_resets(resets: Array, mask: Array, name: AxisName) -> Array:
    """The resets of a part, and those after the last valid step of earlier parts.

    A reset takes effect at the next valid step, which may be in a later part.

    Args:
        resets: The resets of the part, bool `[batch, time]`.
        mask: The valid steps of the part, bool `[batch, time]`.
        name: The axis of the mesh that divides time.
    """
    steps = jnp.arange(1, mask.shape[1] + 1)
    end = jnp.max(jnp.where(mask, steps[None], 0), axis=1, keepdims=True)
    is_left = jnp.any(resets & (steps[None] > end), axis=1)

    def after(waits: Array, part: PyTree) -> Array:
        is_left, is_empty = part
        return is_left | (waits & is_empty)

    part = is_left, end[:, 0] == 0
    waits = _before_part(after, jnp.zeros_like(is_left), part, name)
    return resets.at[:, 0].set(resets[:, 0] | waits)


def _before_part(
    after: Callable[[PyTree, PyTree], PyTree], first: PyTree, part: PyTree, name: Any
) -> PyTree:
    """What is known before a part, from what each device knows about its own part.

    Args:
        after: `after(x, part)` is what is known after a part, if x is known before it.
        first: What is known before the first part.
        part: What this device knows about its part.
        name: The axis of the mesh that divides time.
    """
    parts = jax.lax.all_gather(part, name)
    first = as_varying_as(parts, first)
    _, all_before = jax.lax.scan(lambda x, part: (after(x, part), x), first, parts)
    return jax.tree.map(lambda x: x[jax.lax.axis_index(name)], all_before)


def _state_before(
    transition: Any, cell: Any, run: Run, plan: CheckpointPlan, name: Any
) -> PyTree:
    """The state before the part of a device.

    Args:
        transition: The `Transition` of the cell.
        cell: The cell.
        run: The run of the cell over the part.
        plan: What derivatives save.
        name: The axis of the mesh that divides time.
    """
    size = cell.state_size
    wide = widened(with_structure(size, run.state))
    is_first = jax.lax.axis_index(name) == 0
    # In place of states, the run has maps.
    pairs = transition.constant(wide), transition.identity(wide)
    start = jax.tree.map(functools.partial(jnp.where, is_first), *pairs)
    reset_state = run.reset_state
    if run.steps.resets is not None:
        reset_state = transition.constant(widened(with_structure(size, reset_state)))
    of_maps = run.replace(state=start, reset_state=reset_state)
    part = _map_of_part(transition, cell, of_maps, plan, is_first)

    def after(state: PyTree, part: PyTree) -> PyTree:
        map_of_part, is_constant = part
        # A constant does not read the state, which may be NaN before a reset.
        read = masking.zero_unless(~is_constant, state)
        return transition.map(map_of_part, read)

    state = _before_part(after, wide, part, name)
    state = transition.stored(with_structure(size, run.state), state)
    return with_structure(run.state, state)


def _map_of_part(
    transition: Any, cell: Any, run: Run, plan: CheckpointPlan, is_first: Array
) -> tuple[PyTree, Array]:
    """The map from the state before a part to the state after it.

    Args:
        transition: The `Transition` of the cell.
        cell: The cell.
        run: The run over the part, with maps in place of states.
        plan: What derivatives save.
        is_first: Whether the part is the first, before which the state is known.

    Returns:
        The map; and whether it is a constant, bool `[batch]`.
    """
    steps = dataclasses.replace(run.steps, returns_states=False)
    are_constant = jnp.full(jax.tree.leaves(run.state)[0].shape[:1], is_first)
    if steps.resets is not None:
        are_constant |= jnp.any(steps.resets, axis=steps.axis)
    start, are_constant = as_varying_as(run.inputs, (run.state, are_constant))
    params_in_loop = summed_in_float32(cell.params)

    def map_part(part: Run) -> tuple[None, PyTree]:
        return None, transition.map_of_steps(params_in_loop(), part)

    run = run.replace(state=start, steps=steps).with_stand_in()
    if plan.part is None:
        return map_part(run)[1], are_constant
    _, found = checkpointed_run(plan.part, map_part, run, plan.names_on_host)
    return found, are_constant
