"""A bounded loop that saves what a plan says for its backward pass."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._autodiff.bounded_loop import Step, bounded_loop
from .._base.typing import Array, PyTree
from ._strategy import CheckpointPlan


def segmented_loop(
    plan: CheckpointPlan, running: Callable, step: Step, carry: PyTree, limit: int
) -> tuple[Array, PyTree, PyTree]:
    """As `bounded_loop`, as nested loops, each of which saves its initial carry.

    The backward pass of a bounded loop recomputes each step from the carry before it:
    for a plan that saves all residuals, these carries are all there is to save.
    """
    if plan.save_residuals or not plan.segments:
        return bounded_loop(running, step, carry, limit, plan.on_host)

    def goes_on(_: Array, state: Any) -> Array:
        time, carry = state
        return (time < limit) & running(time, carry)

    def one_step(_: Array, state: Any) -> tuple[Any, PyTree]:
        time, carry = state
        carry, y = step(time, carry)
        return (time + 1, carry), y

    body, steps = one_step, 1
    for size in reversed(plan.segments):
        count = -(-min(size, limit) // steps)
        body, steps = _loop_of(goes_on, body, count), steps * count
    start, count = (jnp.zeros((), jnp.int32), carry), -(-limit // steps)
    _, (time, carry), ys = bounded_loop(goes_on, body, start, count, plan.on_host)
    flat = lambda y: y.reshape(-1, *y.shape[len(plan.segments) + 1 :])[:limit]
    return time, carry, jax.tree.map(flat, ys)


def _loop_of(goes_on: Callable, body: Callable, count: int) -> Callable:
    """A step that is a loop of steps."""

    def loop(_: Array, state: Any) -> tuple[Any, PyTree]:
        return bounded_loop(goes_on, body, state, count)[1:]

    return loop
