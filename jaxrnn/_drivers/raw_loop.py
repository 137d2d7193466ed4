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
from .._tensor_array.carried import (
    LoopWrites,
    of_rows,
    with_capacity_for,
    with_known_shapes,
)
from .._tensor_array.tensor_array import TensorArray
from ..memory import CheckpointPlan, Strategy, plan_of
from .bounded_loop import bounded_loop


class Carry(NamedTuple):
    """The values that a step reads, and that the next step reads anew."""

    finished: Array
    next_input: PyTree
    state: PyTree
    loop_state: PyTree


Step = Callable[[Array, Carry], tuple[Carry, PyTree]]
"""`step(t, carry) -> (carry, emit)`, at time t."""


def run_until_finished(
    step: Step,
    carry: Carry,
    emit_types: PyTree,
    max_time: Any,
    strategy: Strategy,
    first_write: int = 0,
    limit_name: str = "max_time",
) -> tuple[PyTree, Carry]:
    """Runs `step` until all rows are finished; returns `(emit_ta, carry)`.

    Args:
        step: The body of the loop.
        carry: The carry before the step at time 0.
        emit_types: The shape and dtype of each leaf that a step emits.
        max_time: The maximum number of steps, which may be symbolic; None for no limit.
        strategy: The memory strategy, which selects what a compiled loop saves for
            derivatives.
        first_write: The index at which the first step may write to an empty
            TensorArray in the carry.
        limit_name: The argument that sets the maximum number of steps, for messages.

    Raises:
        ValueError: If a loop that emits values must be compiled, but has no limit.
    """
    first_carry = as_varying_as(carry, carry)
    carry = first_carry
    emits = []
    while len(emits) != max_time:
        finished = concrete_or_none(jnp.all(carry.finished))
        if finished is None and max_time is None:
            _check_emits_nothing(emit_types, limit_name)
            return emit_types, _unbounded(step, first_carry)
        if finished is None:
            carry = with_capacity_for(first_carry, max_time, first_write)
            plan = plan_of(strategy, max_time)
            emit_ta, carry = _bounded(step, carry, max_time, plan)
            reached = f"{limit_name} {max_time} was reached"
            checkify.debug_check(jnp.all(carry.finished), reached)
            return emit_ta, carry
        if finished:
            break
        carry, emit = step(jnp.asarray(len(emits), jnp.int32), carry)
        emits.append(emit)

    def stacked(emitted: jax.ShapeDtypeStruct, *rows: Array) -> TensorArray:
        no_rows = jnp.zeros((0, *emitted.shape), emitted.dtype)
        return of_rows(jnp.stack(rows) if rows else no_rows, np.int32(len(rows)))

    return jax.tree.map(stacked, emit_types, *emits), carry


def _bounded(
    step: Step, carry: Carry, max_time: Any, plan: CheckpointPlan
) -> tuple[PyTree, Carry]:
    """Runs the loop as one compiled operation; returns `(emit_ta, carry)`."""

    def carry_after() -> Carry:
        return jax.eval_shape(step, jnp.int32(0), carry)[0]

    carry = with_known_shapes(carry, carry_after)
    arrays = LoopWrites.find(step, carry, max_time)
    count, last, (emits, writes) = bounded_loop(
        is_running=_is_running,
        step=arrays.emitting(step),
        carry=arrays.without(carry),
        max_steps=max_time,
        plan=plan,
    )
    emit_ta = jax.tree.map(lambda rows: of_rows(rows, count), emits)
    return emit_ta, arrays.filled(last, count, writes)


def _unbounded(step: Step, carry: Carry) -> Carry:
    """Runs a compiled loop that emits nothing and has no limit; lacks reverse mode."""

    def is_running(loop: tuple[Array, Carry]) -> Array:
        t, carry = loop
        return _is_running(t, carry)

    def body(loop: tuple[Array, Carry]) -> tuple[Array, Carry]:
        t, carry = loop
        carry, _ = step(t, carry)
        return t + 1, carry

    _, last = jax.lax.while_loop(is_running, body, (jnp.zeros((), jnp.int32), carry))
    return last


def _check_emits_nothing(emit_types: PyTree, limit_name: str) -> None:
    if jax.tree.leaves(emit_types):
        fix = "It limits the number of steps, and thus the size of the results."
        check_given(limit_name, None, fix, "given under jit and vmap")


def _is_running(t: Array, carry: Carry) -> Array:
    del t
    return ~jnp.all(carry.finished)
