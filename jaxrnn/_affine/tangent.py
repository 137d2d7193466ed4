"""The loop that pushes tangents forward through the steps of an affine cell."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from .._autodiff.bounded_loop import time_loop
from .._base.sharding import buffers_for
from .._base.typing import Array, PyTree
from .._time.steps import Steps
from .loop_rule import Primals, Residuals
from .phases import Phase
from .products import plain_product
from .step import masked_step


class TangentLoop:
    """The loop over all phases, which reads the saved states of the forward loop.

    It carries the tangent of the state and a buffer for the tangents of the outputs.
    """

    def __init__(self, cell: Any, residuals: Residuals, tangents: Primals) -> None:
        self.cell, self.tangents = cell, tangents
        self.primals, self.phases, (_, self.states) = residuals
        self.varying = residuals, tangents

    def run(self) -> tuple[PyTree, PyTree]:
        """The tangents of `(outputs, state)`."""
        steps, start = self.phases.steps, jnp.int32(0)
        primals = self.primals._replace(xs=steps.read(self.primals.xs, start))
        types, _ = jax.eval_shape(functools.partial(self.step, steps, start), primals)
        d_outputs = buffers_for(self.varying, types, steps.time, steps.axis)
        d_state = self.tangents.state
        for phase in self.phases.loops():
            d_state, d_outputs = self.run_phase(phase, d_state, d_outputs)
        return d_outputs, d_state

    def run_phase(
        self, phase: Phase, d_state: PyTree, d_outputs: PyTree
    ) -> tuple[PyTree, PyTree]:
        """`(d_state, d_outputs)` after a phase."""
        sequences = self.primals.xs, self.states, self.tangents.xs

        def body(i: Array, carry: Any) -> Any:
            (d_state, d_outputs), t = carry, phase.begin + i
            inputs, state, d_inputs = phase.read(sequences, t)
            primals = self.primals._replace(xs=inputs, state=state)
            tangents = self.tangents._replace(xs=d_inputs, state=d_state)
            step = functools.partial(self.step, phase.steps, t)
            _, (d_output, d_state) = jax.jvp(step, (primals,), (tangents,))
            return d_state, phase.steps.write(d_outputs, t, d_output)

        carry = phase.take(d_state), d_outputs
        rows, d_outputs = time_loop(phase.count, phase.steps.time, body, carry)
        return phase.put(d_state, rows), d_outputs

    def step(self, steps: Steps, t: Array, primals: Primals) -> tuple[PyTree, PyTree]:
        """`(output, new_state)` of step t."""
        return masked_step(self.cell, plain_product, steps, t, primals)[0]
