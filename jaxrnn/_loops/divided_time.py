"""Runs a cell over sequences whose time axis is divided over devices.

Each device holds a *part*: consecutive steps of its rows. Each device does two things:

1. It computes the map from the state before its part to the state after its part
   (`Transition`). The devices exchange these maps, and apply them one after another, so
   each device gets the state before its part.
2. It runs the cell from this state. The last device sends the final state to all.

Devices exchange nothing inside a loop over steps. JAX computes the gradient.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from .._base.derivatives import with_float32_gradients
from .._base.math import widened
from .._base.mesh import explicit_axes_of, explicit_mesh_of, varying_like
from .._base.sharding import replicated_on_explicit_mesh
from .._base.trees import with_structure
from .._base.typing import Array, AxisName, Params, PyTree
from .._run import masking
from .._run.arguments import check_axis_name, check_rows_of_states
from .._run.given import Given
from .._run.memory import CheckpointPlan
from .._run.prepare import prepared
from .._run.reorder import Gaps
from .._run.run import Run
from .._run.run_cell import Results, choose, results_of
from .._run.scans import checkpointed_run
from .by_device import by_device


class Transition(NamedTuple):
    """Functions that compute and apply the *map* of several steps of a cell.

    The map takes the state before the steps to the state after them. It is represented
    by arrays, such as A and B for the map `A h + B`, which do not depend on the state.
    A device can therefore compute the map of its steps before it gets the state.

    Attributes:
        map_of_steps: `map_of_steps(params, run)` returns the map of all steps of `run`,
            applied after the map `run.state`. Where a row is reset, the map
            `run.reset_state` takes the place of all earlier maps.
        identity: `identity(state)` returns the map that changes no state. The function
            reads only the types of `state`.
        constant: `constant(state)` returns the map that maps every state to `state`.
        map: `map(state_map, state)` applies a map to a state.
        stored: `stored(like, state)` casts the state to the dtypes of `like`.
    """

    map_of_steps: Callable[[Params, Run], PyTree]
    identity: Callable[[PyTree], PyTree]
    constant: Callable[[PyTree], PyTree]
    map: Callable[[PyTree, PyTree], PyTree]
    stored: Callable[[PyTree, PyTree], PyTree]


@dataclasses.dataclass(frozen=True)
class DividedTime:
    """Runs a kind of cells over sequences whose time axis is divided over devices.

    Attributes:
        transition: `transition(cell)` returns the `Transition` of a cell, or None if
            the cell has no `Transition`.
    """

    transition: Callable[[Any], Transition | None]

    def can_run(self, cell: object) -> bool:
        """Whether the cell has a `Transition`."""
        return self.transition(cell) is not None

    def on_mesh(self, cell: Any, given: Given, spec: PartitionSpec) -> Results:
        """Runs a cell over inputs whose time axis is divided on an explicit mesh.

        Args:
            cell: A bound cell that has a `Transition`.
            given: All steps, with a plan for the steps of one device.
            spec: The `PartitionSpec` of the first two axes of the inputs.

        Returns:
            `(outputs, state, states)`; see `run_cell`.

        Raises:
            ValueError: If a state does not have as many rows as the inputs.
        """
        check_rows_of_states(given)
        if cell.shares_programs:
            return _compiled(cell, given, self, spec)
        # Other cells are compiled in each call, as in `run_cell`.
        run_all = lambda cell, given: _run_on_mesh(cell, given, self, spec)
        return jax.jit(run_all)(cell, given)

    def on_device(self, cell: Any, given: Given, name: AxisName) -> Results:
        """Runs the steps that this device holds, inside `jax.shard_map`.

        Args:
            cell: A bound cell that has a `Transition`.
            given: The inputs, mask and resets of the part; the lengths, the initial
                state and the reset state of the whole sequences.
            name: The axis of the mesh that divides time, or a tuple of axes.

        Returns:
            `(outputs, state, states)`; see `run_cell`. On every device, the state is
            the state after the last part.

        Raises:
            ValueError: If the inputs are not divided over the axis.
        """
        check_axis_name(name, given.inputs)
        transition = self.transition(cell.cell)
        cell = varying_like(given.inputs, cell)
        cell, run, gaps = prepared(cell, _of_part(given, name))
        choice = choose(cell, run, given.plan)
        count = jax.lax.axis_size(name)
        if count > 1 and given.time != 0:
            state = _state_before(transition, cell, run, gaps, given.plan, name)
            run = run.replace(state=state).with_stand_in()
        outputs, last, states = results_of(cell, run, choice, gaps, given)
        last = masking.zero_unless(jax.lax.axis_index(name) == count - 1, last)
        return outputs, jax.lax.psum(last, name), states


def _run_on_mesh(
    cell: Any, given: Given, divided: DividedTime, sequence_spec: PartitionSpec
) -> Results:
    rows, name = PartitionSpec(sequence_spec[1 - given.axis]), sequence_spec[given.axis]
    run_one = lambda cell, given: divided.on_device(cell, given, name)
    cell = replicated_on_explicit_mesh(cell, given)
    names = explicit_axes_of(explicit_mesh_of(given.inputs))
    specs = given.prefix_tree(rows=rows, sequences=sequence_spec)
    return by_device(
        run_one, cell, given, specs, (sequence_spec, rows, sequence_spec), names
    )


_compiled = jax.jit(_run_on_mesh, static_argnames=("divided", "sequence_spec"))


def _of_part(given: Given, name: AxisName) -> Given:
    """Replaces the lengths of whole sequences by the lengths within this part."""
    if given.lengths is None:
        return given
    start = jax.lax.axis_index(name) * given.time
    return given.replace(lengths=jnp.clip(given.lengths - start, 0, given.time))


def _before_part(
    after: Callable[[PyTree, PyTree], PyTree], first: PyTree, part: PyTree, name: Any
) -> PyTree:
    """Computes a value before this device's part, such as the state.

    Args:
        after: `after(x, part)` returns the value after `part`; x is the value before.
        first: The value before the first part.
        part: The data of this device's part that `after` needs, such as its map.
        name: The axis of the mesh that divides time.
    """
    parts = jax.lax.all_gather(part, name)
    first = varying_like(parts, first)
    _, all_before = jax.lax.scan(lambda x, part: (after(x, part), x), first, parts)
    return jax.tree.map(lambda x: x[jax.lax.axis_index(name)], all_before)


def _state_before(
    transition: Any, cell: Any, run: Run, gaps: Gaps, plan: CheckpointPlan, name: Any
) -> PyTree:
    """Computes the state before this device's part.

    Args:
        transition: The `Transition` of the cell.
        cell: The cell.
        run: The run of the cell over the part.
        gaps: The `Gaps` of the run, which add resets at masked steps.
        plan: The checkpoint plan.
        name: The axis of the mesh that divides time.
    """
    size = cell.state_size
    wide = widened(with_structure(size, run.state))
    is_first = jax.lax.axis_index(name) == 0
    # The run has maps in place of states.
    pairs = transition.constant(wide), transition.identity(wide)
    start = jax.tree.map(functools.partial(jnp.where, is_first), *pairs)
    reset_state = run.reset_state
    if run.steps.resets is not None:
        reset_state = transition.constant(widened(with_structure(size, reset_state)))
    of_maps = run.replace(state=start, reset_state=reset_state)
    part = _map_of_part(transition, cell, of_maps, gaps, plan, is_first)

    def after(state: PyTree, part: PyTree) -> PyTree:
        map_of_part, is_constant = part
        # A constant map ignores the state, which may be NaN before a reset.
        read = masking.zero_unless(~is_constant, state)
        return transition.map(map_of_part, read)

    state = _before_part(after, wide, part, name)
    state = transition.stored(with_structure(size, run.state), state)
    return with_structure(run.state, state)


def _map_of_part(
    transition: Any,
    cell: Any,
    run: Run,
    gaps: Gaps,
    plan: CheckpointPlan,
    is_first: Array,
) -> tuple[PyTree, Array]:
    """Computes the map from the state before a part to the state after the part.

    Args:
        transition: The `Transition` of the cell.
        cell: The cell.
        run: The run over the part, with maps in place of states.
        gaps: The `Gaps` of the run, which add resets at masked steps.
        plan: The checkpoint plan.
        is_first: Whether this is the first part. The state before the first part is
            known.

    Returns:
        `(map, is_constant)`. `is_constant` is bool `[batch]`, true if the map of a row
        maps every state to one state, as after a reset.
    """
    steps = dataclasses.replace(run.steps, returns_states=False)
    are_constant = jnp.full(jax.tree.leaves(run.state)[0].shape[:1], is_first)
    if steps.resets is not None:
        are_constant |= jnp.any(steps.resets, axis=steps.axis)
    if (pending := gaps.pending_at_end(steps.axis)) is not None:
        are_constant |= pending
    start, are_constant = varying_like(run.inputs, (run.state, are_constant))
    params_in_loop = with_float32_gradients(cell.params)

    def map_part(part: Run) -> tuple[None, PyTree]:
        return None, transition.map_of_steps(params_in_loop(), part)

    run = run.replace(state=start, steps=steps).with_stand_in()
    if plan.part is None:
        _, found = map_part(run)
    else:
        _, found = checkpointed_run(plan.part, map_part, run, plan.names_on_host)
    return gaps.last(found, run), are_constant
