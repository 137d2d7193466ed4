"""Runs a `MappedOutput`: the loop of its cell, then the output map at all steps."""

import functools

import jax

from ..._base.typing import Params, PyTree
from ..._cells.wrappers.base import MappedOutput
from ..._run.loops import Loops, register
from ..._run.run import Choice, Loop, Run


def choose(cell: MappedOutput, params: Params, run: Run) -> Choice:
    """Chooses the loop of the wrapped cell."""
    choice = cell.cell.choose_loop(params, run)
    return choice.within(functools.partial(_run_all, cell))


def _run_all(
    cell: MappedOutput, loop: Loop, params: Params, run: Run
) -> tuple[PyTree, PyTree]:
    """Runs the wrapped cell, then maps its outputs at all steps."""
    axis = run.steps.axis

    def map_outputs(outputs: PyTree) -> PyTree:
        # In finished rows, map the values of the first step. The cell outputs zeros
        # there, for which the derivative of the function may be infinite.
        both = run.inputs, outputs
        both = run.of_inner(both, run.state).steps.fill_finished(both)
        mapped = jax.vmap(cell.map_output, axis, axis)(*both)
        return run.steps.zero_finished(mapped)

    outputs, state = loop(params, run)
    return run.steps.map_outputs(map_outputs, outputs), state


register(MappedOutput, Loops(choose))
