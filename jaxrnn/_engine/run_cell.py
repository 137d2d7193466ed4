"""`run_cell`: runs a cell over checked sequences, in one compiled loop.

A driver, such as `dynamic_rnn`, checks its arguments and makes a `Run` and `Options`.
`prepared` completes the run and chooses its loop, which runs the segments of the run.
"""

import dataclasses
import logging
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from .._base import trees
from .._base.cell_keys import cell_at_step
from .._base.errors import counted, expect
from .._base.inputs import check_rows_of_state
from .._base.sharding import as_rows_of, explicit_mesh_of, lay_out
from .._base.trees import has_read_only, with_read_only, without_read_only
from .._base.typing import Array, DType, PyTree, RNNCellLike, bound_or_none
from .._loops import masking
from .._loops.scans import (
    Apply,
    closed_over,
    scan_steps,
    segmented_run,
    summed_in_float32,
)
from .._loops.steps import Choice, Run, Steps, batch_maximum
from .._tensor_array.carried import with_capacity_for
from ..memory import CheckpointPlan
from .first_step import (
    as_reset_state,
    call_start,
    fix_of_rows,
    probe,
    rows_interact,
    zero_state,
)

_log = logging.getLogger("jaxrnn")

_SAVE_EVERYTHING = CheckpointPlan()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a run that do not depend on its arrays.

    Attributes:
        dtype: The dtype of the zero state and of the outputs.
        plan: What the forward pass saves for the backward pass.
        unroll: The number of steps unrolled in each iteration of a scan.
        needs_rows: Whether each leaf of the state must have a batch axis: with a mask,
            even if it was converted to lengths, and if the states are returned.
    """

    dtype: DType
    plan: CheckpointPlan = _SAVE_EVERYTHING
    unroll: int = 1
    needs_rows: bool = False


class ReadyRun(NamedTuple):
    """A run that is ready for its loop.

    Attributes:
        cell: The cell, laid out over devices.
        state: The initial state with its read-only parts, which every step reads.
        run: All steps; `run.steps` lacks the values that `Steps.with_stand_in` adds.
        choice: The loop.
        valid: The positions of the valid steps, which were moved to the front of each
            row; None if no steps were moved.
    """

    cell: RNNCellLike
    state: PyTree
    run: Run
    choice: Choice
    valid: masking.ValidSteps | None


def run_cell(
    cell: RNNCellLike, run: Run, options: Options
) -> tuple[PyTree, PyTree, PyTree]:
    """Runs `cell` over all steps of a run; returns `(outputs, state, states)`.

    `states` is None unless `run.steps.returns_states`, and has no read-only parts.

    Outside of jit, equal cells that cannot change share a compiled function. For other
    cells, JAX compiles the loop in every call, because its body is a new closure.

    Args:
        cell: The cell.
        run: All steps. The state is None for the zero state, as are the states of
            resets. `steps.mask` may have gaps.
        options: The options.
    """
    bound = bound_or_none(cell)
    version = bound and bound.version
    run_all = _run_prepared if version is None else _compiled
    return run_all(cell, run, options, version)


def _run_prepared(
    cell: RNNCellLike, run: Run, options: Options, version: Hashable
) -> tuple[PyTree, PyTree, PyTree]:
    del version  # Of the compiled function.
    return run_ready(prepared(cell, run, options), run.state, options)


_compiled = jax.jit(_run_prepared, static_argnames=("options", "version"))


def run_ready(
    ready: ReadyRun, given: PyTree, options: Options
) -> tuple[PyTree, PyTree, PyTree]:
    """Runs what `prepared` returned for the initial state `given`."""
    outputs, last = run_segments(ready, options)
    steps = ready.run.steps
    states = None
    if steps.returns_states:
        outputs, states = outputs
    # Without lengths, a cell may return a list although its `output_size` is a tuple.
    # Convert such a list.
    outputs = trees.with_structure(ready.cell.output_size, outputs)
    if ready.valid is not None:
        outputs = ready.valid.to_places(outputs, steps.axis)
    if states is not None and ready.valid is not None:
        states = ready.valid.states(states, ready.run.state, steps.axis)
    elif states is not None:
        states = steps.keep_last(states, last)
    return outputs, with_read_only(last, given), states


def prepared(cell: RNNCellLike, run: Run, options: Options) -> ReadyRun:
    """Completes and checks the run, lays it out over devices, and chooses its loop.

    Raises:
        ValueError: If one step of the cell does not fit the inputs and the state, if a
            leaf has no batch axis but the options require a batch axis, or if the
            requested implementation cannot run the cell.
        TypeError: If the step changes the dtypes of the state.
    """
    if run.steps.time == 0:
        # A run without steps has no masked steps and no resets.
        run = run.replace(
            steps=dataclasses.replace(run.steps, mask=None, restarts=None)
        )
    valid = None
    if run.steps.mask is not None:
        run, valid = _without_gaps(cell, run)
    cell, run = _laid_out(cell, _with_states(cell, run, options))
    state = call_start(cell, run.state)
    first_inputs = masking.first_inputs(run.inputs, run.steps.axis)
    strict = run.steps.lengths is not None
    state = probe(cell, first_inputs, state, options.dtype, strict, run.steps.time)
    run = run.replace(state=without_read_only(state))
    if options.needs_rows:
        _check_has_rows(run.state)
    choice = _choose(cell, state, _with_steps_of_segment(run, options.plan))
    return ReadyRun(cell, state, run, choice, valid)


def _with_steps_of_segment(run: Run, plan: CheckpointPlan) -> Run:
    """The run with the number of steps that its loop runs at once."""
    steps = run.steps
    if not plan.segments or not isinstance(steps.time, int):
        return run
    time = min(steps.time, *plan.segments)
    return run.replace(steps=dataclasses.replace(steps, time=time))


def _choose(cell: Any, state: PyTree, run: Run) -> Choice:
    """Chooses the loop that runs the cell, and logs the choice.

    Args:
        cell: The cell.
        state: The initial state, with its read-only parts.
        run: The sequences; only types are read.
    """
    sizes = jax.tree.leaves(run.inputs)[0].shape[:2]
    if any(isinstance(size, int) and not size for size in sizes):
        return Choice.scan("there are no rows or no steps")
    if sizes[run.steps.axis] == 1 and run.implementation in (None, "xla"):
        choice = Choice("step")
    elif bound_or_none(cell) is None:
        choice = Choice.scan("the cell has no loop of its own")
    elif run.steps.rows_interact:
        choice = Choice.scan("the rows of the cell interact")
    elif has_read_only(state):
        choice = Choice.scan("the state of the cell has read-only parts")
    else:
        choice = cell.choose_loop(run)
    choice.check(run)
    bound = bound_or_none(cell)
    name = type(bound.cell if bound else cell).__name__
    because = f", because {choice.reason}" if choice.reason else ""
    _log.debug("%s runs in the loop %r%s", name, choice.name, because)
    return choice


def _without_gaps(cell: RNNCellLike, run: Run) -> tuple[Run, masking.ValidSteps | None]:
    """Returns a run with lengths, and the positions of its steps if they were moved.

    The valid steps are moved to the front of each row. If the rows of the cell
    interact, step t of all rows must run at the same time, so no step is moved, and the
    length of a row is the number of steps up to its last valid step.
    """
    steps = run.steps
    axis = steps.axis
    inputs = _whole_features(run.inputs, (cell, run.state), 1 - axis)
    restarts = steps.restarts
    where = restarts and restarts.where
    mask, where = as_rows_of(inputs, steps.swap_rows((steps.mask, where)), 1 - axis)
    if where is not None:
        where = masking.delay_resets(where, mask)
    valid = None
    if rows_interact(cell):
        ends = jnp.arange(mask.shape[1], dtype=jnp.int32) + 1
        lengths = jnp.max(jnp.where(mask, ends, 0), axis=1, initial=0)
        mask = steps.swap_rows(mask)
    else:
        valid = masking.ValidSteps.of(mask)
        inputs = valid.to_front(inputs, axis)
        where = valid.to_front(where, 1)
        lengths = valid.lengths
        mask = None
    if restarts is not None:
        restarts = dataclasses.replace(restarts, where=steps.swap_rows(where))
    steps = dataclasses.replace(steps, lengths=lengths, mask=mask, restarts=restarts)
    return run.replace(inputs=inputs, steps=steps), valid


def _with_states(cell: RNNCellLike, run: Run, options: Options) -> Run:
    """Fills in the states that are zeros by default: the initial state and resets."""
    steps = run.steps
    rows = jax.tree.leaves(run.inputs)[0].shape[1 - steps.axis]

    def zeros() -> PyTree:
        state = zero_state(cell, rows, options.dtype)
        return with_capacity_for(state, steps.time)

    state = zeros() if run.state is None else run.state
    bound = bound_or_none(cell)
    restarts = steps.restarts
    if restarts is not None and restarts.are_resets:
        must = f"have {counted(rows, 'row')} or be a scalar"
        fix = fix_of_rows(cell, state, rows, steps.time)
        check_rows_of_state(state, rows, must, fix)
        given = with_capacity_for(restarts.states, steps.time)
        states = as_reset_state(given, zeros, state)
        restarts = dataclasses.replace(
            restarts,
            states=without_read_only(states),
            are_zeros=bool(given is None and bound and bound.starts_from_zeros),
        )
    return run.replace(state=state, steps=dataclasses.replace(steps, restarts=restarts))


def _laid_out(cell: RNNCellLike, run: Run) -> tuple[RNNCellLike, Run]:
    """Lays out the cell and the run over devices like the rows of the inputs.

    Resets past a row's length are dropped.
    """
    steps = run.steps
    axis = steps.axis
    inputs = _whole_features(run.inputs, (cell, steps.lengths, run.state), 1 - axis)
    restarts = steps.restarts
    resets = None
    if restarts is not None and restarts.are_resets:
        resets = steps.swap_rows(restarts.where), restarts.states
    first_inputs = masking.first_inputs(inputs, axis)
    arrays = run.state, resets
    cell, lengths, (state, resets) = lay_out(cell, first_inputs, steps.lengths, arrays)
    steps_to_run = None
    if lengths is not None:
        # TensorFlow's loop runs at least one step.
        steps_to_run = batch_maximum(jnp.max(lengths, initial=1))
    if restarts is not None and resets is not None:
        where, states = resets
        if lengths is not None:
            ts = jnp.arange(steps.time, dtype=jnp.int32)
            where &= ts[None, :] < lengths[:, None]
        where = steps.swap_rows(where)
        restarts = dataclasses.replace(restarts, where=where, states=states)
    steps = dataclasses.replace(
        steps,
        lengths=lengths,
        steps_to_run=steps_to_run,
        restarts=restarts,
        rows_interact=rows_interact(cell),
    )
    return cell, run.replace(inputs=inputs, state=state, steps=steps)


def _whole_features(xs: PyTree, beside: PyTree, batch_axis: int) -> PyTree:
    """Gathers the features of the inputs on each device of an explicit mesh.

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

    def put(name: str, x: Array) -> Array:
        spec = jax.typeof(x).sharding.spec
        fix = (
            f"It is sharded as {spec}. Only `dynamic_rnn` divides time. To explain its "
            "run, pass the types of the steps of one device, without a sharding. For "
            "other functions, shard the rows, with `jax.sharding.reshard`."
        )
        is_whole = spec[1 - batch_axis] is None
        expect(is_whole, name, "not be sharded along time", x, fix)
        spec = PartitionSpec(*[None] * batch_axis, spec[batch_axis])
        return jax.sharding.reshard(x, NamedSharding(mesh, spec))

    return trees.map_named("inputs", put, xs)


def _check_has_rows(state: PyTree) -> None:
    """Raises ValueError if a leaf of the state has no batch axis.

    All rows share such a leaf, but each leaf of the returned `states` must have a batch
    axis. With a mask, the loop runs different steps of different rows at the same time,
    so a shared leaf has no value for a step of one row.
    """
    must = "be an array [batch, ...], with `mask` or `return_states`"
    fix = "Make it an output of the cell, or pass `sequence_length` instead of `mask`."
    for name, leaf in trees.named_leaves("state", state, trees.is_tensor_array):
        has_rows = not trees.is_tensor_array(leaf) and leaf.ndim > 0
        expect(has_rows, name, must, leaf, fix)


def run_segments(ready: ReadyRun, options: Options) -> tuple[PyTree, PyTree]:
    """Runs the cell over all steps; returns `(outputs, state)`."""
    run = ready.run
    cell_in_loop, step = _in_loop(ready)
    state_in_loop = summed_in_float32(ready.state)
    steps = run.steps.with_stand_in(run.inputs, run.state)
    restart_states = summed_in_float32(steps.restart_states)

    def apply(t: Array, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        state = with_read_only(state, state_in_loop())
        output, new_state = step(t, inputs, state)
        return output, without_read_only(new_state)

    def run_segment(
        inputs: PyTree, state: PyTree, steps: Steps
    ) -> tuple[PyTree, PyTree]:
        steps = steps.with_restart_states(restart_states())
        if ready.choice.loop is None:
            return scan_steps(apply, inputs, state, steps, options.unroll)
        segment = run.replace(inputs=inputs, state=state, steps=steps)
        outputs, last = cell_in_loop().run_in(ready.choice.loop, segment)
        return outputs, trees.with_structure(state, last)

    plan = options.plan
    return segmented_run(
        plan.segments, plan.names_on_host, run_segment, run.inputs, run.state, steps
    )


def _in_loop(ready: ReadyRun) -> tuple[Callable[[], Any], Apply]:
    """Returns a function that returns the cell, and a function that runs step t.

    A loop calls both functions in its body, so that gradients of the arrays that all
    steps share are summed in float32. If the cell is not a pytree, its arrays are found
    by tracing one step.
    """
    cell = ready.cell
    if trees.is_pytree_of_arrays(cell):
        cell_in_loop = summed_in_float32(cell)
        return cell_in_loop, lambda t, *args: cell_at_step(cell_in_loop(), t)(*args)
    first_inputs = masking.first_inputs(ready.run.inputs, ready.run.steps.axis)
    step, arrays, *_ = closed_over(
        lambda t, *args: cell_at_step(cell, t)(*args),
        jnp.int32(0),
        first_inputs,
        ready.state,
    )
    arrays_in_loop = summed_in_float32(arrays)
    return lambda: cell, lambda *args: step(arrays_in_loop(), *args)
