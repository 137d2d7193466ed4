"""Whole sequences of a cell that is products followed by elementwise updates.

A loop that JAX differentiates by itself keeps every gate of every step, and adds to the
gradient of each kernel at every step. Here the loop forward keeps the results z of the
products and the states, no more; the loop backward does what has to be done in turn,
the elementwise work and the product with the recurrent part of a kernel; and the
gradients of kernels and inputs are made of many steps at once, in large products.

The tangent of the run is one linear function that brings its own transpose, so that it
can be pushed forward, batched and differentiated again.
"""

import dataclasses
import functools
from typing import Any

import jax

from .._autodiff.differentiable import differentiable
from .._autodiff.transposable import dense, transposable
from .._base.typing import Array, Params, PyTree
from .._time.steps import Steps
from .phases import by_length, may_sort
from .xla_loop import Rule


def affine_sequence(
    cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps, history: bool
) -> tuple[PyTree, PyTree]:
    """`cell` over all steps: `(outputs, state)`, as a scan of `cell.apply` gives them.

    Args:
        cell: An `AffineCell`, whose functions close over no traced arrays.
        params: Its parameters.
        xs: Inputs, time along `steps.axis`.
        state: The initial state.
        steps: Which steps there are.
        history: Whether the outputs are pairs of output and new state.
    """
    if steps.kernel is not None:
        rule = steps.kernel.rule(cell, history)
        rule.check(params, xs, state, steps)
        run = functools.partial(_run, rule)
        return rule.around(run, params, xs, state, steps)
    run = functools.partial(_run, Rule(cell, history), params)
    multiplications = sum(leaf.size for leaf in jax.tree.leaves(params))
    if may_sort(steps, xs.shape[1 - steps.axis], multiplications):
        return by_length(run, xs, state, steps)
    return run(xs, state, steps)


def _run(
    rule: Rule, params: Params, xs: Array, state: PyTree, steps: Steps
) -> tuple[PyTree, PyTree]:
    def plainly(lin: Any, steps: Steps) -> tuple[PyTree, PyTree]:
        emits, state, _ = rule.run(lin, steps, record=False)
        return emits, state

    def push_forward(primals: Any, tangents: Any) -> tuple[Any, Any]:
        lin, steps = primals
        emits, state, record = rule.run(lin, steps, record=True)
        res, moving = (lin, steps, record), dense(tangents[0])
        moved = transposable(rule.push_forward, rule.pull_back, res, moving)
        return (emits, state), moved

    fresh, steps = steps.fresh, dataclasses.replace(steps, fresh=None)
    lin = params, xs, state, fresh
    return differentiable(plainly, push_forward, lin, steps)
