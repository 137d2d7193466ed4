"""The forward loops over the steps of an affine cell, for values and for tangents."""

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

# The products of the inputs are computed ahead of the loop for batches of at most so
# many rows, and at most so many rows over all steps.
MAX_ROWS, MAX_ROWS_OVER_TIME = 8, 4096


def masked_step(
    cell: Any, product: Callable, steps: Steps, t: Array, primals: Primals
) -> tuple[tuple[PyTree, PyTree], tuple[list, list]]:
    """`((output, new_state), (zs, operands))` of step t.

    If the steps have restarts, the output is itself a pair `(output, new_state)`.

    Args:
        cell: An `AffineCell`.
        product: What computes its products; see `AffineCell.chain`.
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
    """The loop over all phases; it saves `(zs, state)` of each step if `save` is True.

    It carries the state, the inputs of the next step if there are few rows, and buffers
    for the outputs and the residuals of all steps.
    """

    def __init__(self, cell: Any, primals: Primals, phases: Phases, save: bool) -> None:
        self.cell, self.save, self.product = cell, save, plain_product
        self.few_rows = _has_few_rows(primals.xs, phases.steps)
        if self.few_rows:
            self.product, primals, phases = _with_input_products(cell, primals, phases)
        self.primals, self.phases = primals, phases

    def run(self) -> tuple[PyTree, PyTree, PyTree]:
        """`(outputs, state, saved)` of all steps."""
        state, steps, start = self.primals.state, self.phases.steps, jnp.int32(0)
        inputs = steps.read(self.primals.xs, start)
        _, *types = jax.eval_shape(self.step, steps, start, inputs, state)
        buffers = buffers_for(self.primals, types, steps.time, steps.axis)
        for phase in self.phases.in_order():
            state, buffers = self.run_phase(phase, state, buffers)
        outputs, saved = buffers
        return outputs, state, saved

    def run_phase(
        self, phase: Phase, state: PyTree, buffers: list
    ) -> tuple[PyTree, list]:
        """`(state, buffers)` after a phase."""
        read = functools.partial(phase.read, self.primals.xs)

        def body(i: Array, carry: Any) -> Any:
            (state, next_inputs, *buffers), t = carry, phase.start + i
            inputs = next_inputs if self.few_rows else read(t)
            state, *results = self.step(phase.steps, t, inputs, state)
            # XLA's CPU compiler generates slow code for elementwise work that reads
            # from the middle of an array: such inputs are read a step ahead.
            next_inputs = read(t + 1) if self.few_rows else ()
            return state, next_inputs, *phase.steps.write(buffers, t, results)

        next_inputs = read(phase.start) if self.few_rows else ()
        carry = phase.take(state), next_inputs, *buffers
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
    """Whether the products are so small that the overhead of each dominates."""
    rows = xs.shape[1 - steps.axis]
    if not isinstance(rows, int):
        return False
    return rows <= MAX_ROWS and rows * steps.time <= MAX_ROWS_OVER_TIME


def _with_input_products(
    cell: Any, primals: Primals, phases: Phases
) -> tuple[Callable, Primals, Phases]:
    """`(product, primals, phases)` with the inputs' products in place of the inputs.

    They are computed for all steps at once, `[batch, time, columns]` for each stage. On
    a CPU this was measured to save up to a third of the time where there are few rows,
    and to cost as much where there are many.
    """
    params, xs, state, _ = primals
    steps, dtype = phases.steps, widest_dtype(state)
    product_params = cell.product_params(params, xs.shape[-1])
    input_products = lambda inputs: [
        product_of_inputs(p, inputs, dtype) for p in product_params
    ]

    def product(
        k: int, stage: Any, params: Params, inputs: list, operand: Array, dtype: Any
    ) -> Array:
        if inputs[k] is None:
            return stage.product(params, inputs, operand, dtype)
        return inputs[k] + dot(operand, product_params[k]["state"], dtype)

    if steps.stand_in is not None:
        inputs, state = steps.stand_in
        steps = dataclasses.replace(steps, stand_in=(input_products(inputs), state))
    primals = primals._replace(xs=input_products(steps.zero_dead(xs)))
    return product, primals, dataclasses.replace(phases, steps=steps)


def push_forward(
    cell: Any, residuals: Residuals, tangents: Primals
) -> tuple[PyTree, PyTree]:
    """The tangents of `(outputs, state)`, from the states that `ForwardLoop` saved.

    The loops carry the tangent of the state and a buffer for those of the outputs.
    """
    primals, phases, (_, states) = residuals

    def run_step(steps: Steps, t: Array, primals: Primals) -> tuple[PyTree, PyTree]:
        return masked_step(cell, plain_product, steps, t, primals)[0]

    def run_phase(phase: Phase, d_state: PyTree, d_outputs: PyTree) -> tuple:
        def body(i: Array, carry: Any) -> Any:
            (d_state, d_outputs), t = carry, phase.start + i
            inputs, state, d_inputs = phase.read((primals.xs, states, tangents.xs), t)
            step_primals = primals._replace(xs=inputs, state=state)
            step_tangents = tangents._replace(xs=d_inputs, state=d_state)
            step = functools.partial(run_step, phase.steps, t)
            _, (d_output, d_state) = jax.jvp(step, (step_primals,), (step_tangents,))
            return d_state, phase.steps.write(d_outputs, t, d_output)

        carry = phase.take(d_state), d_outputs
        rows, d_outputs = time_loop(phase.count, phase.steps.time, body, carry)
        return phase.put(d_state, rows), d_outputs

    steps, start, d_state = phases.steps, jnp.int32(0), tangents.state
    first = primals._replace(xs=steps.read(primals.xs, start))
    types, _ = jax.eval_shape(functools.partial(run_step, steps, start), first)
    d_outputs = buffers_for((residuals, tangents), types, steps.time, steps.axis)
    for phase in phases.in_order():
        d_state, d_outputs = run_phase(phase, d_state, d_outputs)
    return d_outputs, d_state
