"""Whole sequences of a cell that is products followed by elementwise updates.

A scan that JAX differentiates saves every gate of every step, and adds to the gradient
of each kernel at every step. Here the forward loop saves only the products z and the
states; the backward loop does the sequential work, that is the elementwise updates and
the product with the recurrent part of a kernel; and the gradients of kernels and inputs
are computed for many steps at once, in large products.

The tangent of the run is one linear function with a custom transpose, so that it can be
pushed forward, batched and differentiated again.
"""

import functools
from typing import Any, final

import jax

from .._base.typing import Array, Params, PyTree
from .._time.steps import Steps
from .backward import run_backward
from .forward import ForwardLoop, push_forward
from .loop_rule import LoopRule, Primals, Residuals, run_loop
from .on_mesh import run_on_mesh
from .phases import Phases, run_sorted, sorting_pays
from .row_groups import by_row_groups


@final
class XlaLoop(LoopRule):
    """The loops of one cell as XLA compiles them; of each step they save `(zs, state)`.

    The others are tested against this rule, and this rule against the scan.
    """

    def __init__(self, cell: Any) -> None:
        self.cell = cell

    def forward(
        self, primals: Primals, phases: Phases, save: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """`(outputs, state, saved)`; see `LoopRule`."""
        return ForwardLoop(self.cell, primals, phases, save).run()

    def tangent(self, residuals: Residuals, tangents: Primals) -> tuple[PyTree, PyTree]:
        """The tangents of `(outputs, state)`; see `LoopRule`."""
        return push_forward(self.cell, residuals, tangents)

    def transpose(self, residuals: Residuals, cotangents: tuple) -> Primals:
        """The cotangents of the primals; see `LoopRule`."""
        return by_row_groups(
            functools.partial(run_backward, self.cell), residuals, cotangents
        )


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
    return run_on_mesh(run_here, cell, params, xs, state, steps)


def run_here(
    cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
) -> tuple[PyTree, PyTree]:
    """`affine_sequence` by XLA's loop, of the rows and units that a device has."""
    run = functools.partial(run_loop, XlaLoop(cell), params)
    multiplications = sum(leaf.size for leaf in jax.tree.leaves(params))
    if sorting_pays(steps, xs, multiplications):
        return run_sorted(run, xs, state, steps)
    return run(xs, state, Phases(steps))
