"""Runs a `ComposedCell`, such as a stack, with the loops of its inner cells."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ..._base.typing import Params, PyTree
from ..._cells.composed import ComposedCell
from ..._run.loops import Loops, register
from ..._run.run import Choice, Loop, Run


def choose(cell: ComposedCell, params: Params, run: Run) -> Choice:
    """Chooses a loop for each inner cell; a scan if one of them is scanned."""
    choices: list[Choice] = []

    def choose_all(params: Params, inputs: PyTree, state: PyTree) -> PyTree:
        inner_cells = iter(cell.inner_cells)
        states = _inner_states(cell, run.replace(state=state))
        key = run.key_at(jnp.int32(0))  # Some cells raise an error without a key.

        def run_next(params: Params, inputs: PyTree, number: Any = None) -> PyTree:
            inner_cell = next(inner_cells)
            inner = run.of_inner(inputs, **next(states))
            choices.append(inner_cell.choose_loop(params, inner))
            step = lambda x: inner_cell.apply(params, x, inner.state, key)[0]
            return jax.vmap(step, run.steps.axis, run.steps.axis)(inputs)

        return cell.compose(run_next, params, inputs)

    jax.eval_shape(choose_all, params, run.inputs, run.state)
    loops = [choice.loop for choice in choices if choice.loop]
    if len(loops) < len(choices):
        return next(choice for choice in choices if not choice.loop)
    names = dict.fromkeys(choice.name for choice in choices)
    reasons = dict.fromkeys(c.reason for c in choices if c.reason)
    run_all = functools.partial(_run_all, cell, loops)
    return Choice(" and ".join(names), run_all, "; ".join(reasons))


def _inner_states(cell: ComposedCell, run: Run) -> Iterator[dict[str, PyTree]]:
    """The fields `state` and `reset_state` of the `Run` of each inner cell."""
    resets = [] if run.reset_state is None else cell.split_state(run.reset_state)
    pairs = itertools.zip_longest(cell.split_state(run.state), resets)
    return ({"state": state, "reset_state": reset} for state, reset in pairs)


def _run_all(
    cell: ComposedCell, loops: list[Loop], params: Params, run: Run
) -> tuple[PyTree, PyTree]:
    """Runs all steps of each inner cell in its loop."""
    steps = run.steps
    inner_loops, inner_states = iter(loops), _inner_states(cell, run)
    last_states = []
    all_states = []

    def run_next(params: Params, inputs: PyTree, number: int | None = None) -> PyTree:
        inner = run.of_inner(inputs, **next(inner_states))
        if number is not None:
            inner = inner.map_keys(lambda key: jax.random.fold_in(key, number))
        outputs, last_state = next(inner_loops)(params, inner)
        if steps.returns_states:
            outputs, states = outputs
            all_states.append(states)
        last_states.append(last_state)
        return outputs

    inputs = steps.zero_finished(run.inputs) if cell.maps_inputs else run.inputs
    outputs = cell.compose(run_next, params, inputs)
    outputs = steps.zero_finished(outputs) if cell.maps_outputs else outputs
    if steps.returns_states:
        outputs = outputs, cell.join_states(all_states)
    return outputs, cell.join_states(last_states)


register(ComposedCell, Loops(choose))
