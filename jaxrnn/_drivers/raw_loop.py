"""`raw_rnn`'s loop: in Python if `finished` is concrete, otherwise compiled."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from .._base.arguments import check_given
from .._base.math import concrete_or_none
from .._base.sharding import as_varying_as
from .._base.typing import Array, PyTree
from .._tensor_array.carried import of_rows, with_capacity_for, with_known_shapes
from .._tensor_array.loop_writes import LoopWrites
from .._tensor_array.tensor_array import TensorArray
from ..memory._strategy import CheckpointPlan, Strategy, plan_of
from .bounded_loop import bounded_loop

Carry = tuple[Array, PyTree, PyTree, PyTree]
"""`(finished, next_input, state, loop_state)`."""
Step = Callable[[Array, Carry], tuple[Carry, PyTree]]
"""`step(t, carry) -> (carry, emit)`, at time t."""


class Limit(NamedTuple):
    """The maximum number of steps, and the argument that sets this maximum.

    Attributes:
        name: The argument, for messages.
        steps: The maximum number of steps, which may be symbolic; None for no limit.
    """

    name: str
    steps: Any


def run_until_finished(
    step: Step,
    carry: Carry,
    emit_types: PyTree,
    limit: Limit,
    strategy: Strategy,
    first_write: int = 0,
) -> tuple[PyTree, Carry]:
    """Runs `step` until all rows are finished; returns `(emit_ta, carry)`.

    Args:
        step: The body of the loop.
        carry: The carry before the step at time 0.
        emit_types: The shape and dtype of each leaf that a step emits.
        limit: The maximum number of steps.
        strategy: The memory strategy, which selects what a compiled loop saves for
            derivatives.
        first_write: The index at which the first step may write to an empty
            TensorArray in the carry.

    Raises:
        ValueError: If a loop that emits values must be compiled, but has no limit.
    """
    first_carry = carry = as_varying_as(carry, carry)
    t, emits = 0, []
    while t != limit.steps:
        finished = concrete_or_none(_all_finished(carry))
        if finished is None and limit.steps is None:
            return emit_types, _unbounded(step, first_carry, emit_types, limit)
        if finished is None:
            carry = with_capacity_for(first_carry, limit.steps, first_write)
            return _bounded(step, carry, limit, plan_of(strategy, limit.steps))
        if finished:
            break
        carry, emit = step(jnp.asarray(t, jnp.int32), carry)
        emits.append(emit)
        t += 1

    def stacked(emitted: jax.ShapeDtypeStruct, *emits: Array) -> TensorArray:
        no_emits = jnp.zeros((0, *emitted.shape), emitted.dtype)
        return of_rows(jnp.stack(emits) if emits else no_emits, np.int32(t))

    return jax.tree.map(stacked, emit_types, *emits), carry


def _bounded(
    step: Step, carry: Carry, limit: Limit, plan: CheckpointPlan
) -> tuple[PyTree, Carry]:
    """Runs the loop as one compiled operation."""
    after = lambda: jax.eval_shape(step, jnp.int32(0), carry)[0]
    carry = with_known_shapes(carry, after)
    arrays = LoopWrites.find(step, carry, limit.steps)
    count, carry, (emits, writes) = bounded_loop(
        _is_running, arrays.emitting(step), arrays.without(carry), limit.steps, plan
    )
    carry = arrays.filled(carry, count, writes)
    reached = f"{limit.name} {limit.steps} was reached"
    checkify.debug_check(_all_finished(carry), reached)
    return jax.tree.map(lambda emits: of_rows(emits, count), emits), carry


def _unbounded(step: Step, carry: Carry, emit_types: PyTree, limit: Limit) -> Carry:
    """Runs a compiled loop without emitted values or a limit; lacks reverse mode."""
    if jax.tree.leaves(emit_types):
        fix = "It limits the number of steps, and thus the size of the results."
        check_given(limit.name, None, fix, "given under jit and vmap")

    def body(loop: tuple[Array, Carry]) -> tuple[Array, Carry]:
        t, carry = loop
        return t + 1, step(t, carry)[0]

    first = (jnp.zeros((), jnp.int32), carry)
    return jax.lax.while_loop(lambda loop: _is_running(*loop), body, first)[1]


def _all_finished(carry: Carry) -> Array:
    finished, *_ = carry
    return jnp.all(finished)


def _is_running(t: Array, carry: Carry) -> Array:
    del t
    return ~_all_finished(carry)
