"""`run_cell`: runs a cell over checked sequences, in one compiled loop.

A driver, such as `dynamic_rnn`, checks its arguments and makes a `Run` and `Options`.
`prepared` completes the run and chooses its loop, which runs the parts of the run.
"""

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from .._base import cell_keys, trees
from .._base.cell_keys import cell_at_step
from .._base.derivatives import closed_over, summed_in_float32
from .._base.errors import expect
from .._base.inputs import check_rows_of_state
from .._base.math import batch_maximum, is_traced
from .._base.sharding import as_rows_of, explicit_mesh_of, lay_out
from .._base.trees import (
    has_read_only,
    with_read_only,
    with_tuples_of,
    without_read_only,
)
from .._base.typing import Array, DType, Key, PyTree, RNNCellLike, bound_or_none
from .._tensor_array.carried import with_capacity_for
from ..memory import CheckpointPlan
from . import masking, reorder
from .arguments import (
    as_reset_state,
    as_results,
    check_has_rows,
    check_implementation,
    fix_of_rows,
    fix_of_zeros,
)
from .first_step import call_start, probe, rows_interact, zero_state
from .masking import Steps
from .run import Choice, Run
from .scans import checkpointed_run, scan_steps

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
        least_steps: The number of steps that TensorFlow's loop runs even if all lengths
            are 0.
    """

    dtype: DType
    plan: CheckpointPlan = _SAVE_EVERYTHING
    unroll: int = 1
    needs_rows: bool = False
    least_steps: int = 1


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
    valid: reorder.ValidSteps | None


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
    if bound:
        bound.cell._check_values(run.inputs)
    run_all = _compiled if bound and bound.shares_programs else _run_prepared
    if run.steps.time != 1:  # Only loops over several steps depend on the number.
        run = run.replace(mapped=_times_mapped(jax.tree.leaves(run.inputs)[0]))
    return run_all(cell, run, options)


def _times_mapped(x: Array) -> int:
    """The product of the sizes of all axes over which `vmap` maps `x`.

    `vmap` calls the rule of a `custom_vmap` with these sizes. A `vmap` around `jit`,
    `checkpoint` or a scan is not counted, because it maps their bodies later.
    """
    sizes: list[int] = []
    mapped = jax.custom_batching.custom_vmap(lambda x: ())

    @mapped.def_vmap
    def rule(size: int, _: list[bool], x: Array) -> tuple[tuple, tuple]:
        sizes.append(size)
        return mapped(x), ()  # An outer `vmap` maps `x` too.

    if is_traced(x):
        mapped(jax.lax.stop_gradient(x))
    return math.prod(sizes)


def _run_prepared(
    cell: RNNCellLike, run: Run, options: Options
) -> tuple[PyTree, PyTree, PyTree]:
    return run_ready(prepared(cell, run, options), run.state, options)


_compiled = jax.jit(_run_prepared, static_argnames="options")


def prepared(cell: RNNCellLike, run: Run, options: Options) -> ReadyRun:
    """Completes and checks the run, lays it out over devices, and chooses its loop.

    Raises:
        ValueError: If one step of the cell does not fit the inputs and the state, if a
            leaf has no batch axis but the options require a batch axis, or if the
            requested implementation cannot run the cell.
        TypeError: If the step changes the dtypes of the state, or the cell's
            `choose_loop` returns something else.
    """
    steps = run.steps
    time, axis = steps.time, steps.axis
    rows = jax.tree.leaves(run.inputs)[0].shape[1 - axis]
    bound = bound_or_none(cell)
    mask, restarts = steps.mask, steps.restarts
    if time == 0:  # No step is masked, and no row restarts.
        mask = restarts = None

    # If there is a mask, move the valid steps to the front of each row, so that lengths
    # describe them. If the rows of the cell interact, step t of all rows must run at
    # the same time. Then no step moves, and the length of a row is the number of steps
    # up to its last valid step. Here, `mask` and `where`, which is true where a row
    # restarts, are `[batch, time]`.
    inputs, lengths, valid = run.inputs, steps.lengths, None
    where = steps.swap_rows(restarts)
    if mask is not None:
        inputs = _whole_features(inputs, (cell, run.state), 1 - axis)
        mask, where = as_rows_of(inputs, (steps.swap_rows(mask), where), 1 - axis)
        if where is not None:
            where = reorder.delay_resets(where, mask)
        if rows_interact(cell):
            ends = jnp.arange(time, dtype=jnp.int32) + 1
            lengths = jnp.max(jnp.where(mask, ends, 0), axis=1, initial=0)
            mask = steps.swap_rows(mask)
        else:
            valid = reorder.ValidSteps.of(mask)
            inputs = valid.to_front(inputs, axis)
            where = valid.to_front(where, 1)
            lengths, mask = valid.lengths, None

    # Fill in the states that are zeros by default.
    def zeros() -> PyTree:
        return with_capacity_for(zero_state(cell, rows, options.dtype), time)

    state = zeros() if run.state is None else run.state
    fix = fix_of_rows(cell, state, rows, time)
    restart_states, from_zeros = None, False
    if where is not None:
        check_rows_of_state(state, rows, "or be a scalar", fix)
        given = with_capacity_for(steps.restart_states, time)
        restart_states = without_read_only(as_reset_state(given, zeros, state))
        from_zeros = bool(given is None and bound and bound.cell.starts_from_zeros)
    # The cell reads its own named tuples. `run_ready` returns the user's.
    strict = lengths is not None
    state = with_tuples_of(cell.state_size, state, strict=strict)
    restart_states = with_tuples_of(cell.state_size, restart_states, strict=strict)

    # Lay out all arrays over devices like the rows of the inputs.
    inputs = _whole_features(inputs, (cell, lengths, state), 1 - axis)
    first_inputs = masking.first_inputs(inputs, axis)
    arrays = state, where, restart_states
    cell, lengths, arrays = lay_out(cell, first_inputs, lengths, arrays)
    state, where, restart_states = arrays
    steps_to_run = None
    if lengths is not None:
        steps_to_run = batch_maximum(jnp.max(lengths, initial=options.least_steps))
    if where is not None and lengths is not None:  # Drop restarts past a row's length.
        where &= jnp.arange(time, dtype=jnp.int32)[None] < lengths[:, None]

    # Check one step, and give the state the form that a loop can carry.
    state = call_start(cell, state)
    fix = fix_of_zeros(first_inputs, options.dtype) if run.state is None else fix
    state = probe(cell, first_inputs, state, options.dtype, strict, fix)
    own_state = without_read_only(state)
    if options.needs_rows:
        check_has_rows(own_state)
    steps = dataclasses.replace(
        steps,
        lengths=lengths,
        steps_to_run=steps_to_run,
        mask=mask,
        restarts=steps.swap_rows(where),
        restart_states=restart_states,
        restarts_from_zeros=from_zeros,
        rows_interact=rows_interact(cell),
    )
    run = run.replace(inputs=inputs, state=own_state, steps=steps)
    return ReadyRun(cell, state, run, _choose(cell, state, run, options.plan), valid)


def _choose(cell: object, state: PyTree, run: Run, plan: CheckpointPlan) -> Choice:
    """Chooses the loop that runs the cell, and logs the choice.

    Args:
        cell: The cell.
        state: The initial state, with its read-only parts.
        run: The sequences; only types are read.
        plan: The size of the parts, which the loop runs one after another.
    """
    steps = run.steps
    sizes = jax.tree.leaves(run.inputs)[0].shape[:2]
    if any(isinstance(size, int) and not size for size in sizes):
        return Choice.scan("there are no rows or no steps")
    bound: Any = bound_or_none(cell)
    if sizes[steps.axis] == 1 and run.implementation in (None, "xla"):
        choice = Choice("step")
    elif bound is None:
        choice = Choice.scan("the cell has no loop of its own")
    elif steps.rows_interact:
        choice = Choice.scan("the rows of the cell interact")
    elif has_read_only(state):
        choice = Choice.scan("the state of the cell has read-only parts")
    else:
        if plan.part is not None and isinstance(steps.time, int):
            time = min(steps.time, plan.part)
            steps = dataclasses.replace(steps, time=time)
        one_part = run.replace(steps=steps, keys=_keys(bound, steps))
        choice = bound.cell.choose_loop(bound.params, one_part)
        must = "return a `jaxrnn.extend.Choice`, such as `Choice.scan(reason)`"
        expect(isinstance(choice, Choice), "choose_loop", must, choice, error=TypeError)
    check_implementation(run.implementation, choice)
    name = type(bound.cell if bound else cell).__name__
    because = f", because {choice.reason}" if choice.reason else ""
    _log.debug("%s runs in the loop %r%s", name, choice.name, because)
    return choice


def run_ready(
    ready: ReadyRun, given: PyTree, options: Options
) -> tuple[PyTree, PyTree, PyTree]:
    """Runs what `prepared` returned for the initial state `given`."""
    cell, run, loop = ready.cell, ready.run, ready.choice.loop

    # A loop calls these functions in its body, so that the gradients of the arrays that
    # all steps share are summed in float32. If the cell is not a pytree, its arrays are
    # found by tracing one step.
    if trees.is_pytree_of_arrays(cell):
        cell_in_loop = summed_in_float32(cell)
        step = lambda t, *args: cell_at_step(cell_in_loop(), t)(*args)
    else:
        first_inputs = masking.first_inputs(run.inputs, run.steps.axis)
        call = lambda t, *args: cell_at_step(cell, t)(*args)
        pure, arrays, *_ = closed_over(call, jnp.int32(0), first_inputs, ready.state)
        arrays_in_loop = summed_in_float32(arrays)
        cell_in_loop = lambda: cell
        step = lambda *args: pure(arrays_in_loop(), *args)
    state_in_loop = summed_in_float32(ready.state)
    steps = run.steps.with_stand_in(run.inputs, run.state)
    restart_states = summed_in_float32(steps.restart_states)

    def apply(t: Array, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        output, new_state = step(t, inputs, with_read_only(state, state_in_loop()))
        return output, without_read_only(new_state)

    def run_part(inputs: PyTree, state: PyTree, steps: Steps) -> tuple[PyTree, PyTree]:
        steps = steps.with_restart_states(restart_states())
        if loop is None:
            return scan_steps(apply, inputs, state, steps, options.unroll)
        bound: Any = cell_in_loop()
        keys = _keys(bound, steps)
        part = run.replace(inputs=inputs, state=state, steps=steps, keys=keys)
        results = loop(bound.params, part)
        return as_results(cell, part, options.dtype, results)

    plan = options.plan
    outputs, last = checkpointed_run(
        plan.part, plan.names_on_host, run_part, run.inputs, run.state, steps
    )

    # Move the results to the steps of the user's rows. Without lengths, a cell may
    # return a list although its `output_size` is a tuple, so convert such a list.
    outputs, states = outputs if steps.returns_states else (outputs, None)
    outputs = trees.with_structure(cell.output_size, outputs)
    if ready.valid is not None:
        outputs = ready.valid.to_places(outputs, steps.axis)
    if states is not None and ready.valid is not None:
        states = ready.valid.states(states, run.state, steps.axis)
    elif states is not None:
        states = steps.fill_finished(states, last)
    if given is not None:
        last = with_tuples_of(given, last, strict=False)
        states = with_tuples_of(given, states, strict=False)
    return outputs, with_read_only(last, given), states


def _keys(bound: Any, steps: Steps) -> Callable[[Array], Key] | None:
    """A function that returns the random key of each step; None without a key."""
    if bound.key is None:
        return None
    return lambda t: cell_keys.at_step(bound.key, steps.index_in_run(t))


def _whole_features(xs: PyTree, beside: PyTree, batch_axis: int) -> PyTree:
    """Divides only the rows of the inputs over an explicit mesh, all in one way.

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

    # If some of the inputs are whole, divide their rows like those of the others.
    specs = [jax.typeof(x).sharding.spec for x in jax.tree.leaves(xs)]
    rows = next(filter(None, (spec[batch_axis] for spec in specs)), None)

    def put(name: str, x: Array) -> Array:
        spec = jax.typeof(x).sharding.spec
        fix = (
            f"It is sharded as {spec}. Only `dynamic_rnn` divides time. To explain its "
            "run, pass the types of the steps of one device, without a sharding. For "
            "other functions, shard the rows, with `jax.sharding.reshard`."
        )
        is_whole = spec[1 - batch_axis] is None
        expect(is_whole, name, "not be sharded along time", x, fix)
        spec = PartitionSpec(*[None] * batch_axis, rows)
        return jax.sharding.reshard(x, NamedSharding(mesh, spec))

    return trees.map_named("inputs", put, xs)
