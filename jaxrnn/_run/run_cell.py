"""`run_cell`: runs a cell over checked sequences, in one compiled loop.

A function such as `dynamic_rnn` checks its arguments and passes them as a `Given`.
`prepared` makes the `Run` of the loop, `choose` chooses the loop, and `results_of` runs
the loop.
"""

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from .._base import trees
from .._base.cell_keys import cell_at_step
from .._base.derivatives import closure_converted, with_float32_gradients
from .._base.errors import expect
from .._base.math import is_traced
from .._base.trees import (
    has_read_only,
    with_read_only,
    with_tuples_of,
    without_read_only,
)
from .._base.typing import Array, PyTree, RNNCellLike, bound_or_none
from . import masking
from .arguments import as_results, check_implementation
from .given import Given
from .memory import CheckpointPlan
from .prepare import prepared
from .reorder import Gaps
from .run import Choice, Run
from .scans import Apply, checkpointed_run, scan_steps

_log = logging.getLogger("jaxrnn")

Results: TypeAlias = tuple[PyTree, PyTree, PyTree]
"""`(outputs, state, states)`; `states` is None unless `Given.returns_states`."""


def run_cell(cell: RNNCellLike, given: Given) -> Results:
    """Runs `cell` over all steps; returns `(outputs, state, states)`.

    `states` has no read-only parts, such as an attention memory.

    Outside of jit, equal cells that cannot change share a compiled function. For other
    cells, JAX compiles the loop in every call, because its body is a new closure.
    """
    bound = bound_or_none(cell)
    if bound:
        bound.cell._check_values(given.inputs)
    if given.time != 1:  # Only a loop over several steps reads `vmap_size`.
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

    Loops depend on the number of rows. Without the product, a `vmap` over single rows
    would count as one row. On two CPU cores, the forward pass of 32 such rows would
    take 202 instead of 117 ms (MinGRU, 128 units, 2048 steps). The gradient of 16 such
    rows would take 369 instead of 221 microseconds (LSTM in XLA's loop, 64 units, 8
    steps).
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


def choose(cell: object, run: Run, plan: CheckpointPlan) -> Choice:
    """Chooses the loop that runs the cell, and logs the choice.

    Args:
        cell: The cell.
        run: The run; only types are read.
        plan: The checkpoint plan. If it has parts, such as 64 steps, the loop runs one
            part at a time, so the loop is chosen for the length of a part.

    Raises:
        ValueError: If the requested implementation cannot run the cell.
        TypeError: If the cell's `choose_loop` does not return a `Choice`.
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
        choice = Choice.scan("the state has read-only parts, such as attention memory")
    else:
        if plan.part is not None and isinstance(steps.time, int):
            time = min(steps.time, plan.part)
            steps = dataclasses.replace(steps, time=time)
        choice = bound.cell.choose_loop(bound.params, run.replace(steps=steps))
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
    """Runs the chosen loop; returns its results with steps in the user's order."""
    cell_in_loop, apply = _in_loop(cell, run)
    run = run.replace(state=without_read_only(run.state))

    def run_part(part: Run) -> tuple[PyTree, PyTree]:
        if choice.loop is None:
            return scan_steps(apply, part, given.unroll)
        results = choice.loop(cell_in_loop().params, part)
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
    """Returns the cell and its step, for the body of a loop.

    All steps share the arrays of the cell, and their gradients are summed in float32.
    If the cell is not a pytree, its arrays are found by tracing one step.
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
