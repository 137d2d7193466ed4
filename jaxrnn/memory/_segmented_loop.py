"""A bounded loop of which a derivative keeps what a strategy says."""

from collections.abc import Callable
from typing import Any

import jax

from .._autodiff.bounded_loop import Step, bounded_loop
from .._base.typing import Array, PyTree
from ._strategy import Record


def recorded_loop(
    record: Record, running: Callable, step: Step, carry: PyTree, limit: int
) -> tuple[Array, PyTree, PyTree]:
    """As `bounded_loop`, in loops of loops, each of which keeps where it started.

    A bounded loop makes each step again going back, from what the step started from: of
    a record that asks for all that the way back reads, that is what there is.
    """
    if record.whole or not record.windows:
        return bounded_loop(running, step, carry, limit, record.on_host)

    def goes_on(_: Array, state: Any) -> Array:
        time, carry = state
        return (time < limit) & running(time, carry)

    def one(_: Array, state: Any) -> tuple[Any, PyTree]:
        time, carry = state
        carry, y = step(time, carry)
        return (time + 1, carry), y

    body, taken = one, 1
    for size in reversed(record.windows):
        count = -(-min(size, limit) // taken)
        body, taken = _loop_of(goes_on, body, count), taken * count
    start = jax.numpy.zeros((), "int32"), carry
    count = -(-limit // taken)
    _, (time, carry), ys = bounded_loop(goes_on, body, start, count, record.on_host)
    flat = lambda y: y.reshape(-1, *y.shape[len(record.windows) + 1 :])[:limit]
    return time, carry, jax.tree.map(flat, ys)


def _loop_of(goes_on: Callable, body: Callable, count: int) -> Callable:
    """A step that is a loop of steps."""

    def loop(_: Array, state: Any) -> tuple[Any, PyTree]:
        return bounded_loop(goes_on, body, state, count)[1:]

    return loop
