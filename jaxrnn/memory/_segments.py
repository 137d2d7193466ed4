"""How a run of steps is divided into segments, and how these are visited in order.

`sizes` are the numbers of steps of a segment, of a segment within it, and so on. They
need not divide one another: the last segment has the remaining steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._autodiff.host import to_device, to_host
from .._base.typing import Array


class Segment(NamedTuple):
    """Consecutive steps.

    Attributes:
        start: The first step, an int32 scalar.
        size: The number of steps, static.
    """

    start: Array
    size: int


def innermost_sizes(sizes: tuple[int, ...], steps: int) -> set[int]:
    """The sizes of the innermost segments of a run.

    Args:
        sizes: How it is divided.
        steps: The number of its steps.
    """
    if not steps:
        return set()
    if not sizes:
        return {steps}
    size = min(sizes[0], steps)
    full, remainder = innermost_sizes(sizes[1:], size), steps % size
    return full | innermost_sizes(sizes[1:], remainder)


def visit_segments(
    visit: Callable[[Segment, Any, Any], tuple[Any, Any]],
    carry: Any,
    whole: Segment,
    size: int,
    saved: tuple[Any, Any] = ((), ()),
    reverse: bool = False,
) -> tuple[Any, tuple[Any, Any]]:
    """`carry, out = visit(segment, carry, saved)` over the segments of one level.

    Args:
        visit: Visits one segment.
        carry: What the first visit receives.
        whole: The steps that are divided.
        size: The number of steps in a segment.
        saved: What the visit of each segment receives: stacked for the segments of full
            size, and separately for the remainder.
        reverse: Whether to begin with the last segment.

    Returns:
        The last carry, and the results of the visits in the form of `saved`.
    """
    size = min(size, whole.size)
    count, remaining = divmod(whole.size, size)
    remainder = Segment(whole.start + count * size, remaining)
    stacked, last = saved

    def visit_full(carry: Any, scanned: Any) -> tuple[Any, Any]:
        i, saved = scanned
        return visit(Segment(whole.start + i * size, size), carry, saved)

    if remaining and reverse:
        carry, last = visit(remainder, carry, last)
    scanned = jnp.arange(count, dtype=jnp.int32), stacked
    carry, stacked = jax.lax.scan(visit_full, carry, scanned, reverse=reverse)
    if remaining and not reverse:
        carry, last = visit(remainder, carry, last)
    return carry, (stacked, last)


def visit_innermost(
    visit: Callable[[Segment, Any], Any],
    carry: Any,
    whole: Segment,
    sizes: tuple[int, ...],
) -> Any:
    """`carry = visit(segment, carry)` over the innermost segments."""
    if not sizes:
        return visit(whole, carry)

    def visit_outer(segment: Segment, carry: Any, _: Any) -> tuple[Any, tuple]:
        return visit_innermost(visit, carry, segment, sizes[1:]), ()

    return visit_segments(visit_outer, carry, whole, sizes[0])[0]


def visit_forward(
    run: Callable[[Segment, tuple], tuple[tuple, Any]],
    carry: tuple[Any, Any],
    whole: Segment,
    sizes: tuple[int, ...],
    on_host: bool = False,
) -> tuple[tuple, Any]:
    """The carry after all steps, and what is saved of each outermost segment.

    For a segment that is divided further, only the state before it is saved.

    Args:
        run: `carry, residuals = run(segment, carry)` of an innermost segment.
        carry: `(state, buffers)`, which the first segment receives.
        whole: The steps.
        sizes: How they are divided.
        on_host: Whether what is saved is stored in the memory of the host.
    """
    to_memory = to_host if on_host else lambda saved: saved

    def visit(segment: Segment, carry: tuple, _: Any) -> tuple[tuple, Any]:
        if len(sizes) == 1:
            carry, residuals = run(segment, carry)
            return carry, to_memory(residuals)
        state, _ = carry
        run_only = lambda segment, carry: run(segment, carry)[0]
        return visit_innermost(run_only, carry, segment, sizes[1:]), to_memory(state)

    return visit_segments(visit, carry, whole, sizes[0])


def visit_backward(
    run: Callable[[Segment, tuple], tuple[tuple, Any]],
    pull_back: Callable[[Segment, Any, Any], Any],
    carry: Any,
    saved: Any,
    whole: Segment,
    sizes: tuple[int, ...],
) -> Any:
    """`carry = pull_back(segment, carry, residuals)`, from the last innermost segment.

    A segment that is divided further is run forward again, from the state before it.

    Args:
        run: As for `visit_forward`; it receives None for buffers.
        pull_back: Visits an innermost segment.
        carry: What the last segment receives.
        saved: As `visit_forward` returns it.
        whole: The steps.
        sizes: How they are divided.
    """

    def visit(segment: Segment, carry: Any, saved: Any) -> tuple[Any, tuple]:
        saved = to_device(saved)
        if len(sizes) == 1:
            return pull_back(segment, carry, saved), ()
        _, saved = visit_forward(run, (saved, None), segment, sizes[1:])
        args = run, pull_back, carry, saved, segment, sizes[1:]
        return visit_backward(*args), ()

    return visit_segments(visit, carry, whole, sizes[0], saved, reverse=True)[0]
