"""Runs a cell over sequences whose time axis is divided over devices.

Each device holds a *part*: consecutive steps of its rows. It runs its part twice:

1. It computes the map from the state before the part to the state after the part
   (`Transition` in `_cells/base.py`). The devices exchange these maps, and apply them
   one after another. So each device knows the state before its part.
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
from .masking import Steps
from .run import Run, by_device
from .run_cell import Options, prepared, run_ready
from .scans import checkpointed_run

Results = tuple[PyTree, PyTree, PyTree]


def run_on_mesh(
    cell: RNNCellLike, run: Run, options: Options, spec: PartitionSpec
) -> Results:
    """Runs a cell over inputs whose time axis is divided on an explicit mesh.

    Args:
        cell: The cell.
        run: All steps.
        options: The options, with a plan for the steps of one device.
        spec: How the mesh divides the first two axes of the inputs.

    Returns:
        `(outputs, state, states)`; see `run_cell`.

    Raises:
        ValueError: If the cell has no `Transition`, or a state has other rows.
    """
    transition_of(cell)
    check_rows_of_states(run)
    if bound_or_none(cell).shares_programs:
        return _compiled(cell, run, options, spec)
    # Each call compiles any other cell, as in `run_cell`.
    run_all = lambda cell, run: _run_on_mesh(cell, run, options, spec)
    return jax.jit(run_all)(cell, run)


def _run_on_mesh(cell: Any, run: Run, options: Options, both: PartitionSpec) -> Results:
    axis = run.steps.axis
    rows, name = PartitionSpec(both[1 - axis]), both[axis]

    def run_one(cell: RNNCellLike, run: Run) -> Results:
        time = jax.tree.leaves(run.inputs)[0].shape[axis]
        own = dataclasses.replace(run.steps, time=time)
        return run_on_device(cell, run.replace(steps=own), options, name)

    cell = whole_on_explicit_mesh(cell, run)
    names = explicit_axes_of(explicit_mesh_of(run.inputs))
    return by_device(run_one, cell, run, both, (both, rows, both), names)


_compiled = jax.jit(_run_on_mesh, static_argnames=("options", "both"))


def run_on_device(cell: RNNCellLike, run: Run, options: Options, name: Any) -> Results:
    """Runs the part of the time axis that a device holds, in `jax.shard_map`.

    Args:
        cell: The cell.
        run: The inputs, mask and resets of the part; the lengths, the initial state and
            the reset states of the whole sequences.
        options: The options.
        name: The axis of the mesh that divides time, or a tuple of axes.

    Returns:
        `(outputs, state, states)`; see `run_cell`. The state is that of the last
        part.

    Raises:
        ValueError: If the cell has no `Transition`, or the inputs are not divided over
            the axis.
    """
    check_axis_name(name, run.inputs)
    transition = transition_of(cell)
    cell = as_varying_as(run.inputs, cell)
    ready = prepared(cell, run.replace(steps=_of_part(run.steps, name)), options)
    count = jax.lax.axis_size(name)
    if count > 1 and run.steps.time != 0:
        state = _state_before(transition, ready, options, name)
        ready = ready._replace(state=state, run=ready.run.replace(state=state))
    outputs, last, states = run_ready(ready, run.state, options)
    last = masking.zero_unless(jax.lax.axis_index(name) == count - 1, last)
    return outputs, jax.lax.psum(last, name), states


def _of_part(steps: Steps, name: AxisName) -> Steps:
    """The steps of a part, with the lengths and the resets of the part."""
    lengths = steps.lengths
    if lengths is not None:
        start = jax.lax.axis_index(name) * steps.time
        lengths = jnp.clip(lengths - start, 0, steps.time)
    restarts = steps.restarts
    if restarts is not None and steps.mask is not None and steps.time != 0:
        where, mask = steps.swap_rows((restarts, steps.mask))
        restarts = steps.swap_rows(_with_earlier_resets(where, mask, name))
    return dataclasses.replace(steps, lengths=lengths, restarts=restarts)


def _with_earlier_resets(where: Array, mask: Array, name: AxisName) -> Array:
    """The resets of a part, and those after the last valid step of earlier parts.

    A reset takes effect at the next valid step, which may be in a later part.

    Args:
        where: The resets of the part, bool `[batch, time]`.
        mask: The valid steps of the part, bool `[batch, time]`.
        name: The axis of the mesh that divides time.
    """
    steps = jnp.arange(1, mask.shape[1] + 1)
    end = jnp.max(jnp.where(mask, steps[None], 0), axis=1, keepdims=True)
    is_left = jnp.any(where & (steps[None] > end), axis=1)

    def after(waits: Array, part: PyTree) -> Array:
        is_left, is_empty = part
        return is_left | (waits & is_empty)

    part = is_left, end[:, 0] == 0
    waits = _before_part(after, jnp.zeros_like(is_left), part, name)
    return where.at[:, 0].set(where[:, 0] | waits)


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


def _state_before(transition: Any, ready: Any, options: Options, name: Any) -> PyTree:
    """The state before the part of a device.

    Args:
        transition: The `Transition` of the cell.
        ready: The `ReadyRun` of the cell over the part.
        options: The options.
        name: The axis of the mesh that divides time.
    """
    run = ready.run
    size = ready.cell.state_size
    wide = widened(with_structure(size, run.state))
    is_first = jax.lax.axis_index(name) == 0
    part = _map_of_part(transition, ready, options, wide, is_first)

    def after(state: PyTree, part: PyTree) -> PyTree:
        map_of_part, is_constant = part
        # A constant does not read the state, which may be NaN before a restart.
        read = masking.zero_unless(~is_constant, state)
        return transition.map(map_of_part, read)

    state = _before_part(after, wide, part, name)
    state = transition.stored(with_structure(size, run.state), state)
    return with_structure(run.state, state)


def _map_of_part(
    transition: Any, ready: Any, options: Options, state: PyTree, is_first: Array
) -> tuple[PyTree, Array]:
    """The map from the state before a part to the state after it.

    Args:
        transition: The `Transition` of the cell.
        ready: The `ReadyRun` of the cell over the part.
        options: The options.
        state: The initial state of the whole sequences.
        is_first: Whether the part is the first, before which the state is known.

    Returns:
        The map; and whether it is a constant, bool `[batch]`.
    """
    run = ready.run
    pairs = transition.constant(state), transition.identity(state)
    start = jax.tree.map(functools.partial(jnp.where, is_first), *pairs)
    are_constant = jnp.full(jax.tree.leaves(state)[0].shape[:1], is_first)
    steps = dataclasses.replace(run.steps, returns_states=False)
    if run.steps.restarts is not None:
        states = with_structure(ready.cell.state_size, run.steps.restart_states)
        states = transition.constant(widened(states))
        steps = steps.with_restart_states(states)
        are_constant |= jnp.any(run.steps.restarts, axis=steps.axis)
    start, are_constant = as_varying_as(run.inputs, (start, are_constant))
    params_in_loop = summed_in_float32(ready.cell.params)

    def map_part(xs: PyTree, state: PyTree, steps: Steps) -> tuple[None, PyTree]:
        part = run.replace(inputs=xs, state=state, steps=steps)
        return None, transition.map_of_steps(params_in_loop(), part)

    steps = steps.with_stand_in(run.inputs, start)
    plan = options.plan
    _, map_of_part = checkpointed_run(
        plan.part, plan.names_on_host, map_part, run.inputs, start, steps
    )
    return map_of_part, are_constant
