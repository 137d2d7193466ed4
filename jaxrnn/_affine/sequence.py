"""Whole sequences of a cell that is products followed by elementwise updates.

A scan that JAX differentiates saves every gate of every step, and adds to the gradient
of each kernel at every step. Here the forward loop saves the products z and the states
alone; the backward loop does the sequential work, which is the elementwise updates and
the product with the recurrent part of a kernel; and the gradients of kernels and inputs
are computed for many steps at once, in large products.

The tangent of the run is one linear function that brings its own transpose, so that it
can be pushed forward, batched and differentiated again.
"""

import functools
from typing import Any

import jax

from .._base.typing import Array, Params, PyTree
from .._time.steps import Steps
from .loop_rule import run_loop
from .phases import Phases, by_length, may_sort
from .xla_loop import XlaLoop


def affine_sequence(
    cell: Any,
    params: Params,
    xs: Array,
    state: PyTree,
    steps: Steps,
    implementation: Any = None,
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of `cell` over all steps, equal to a scan of `cell.apply`.

    Args:
        cell: An `AffineCell`, whose functions close over no traced arrays.
        params: Its parameters.
        xs: Inputs, `[batch, time, depth]`, time along `steps.axis`.
        state: The initial state, each leaf `[batch, size]`.
        steps: Which steps there are. With restarts the outputs are pairs
            `(output, new_state)`.
        implementation: The `Implementation` that runs the loop; None for XLA.

    Raises:
        DeclinedError: If the implementation cannot run this.
    """
    if implementation is not None:
        return implementation.run_sequences(cell, params, xs, state, steps)
    run = functools.partial(run_loop, XlaLoop(cell), params)
    multiplications = sum(leaf.size for leaf in jax.tree.leaves(params))
    if may_sort(steps, xs.shape[1 - steps.axis], multiplications):
        return by_length(run, xs, state, steps)
    return run(xs, state, Phases(steps))
