"""`run_cell`: runs a cell over checked sequences, in one compiled loop.

A driver, such as `dynamic_rnn`, checks its arguments (`Given`). `prepared` makes the
`Run` of the loop, in four steps; `choose` chooses the loop; `results_of` runs it.
"""

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from .._base import cell_keys, trees
from .._base.cell_keys import cell_at_step
from .._base.derivatives import closure_converted, with_float32_gradients
from .._base.errors import expect
from .._base.math import batch_maximum, is_traced
from .._base.mesh import explicit_mesh_of
from .._base.sharding import as_rows_of, lay_out
from .._base.trees import (
    has_read_only,
    with_read_only,
    with_tuples_of,
    without_read_only,
)
from .._base.typing import Array, Key, PyTree, RNNCellLike, bound_or_none
from . import masking
from .arguments import (
    as_reset_state,
    as_results,
    check_has_rows,
    check_implementation,
    check_rows_of_state,
    fix_of_rows,
    fix_of_zeros,
)
from .first_step import call_start, probe, rows_interact, zero_state
from .given import Given
from .masking import Steps
from .memory import CheckpointPlan
from .reorder import Gaps, ValidSteps, resets_of_valid_steps
from .run import Choice, Run
from .scans import Apply, checkpointed_run, scan_steps
from .tensor_array.carried import with_capacity_for

_log = logging.getLogger("jaxrnn")

Results: TypeAlias = tuple[PyTree, PyTree, PyTree]
"""`(outputs, state, states)`; `states` is None unless `Given.returns_states`."""


def run_cell(cell: RNNCellLike, given: Given) -> Results:
    """Runs `cell` over all steps; returns `(outputs, state, states)`.

    `states` has no read-only parts.

    Outside of jit, equal cells that cannot change share a compiled function. For other
    cells, JAX compiles the loop in every call, because its body is a new closure.
    """
    bound = bound_or_none(cell)
    if bound:
        bound.cell._check_values(given.inputs)
    if given.time != 1:  # Only loops over several steps depend on the number.
        given = given.replace(vmap_size=_vmap_size(jax.tree.leaves(given.inputs)[0]))
    return (_compiled if bound and bound.shares_programs else _run_cell)(cell, given)


def _run_cell(cell: RNNCellLike, given: Given) -> Results:
    cell, run, gaps = prepared(cell, given)
    choice = choose(cell, run, given.plan)
    return results_of(cell, run, choice, gaps, given)


_compiled = jax.jit(_run_cell)


def _vmap_size(x: Array) -> int:
    """The product of the sizes of all axes over which `vmap` maps `x`.

    `vmap` calls the rule of a `custom_vmap` with these sizes. A `vmap` around `jit`,
    `checkpoint` or a scan is not counted, because it maps their bodies later.

    Without the product, single rows that are mapped would count as one row. On two CPU
    cores, the forward pass of 32 such rows would take 202 instead of 117 ms (MinGRU,
    128 units, 2048 steps). The gradient of 16 rows would take 369 instead of 221
    microseconds (LSTM in XLA's loop, 64 units, 8 steps).
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


def prepared(cell: RNNCellLike, given: Given) -> tuple[RNNCellLike, Run, Gaps]:
    """The cell and the run for its loop, and what a mask adds to the results.

    `run.state` has the read-only parts of the state.

    Raises:
        ValueError: If one step of the cell does not fit the inputs and the state, or if
            a leaf has no batch axis but `given.needs_rows`.
        TypeError: If the step changes the dtypes of the state.
    """
    run, gaps = without_gaps(cell, given)
    run = with_all_states(cell, run, given)
    cell, run = laid_out(cell, run, given.least_steps)
    return cell, with_checked_step(cell, run, given), gaps


def without_gaps(cell: RNNCellLike, given: Given) -> tuple[Run, Gaps]:
    """The run with lengths in place of a mask, and what the mask adds to its results.

    The valid steps move to the front of each row, so that lengths describe them. A
    reset at a masked step moves to the next valid step. If the rows of the cell
    interact, step t of all rows must run at the same time. Then nothing moves, the run
    keeps the mask, and the length of a row is the number of steps up to its last valid
    step or reset.
    """
    inputs, lengths, time, axis = given.inputs, given.lengths, given.time, given.axis
    mask, resets, moved, pending = given.mask, given.resets, None, None
    if time == 0:  # No step is masked, and no row is reset.
        mask = resets = None
    if mask is not None:
        inputs = _only_rows_sharded(inputs, (cell, given.state), 1 - axis)
        # Here, the mask and the resets are `[batch, time]`.
        of_rows = given.to_batch_major((mask, resets))
        mask, resets = as_rows_of(inputs, of_rows, 1 - axis)
        if rows_interact(cell):
            changes_state = mask if resets is None else mask | resets
            ends = jnp.arange(time, dtype=jnp.int32) + 1
            lengths = jnp.max(jnp.where(changes_state, ends, 0), axis=1, initial=0)
        else:
            if resets is not None:
                resets, pending = resets_of_valid_steps(resets, mask)
            if lengths is None:
                moved = ValidSteps.of(mask)
                inputs = moved.to_front(inputs, axis)
                resets = moved.to_front(resets, 1)
                lengths = moved.lengths
            mask = None
        mask, resets, pending = given.from_batch_major((mask, resets, pending))
    steps = Steps(
        lengths=lengths,
        mask=mask,
        resets=resets,
        time=time,
        axis=axis,
        returns_states=given.returns_states,
        rows_interact=rows_interact(cell),
    )
    run = Run(inputs, given.state, steps, given.reset_state)
    run = run.replace(implementation=given.implementation, vmap_size=given.vmap_size)
    return run, Gaps(moved, pending)


def with_all_states(cell: RNNCellLike, run: Run, given: Given) -> Run:
    """The run with states of zeros where the user passed none, in the cell's tuples.

    The cell reads its own named tuples. `results_of` returns the user's.
    """
    time, rows, bound = given.time, given.rows, bound_or_none(cell)

    def zeros() -> PyTree:
        return with_capacity_for(zero_state(cell, rows, given.dtype), time)

    state = zeros() if run.state is None else run.state
    reset_state, to_zeros = None, False
    if run.steps.resets is not None:
        fix = fix_of_rows(cell, state, rows, time)
        check_rows_of_state(state, rows, "or be a scalar", fix)
        user = with_capacity_for(run.reset_state, time)
        reset_state = without_read_only(as_reset_state(user, zeros, state))
        to_zeros = bool(user is None and bound and bound.cell.starts_from_zeros)
    strict = run.steps.lengths is not None
    state, reset_state = (
        with_tuples_of(cell.state_size, x, strict=strict) for x in (state, reset_state)
    )
    steps = dataclasses.replace(run.steps, resets_to_zeros=to_zeros)
    return run.replace(state=state, reset_state=reset_state, steps=steps)


def laid_out(cell: RNNCellLike, run: Run, least_steps: int) -> tuple[RNNCellLike, Run]:
    """The cell and the run, with all rows divided over devices like the inputs'."""
    steps, axis = run.steps, run.steps.axis
    inputs = _only_rows_sharded(run.inputs, (cell, steps.lengths, run.state), 1 - axis)
    first_inputs = masking.first_inputs(inputs, axis)
    arrays = run.state, steps.to_batch_major(steps.resets), run.reset_state
    cell, lengths, arrays = lay_out(cell, first_inputs, steps.lengths, arrays)
    state, resets, reset_state = arrays
    steps_to_run = None
    if lengths is not None:
        steps_to_run = batch_maximum(jnp.max(lengths, initial=least_steps))
    if lengths is not None and resets is not None:  # Drop resets past a row's length.
        resets &= jnp.arange(steps.time, dtype=jnp.int32)[None] < lengths[:, None]
    steps = dataclasses.replace(
        steps,
        lengths=lengths,
        steps_to_run=steps_to_run,
        resets=steps.from_batch_major(resets),
    )
    run = run.replace(inputs=inputs, state=state, reset_state=reset_state, steps=steps)
    return cell, run


def with_checked_step(cell: RNNCellLike, run: Run, given: Given) -> Run:
    """Checks one step, and gives the state the form that a loop can carry."""
    first_inputs = masking.first_inputs(run.inputs, run.steps.axis)
    fix = fix_of_zeros(first_inputs, given.dtype)
    if given.state is not None:
        fix = fix_of_rows(cell, run.state, given.rows, given.time)
    strict = run.steps.lengths is not None
    state = call_start(cell, run.state)
    state = probe(cell, first_inputs, state, given.dtype, strict, fix)
    if given.needs_rows:
        check_has_rows(without_read_only(state))
    return run.replace(state=state)


def choose(cell: object, run: Run, plan: CheckpointPlan) -> Choice:
    """Chooses the loop that runs the cell, and logs the choice.

    Args:
        cell: The cell.
        run: The run; only types are read.
        plan: The size of the parts, which the loop runs one after another.

    Raises:
        ValueError: If the requested implementation cannot run the cell.
        TypeError: If the cell's `choose_loop` returns something else.
    """
    steps, asked = run.steps, run.implementation
    sizes = jax.tree.leaves(run.inputs)[0].shape[:2]
    if any(isinstance(size, int) and not size for size in sizes):
        return Choice.scan("there are no rows or no steps")
    bound: Any = bound_or_none(cell)
    if asked == "scan":
        choice = Choice.scan("`implementation` is 'scan'")
    elif sizes[steps.axis] == 1 and asked in (None, "xla"):
        choice = Choice("step")
    elif bound is None:
        choice = Choice.scan("the cell has no loop of its own")
    elif steps.rows_interact:
        choice = Choice.scan("the rows of the cell interact")
    elif has_read_only(run.state):
        choice = Choice.scan("the state of the cell has read-only parts")
    else:
        if plan.part is not None and isinstance(steps.time, int):
            time = min(steps.time, plan.part)
            steps = dataclasses.replace(steps, time=time)
        one_part = run.replace(steps=steps, key_at=_key_at(bound, steps))
        choice = bound.cell.choose_loop(bound.params, one_part)
        must = "return a `jaxrnn.extend.Choice`, such as `Choice.scan(reason)`"
        expect(isinstance(choice, Choice), "choose_loop", must, choice, error=TypeError)
    check_implementation(asked, choice)
    name = type(bound.cell if bound else cell).__name__
    because = f", because {choice.reason}" if choice.reason else ""
    _log.debug("%s runs in the loop %r%s", name, choice.name, because)
    return choice


def results_of(
    cell: RNNCellLike, run: Run, choice: Choice, gaps: Gaps, given: Given
) -> Results:
    """Runs the chosen loop; returns its results for the steps of the user's rows."""
    cell_in_loop, apply = _in_loop(cell, run)
    run = run.replace(state=without_read_only(run.state)).with_stand_in()
    reset_state_in_loop = with_float32_gradients(run.reset_state)

    def run_part(part: Run) -> tuple[PyTree, PyTree]:
        part = part.replace(reset_state=reset_state_in_loop())
        if choice.loop is None:
            return scan_steps(apply, part, given.unroll)
        bound: Any = cell_in_loop()
        part = part.replace(key_at=_key_at(bound, part.steps))
        results = choice.loop(bound.params, part)
        return as_results(cell, part, given.dtype, results)

    plan, steps = given.plan, run.steps
    if plan.part is None:
        outputs, last = run_part(run)
    else:
        part, on_host = plan.part, plan.names_on_host
        outputs, last = checkpointed_run(part, run_part, run, on_host)
    outputs, states = outputs if steps.returns_states else (outputs, None)
    # Without lengths, a cell may return a list although its `output_size` is a tuple.
    outputs = gaps.outputs(trees.with_structure(cell.output_size, outputs), run)
    states = None if states is None else gaps.states(states, last, run)
    last = gaps.last(last, run)
    if given.state is not None:
        last = with_tuples_of(given.state, last, strict=False)
        states = with_tuples_of(given.state, states, strict=False)
    return outputs, with_read_only(last, given.state), states


def _in_loop(cell: Any, run: Run) -> tuple[Callable[[], Any], Apply]:
    """The cell and its step, for the body of a loop.

    The gradients of the arrays that all steps share are summed in float32. If the cell
    is not a pytree, its arrays are found by tracing one step.
    """
    if trees.is_pytree_of_arrays(cell):
        cell_in_loop = with_float32_gradients(cell)
        step = lambda t, *args: cell_at_step(cell_in_loop(), t)(*args)
    else:
        first_inputs = masking.first_inputs(run.inputs, run.steps.axis)
        call = lambda t, *args: cell_at_step(cell, t)(*args)
        pure, arrays, *_ = closure_converted(
            call, jnp.int32(0), first_inputs, run.state
        )
        arrays_in_loop = with_float32_gradients(arrays)
        cell_in_loop = lambda: cell
        step = lambda *args: pure(arrays_in_loop(), *args)
    state_in_loop = with_float32_gradients(run.state)

    def apply(t: Array, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        output, new_state = step(t, inputs, with_read_only(state, state_in_loop()))
        return output, without_read_only(new_state)

    return cell_in_loop, apply


def _key_at(bound: Any, steps: Steps) -> Callable[[Array], Key] | None:
    """A function that returns the random key of each step; None without a key."""
    if bound.key is None:
        return None
    return lambda t: cell_keys.at_step(bound.key, steps.index_in_run(t))


def _only_rows_sharded(xs: PyTree, beside: PyTree, batch_axis: int) -> PyTree:
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

    # If some of the inputs are replicated, divide their rows like those of the others.
    specs = [jax.typeof(x).sharding.spec for x in jax.tree.leaves(xs)]
    rows = next(filter(None, (spec[batch_axis] for spec in specs)), None)

    def put(name: str, x: Array) -> Array:
        spec = jax.typeof(x).sharding.spec
        fix = (
            f"It is sharded as {spec}. Only `dynamic_rnn` divides time. To explain its "
            "run, pass the types of the steps of one device, without a sharding. For "
            "other functions, shard the rows, with `jax.sharding.reshard`."
        )
        is_undivided = spec[1 - batch_axis] is None
        expect(is_undivided, name, "not be sharded along time", x, fix)
        spec = PartitionSpec(*[None] * batch_axis, rows)
        return jax.sharding.reshard(x, NamedSharding(mesh, spec))

    return trees.map_named("inputs", put, xs)
