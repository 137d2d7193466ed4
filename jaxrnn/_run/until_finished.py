"""The loop of `raw_rnn` and of decoders, which ends when all rows are finished.

If `finished` is concrete, the loop is a Python loop. Otherwise, the loop is compiled.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._base.errors import expect
from .._base.math import concrete_or_none
from .._base.mesh import varying_like
from .._base.typing import Array, AxisSize, PyTree
from .bounded_loop import Step, bounded_loop
from .memory import Strategy, plan_of
from .tensor_array.carried import LoopWrites, as_loop_carry, of_elements
from .tensor_array.tensor_array import TensorArray


class Carry(NamedTuple):
    """The values that each step reads and replaces."""

    finished: Array
    next_input: PyTree
    state: PyTree
    loop_state: PyTree


def run_until_finished(
    step: Step,
    carry: Carry,
    emit_types: PyTree,
    max_time: AxisSize | None,
    strategy: Strategy,
    first_write: int = 0,
    limit_name: str = "max_time",
) -> tuple[PyTree, Carry]:
    """Runs `step` until all rows are finished; returns `(emit_ta, carry)`.

    Args:
        step: The body of the loop, `step(t, carry) -> (carry, emit)`, at time t.
        carry: The carry before the step at time 0.
        emit_types: The shape and dtype of each leaf that a step emits.
        max_time: The maximum number of steps, which may be symbolic. If None, there is
            no limit.
        strategy: The memory strategy, which selects the arrays that a compiled loop
            saves for derivatives.
        first_write: The index at which the first step may write to an empty
            TensorArray in the carry.
        limit_name: The argument that sets the maximum number of steps, for messages.

    Raises:
        ValueError: If a loop that emits values must be compiled, but has no limit.
    """
    first_carry = varying_like(carry, carry)
    carry = first_carry
    emits = []
    while len(emits) != max_time:
        finished = concrete_or_none(jnp.all(carry.finished))
        if finished is None and max_time is None:
            must = "be given to emit values under jit or vmap"
            fix = f"Pass `{limit_name}`, the largest number of steps."
            expect(not jax.tree.leaves(emit_types), limit_name, must, None, fix)
            return emit_types, _unbounded(step, first_carry)
        if finished is None:
            # Start again at step 0, so that one compiled loop fills the whole buffer.
            carry = as_loop_carry(step, first_carry, max_time, first_write)
            return _bounded(step, carry, max_time, strategy)
        if finished:
            break
        carry, emit = step(jnp.asarray(len(emits), jnp.int32), carry)
        emits.append(emit)

    def stacked(emitted: jax.ShapeDtypeStruct, *rows: Array) -> TensorArray:
        no_rows = jnp.zeros((0, *emitted.shape), emitted.dtype)
        return of_elements(jnp.stack(rows) if rows else no_rows, np.int32(len(rows)))

    return jax.tree.map(stacked, emit_types, *emits), carry


def _unbounded(step: Step, carry: Carry) -> Carry:
    """Runs a compiled loop that emits nothing and has no limit of steps.

    JAX cannot differentiate this loop in reverse mode.
    """

    def body(position: tuple[Array, Carry]) -> tuple[Array, Carry]:
        t, carry = position
        return t + 1, step(t, carry)[0]

    first = jnp.zeros((), jnp.int32), carry
    return jax.lax.while_loop(lambda p: ~jnp.all(p[1].finished), body, first)[1]


def _bounded(
    step: Step, carry: Carry, max_time: AxisSize, strategy: Strategy
) -> tuple[PyTree, Carry]:
    """Runs a compiled loop with a limit; returns `(emit_ta, carry)`."""
    written = LoopWrites.find(step, carry, max_time)
    count, last, (emits, writes) = bounded_loop(
        is_running=lambda carry: ~jnp.all(carry.finished),
        step=written.emitting(step),
        carry=written.without(carry),
        max_steps=max_time,
        plan=plan_of(strategy, max_time),
    )
    emit_ta = jax.tree.map(lambda rows: of_elements(rows, count), emits)
    return emit_ta, written.filled(last, count, writes)
