"""The forms in which the steps of a linear recurrence are run, and their choice.

    forward      h_t = a_t * h_{t-1} + x_t, and y_t = h_t
    transposed   y_t = x_t + u_{t+1}, and u_t = a_t * y_t, from the last step back

Both take a carry through a step as `A * carry + S`. So time can be divided into chunks:
the A and S of every chunk, all chunks at once; the carries between them, which are a
forward recurrence over chunks; and the steps again, from these carries.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._base.sharding import buffers_for
from .._base.typing import Array
from .._time import masking
from .._time.steps import read_step, write_step
from .elements import Element, one_like, plus, times


class Recurrence(NamedTuple):
    """The steps of a recurrence.

    Attributes:
        a: `[batch, time, units]`, the factors of the state; or time first.
        x: What is added, likewise.
        resets: Bool `[batch, time]`: where the state before a step has no influence,
            whatever `a` is, not even NaN; None if nowhere.
    """

    a: Any
    x: Any
    resets: Any = None


Step = Callable[[Element, Recurrence], tuple[Element, Element]]


def forward_step(h: Element, at: Recurrence) -> tuple[Element, Element]:
    """`(carry, y)` of a forward step, all arrays `[..., units]`."""
    new = plus(zero_at(at.resets, times(at.a, h)), at.x)
    return new, new


def transposed_step(u: Element, at: Recurrence) -> tuple[Element, Element]:
    """`(carry, y)` of a transposed step."""
    y = plus(u, at.x)
    return zero_at(at.resets, times(at.a, y)), y


def run_steps(
    recurrence: Recurrence, carry: Element, axis: int, transposed: bool
) -> tuple[Element, Element]:
    """`(ys, carry)` of all steps, in the form that suits their number.

    On CPUs the loop runs whatever the number: its step is compiled into one function
    that costs 0.15 us and, unlike any form in parallel, reads and writes each number
    once. Of T = 8192, B = 1 and 8, H = 256 it took 1.2 and 36 ms, in chunks 2.2 and 53,
    `lax.associative_scan` 13 and 197. Elsewhere a step of a loop costs microseconds,
    whatever its size; in chunks some `3 sqrt(T)` of T steps follow one another.

    Args:
        recurrence: The steps, at least one.
        carry: The state before the first step, or what comes back to the last one.
        axis: The axis of time, 0 or 1.
        transposed: Whether the steps are those of the transposed recurrence.
    """
    loop = functools.partial(by_loop, axis=axis, transposed=transposed)
    if jax.tree.leaves(recurrence.x)[0].shape[axis] < 64:
        return loop(recurrence, carry)
    chunks = functools.partial(by_chunks, axis=axis, transposed=transposed)
    return jax.lax.platform_dependent(recurrence, carry, cpu=loop, default=chunks)


def by_loop(
    recurrence: Recurrence, carry: Element, axis: int, transposed: bool
) -> tuple[Element, Element]:
    """One step after another."""
    step = transposed_step if transposed else forward_step
    return _loop(step, recurrence, carry, axis, reverse=transposed)


def by_chunks(
    recurrence: Recurrence, carry: Element, axis: int, transposed: bool
) -> tuple[Element, Element]:
    """Chunks of about `sqrt(T)` steps, all of them at once."""
    time = jax.tree.leaves(recurrence.x)[0].shape[axis]
    chunks = _divided(recurrence, math.isqrt(time), axis)
    step = transposed_step if transposed else forward_step
    whole = _whole_chunks(step, chunks, axis + 1, transposed)
    before, carry = _loop(_emit_before, whole, carry, axis, reverse=transposed)
    ys, _ = _loop(step, chunks, before, axis + 1, reverse=transposed)

    def joined(y: Array) -> Array:
        y = jax.lax.collapse(y, axis, axis + 2)
        return jax.lax.slice_in_dim(y, 0, time, axis=axis)

    return jax.tree.map(joined, ys), carry


def _divided(recurrence: Recurrence, size: int, axis: int) -> Recurrence:
    """Chunks of `size` steps along `axis + 1`; steps are added that change nothing."""

    def divide(x: Array, added: float = 0) -> Array:
        time, widths = x.shape[axis], [(0, 0)] * x.ndim
        widths[axis] = (0, -time % size)
        padded = jnp.pad(x, widths, constant_values=added)
        shape = (*x.shape[:axis], -(-time // size), size, *x.shape[axis + 1 :])
        return padded.reshape(shape)

    a, x, resets = recurrence
    a = jax.tree.map(divide, a, one_like(a))
    return Recurrence(a, *jax.tree.map(divide, (x, resets)))


def _whole_chunks(
    step: Step, chunks: Recurrence, axis: int, reverse: bool
) -> Recurrence:
    """Each chunk as one step, `A * carry + S`, reset if one of its steps is."""

    def both(carry: Any, at: Recurrence) -> tuple[Any, None]:
        factor, added = carry
        through = at._replace(x=jax.tree.map(jnp.zeros_like, added))
        return (forward_step(factor, through)[0], step(added, at)[0]), None

    zeros = jax.tree.map(jnp.zeros_like, read_step(chunks.x, 0, axis))
    ones = plus(zeros, one_like(chunks.a))
    _, (factor, added) = _loop(both, chunks, (ones, zeros), axis, reverse)
    resets = None if chunks.resets is None else jnp.any(chunks.resets, axis=axis)
    return Recurrence(factor, added, resets)


def _emit_before(carry: Element, at: Recurrence) -> tuple[Element, Element]:
    """A forward step that emits the carry before it."""
    return forward_step(carry, at)[0], carry


def _loop(
    step: Callable, operands: Recurrence, carry: Any, axis: int, reverse: bool
) -> tuple[Any, Any]:
    """`(ys, carry)` of `carry, y = step(carry, operands at t)` for all t."""
    time = jax.tree.leaves(operands)[0].shape[axis]
    at = lambda t: read_step(operands, t, axis)
    types = jax.eval_shape(lambda carry: step(carry, at(0))[1], carry)
    buffers = buffers_for((operands, carry), types, time, axis)

    def one(i: Array, state: Any) -> Any:
        carry, ys = state
        t = time - 1 - i if reverse else i
        carry, y = step(carry, at(t))
        return carry, write_step(ys, t, y, axis)

    carry, ys = jax.lax.fori_loop(0, time, one, (carry, buffers))
    return ys, carry


def zero_at(resets: Array | None, x: Element) -> Element:
    """`x` with zeros at resets, where it may be NaN."""
    return x if resets is None else masking.zero_dead(~resets, x)
