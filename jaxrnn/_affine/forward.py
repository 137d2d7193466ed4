"""The loops forward over the steps of an affine cell, of its values and tangents."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._autodiff.bounded_loop import time_loop
from .._base.math import dot, widest_dtype
from .._base.sharding import buffers_for
from .._base.typing import Array, Params, PyTree
from .._time.steps import Steps
from .loop_rule import Primals, Residuals
from .phases import Phase, Phases
from .products import plain_product, product_of_inputs

# Up to so many rows in a step, and in all steps, the products of the inputs are
# computed ahead of the loop.
FEW_ROWS, MANY_STEPS = 8, 4096


def masked_step(
    cell: Any, product: Callable, steps: Steps, t: Array, primals: Primals
) -> tuple[tuple[PyTree, PyTree], tuple[list, list]]:
    """`((output, new_state), (zs, operands))` of step t.

    The output is a pair `(output, new_state)` itself if the steps have restarts.

    Args:
        cell: An `AffineCell`.
        product: What computes its products, as `AffineCell.chain` takes it.
        steps: The steps, without the states to restart from.
        t: The step, an int32 scalar.
        primals: The arguments of the step: inputs `[batch, depth]`, the state before
            it, each leaf `[batch, size]`.
    """
    params, inputs, state, restart_states = primals
    steps = steps.with_restart_states(restart_states)
    arguments = steps.step_inputs(t, inputs, state)
    output, new_state, zs, operands = cell.chain(product, params, *arguments)
    new_state, output = steps.mask_step(t, state, new_state, output)
    output = output if steps.restarts is None else (output, new_state)
    return (output, new_state), (zs, operands)


class ForwardLoop:
    """The loop over all phases, which saves `(zs, state)` of each step if `save`.

    It carries the state, the inputs of the next step if rows are few, and buffers for
    the outputs and the residuals of all steps.
    """

    def __init__(self, cell: Any, primals: Primals, phases: Phases, save: bool) -> None:
        self.cell, self.save, self.product = cell, save, plain_product
        self.few_rows = _has_few_rows(primals.xs, phases.steps)
        if self.few_rows:
            self.product, primals, phases = _hoisted(cell, primals, phases)
        self.primals, self.phases = primals, phases

    def run(self) -> tuple[PyTree, PyTree, PyTree]:
        """`(outputs, state, saved)` of all steps."""
        state, steps, start = self.primals.state, self.phases.steps, jnp.int32(0)
        inputs = steps.read(self.primals.xs, start)
        _, *types = jax.eval_shape(self.step, steps, start, inputs, state)
        buffers = buffers_for(self.primals, types, steps.time, steps.axis)
        for phase in self.phases.loops():
            state, buffers = self.run_phase(phase, state, buffers)
        outputs, saved = buffers
        return outputs, state, saved

    def run_phase(
        self, phase: Phase, state: PyTree, buffers: list
    ) -> tuple[PyTree, list]:
        """`(state, buffers)` after a phase."""
        read = functools.partial(phase.read, self.primals.xs)

        def body(i: Array, carry: Any) -> Any:
            (state, ahead, *buffers), t = carry, phase.begin + i
            inputs = ahead if self.few_rows else read(t)
            state, *results = self.step(phase.steps, t, inputs, state)
            # XLA's CPU compiler makes slow code of elementwise work that reads from the
            # middle of an array: such inputs are read a step ahead.
            ahead = read(t + 1) if self.few_rows else ()
            return state, ahead, *phase.steps.write(buffers, t, results)

        ahead = read(phase.begin) if self.few_rows else ()
        carry = phase.take(state), ahead, *buffers
        rows, _, *buffers = time_loop(phase.count, phase.steps.time, body, carry)
        return phase.put(state, rows), buffers

    def step(
        self, steps: Steps, t: Array, inputs: Any, state: PyTree
    ) -> tuple[PyTree, PyTree, PyTree]:
        """`(new_state, output, saved)` of step t."""
        primals = self.primals._replace(xs=inputs, state=state)
        results = masked_step(self.cell, self.product, steps, t, primals)
        (output, new_state), (zs, _) = results
        return new_state, output, (zs, state) if self.save else ()


def _has_few_rows(xs: Array, steps: Steps) -> bool:
    """Whether the products are so small that the work around them counts."""
    rows = xs.shape[1 - steps.axis]
    return (
        isinstance(rows, int) and rows <= FEW_ROWS and rows * steps.time <= MANY_STEPS
    )


def _hoisted(
    cell: Any, primals: Primals, phases: Phases
) -> tuple[Callable, Primals, Phases]:
    """`(product, primals, phases)` with the inputs' products in place of the inputs.

    They are computed for all steps at once, `[batch, time, columns]` for each stage.
    Measured on a CPU this gains up to a third where there are few rows, and loses as
    much where there are many.
    """
    params, xs, state, _ = primals
    steps, dtype = phases.steps, widest_dtype(state)
    products = cell.product_params(params, xs.shape[-1])
    of_inputs = lambda inputs: [product_of_inputs(p, inputs, dtype) for p in products]

    def product(
        k: int, stage: Any, params: Params, inputs: list, operand: Array, dtype: Any
    ) -> Array:
        if inputs[k] is None:
            return stage.product(params, inputs, operand, dtype)
        return inputs[k] + dot(operand, products[k]["state"], dtype)

    if steps.stand_in is not None:
        inputs, state = steps.stand_in
        steps = dataclasses.replace(steps, stand_in=(of_inputs(inputs), state))
    primals = primals._replace(xs=of_inputs(steps.zero_dead(xs)))
    return product, primals, dataclasses.replace(phases, steps=steps)


def push_forward(
    cell: Any, residuals: Residuals, tangents: Primals
) -> tuple[PyTree, PyTree]:
    """The tangents of `(outputs, state)`; reads the states that `ForwardLoop` saved.

    The loops carry the tangent of the state and a buffer for those of the outputs.
    """
    primals, phases, (_, states) = residuals

    def run_step(steps: Steps, t: Array, primals: Primals) -> tuple[PyTree, PyTree]:
        return masked_step(cell, plain_product, steps, t, primals)[0]

    def run_phase(phase: Phase, d_state: PyTree, d_outputs: PyTree) -> tuple:
        def body(i: Array, carry: Any) -> Any:
            (d_state, d_outputs), t = carry, phase.begin + i
            inputs, state, d_inputs = phase.read((primals.xs, states, tangents.xs), t)
            here = primals._replace(xs=inputs, state=state)
            d_here = tangents._replace(xs=d_inputs, state=d_state)
            step = functools.partial(run_step, phase.steps, t)
            _, (d_output, d_state) = jax.jvp(step, (here,), (d_here,))
            return d_state, phase.steps.write(d_outputs, t, d_output)

        carry = phase.take(d_state), d_outputs
        rows, d_outputs = time_loop(phase.count, phase.steps.time, body, carry)
        return phase.put(d_state, rows), d_outputs

    steps, start, d_state = phases.steps, jnp.int32(0), tangents.state
    first = primals._replace(xs=steps.read(primals.xs, start))
    types, _ = jax.eval_shape(functools.partial(run_step, steps, start), first)
    d_outputs = buffers_for((residuals, tangents), types, steps.time, steps.axis)
    for phase in phases.loops():
        d_state, d_outputs = run_phase(phase, d_state, d_outputs)
    return d_outputs, d_state
