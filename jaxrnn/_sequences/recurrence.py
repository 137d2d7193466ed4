"""The states of a linear recurrence, `h_t = a_t * h_{t-1} + x_t`, in two forms.

A step takes the state through as `A * h + S`, and so do several steps. So time can be
divided into chunks: the A and S of every chunk, all chunks at once; the states between
them, which are a recurrence over chunks; and the steps again, from these states.

The tangent of a recurrence is the same recurrence of `da_t * h_{t-1} + dx_t`. Its
numbers are real, or complex as pairs of real arrays.
"""

import functools
import math
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from .._base.serialization import serializable
from .._base.sharding import as_varying_as
from .._base.typing import Array
from .._time import masking


@serializable
class ComplexState(NamedTuple):
    """Complex numbers as two real arrays, which drivers cast and mask as any others.

    Attributes:
        real: The real part.
        imag: The imaginary part, of the same shape and dtype.
    """

    real: Any
    imag: Any


Element: TypeAlias = Any
"""`[..., units]`: a real array, or a `ComplexState`."""


def times(a: Element, h: Element) -> Element:
    """The product, unit by unit."""
    if isinstance(a, ComplexState):
        real = a.real * h.real - a.imag * h.imag
        return ComplexState(real, a.real * h.imag + a.imag * h.real)
    return a * h


def plus(x: Element, y: Element) -> Element:
    """The sum, unit by unit."""
    return jax.tree.map(jnp.add, x, y)


def one_like(a: Element) -> Any:
    """The number 1 in the structure of `a`."""
    return ComplexState(1, 0) if isinstance(a, ComplexState) else 1


def linear_recurrence(
    a: Element, x: Element, h: Element, restarting: Array | None
) -> tuple[Element, Element]:
    """`(hs, h)`: the states after all steps of `h' = a * h + x`, and the last one.

    Args:
        a: `[time, batch, units]`. Where time is divided into chunks, products of many
            factors are formed: they should not exceed 1.
        x: Of the same shape.
        h: The state before the first step, `[batch, units]`.
        restarting: Bool `[time, batch]`: where a row restarts, and the state before the
            step has no influence, whatever `a` is, not even NaN; None if nowhere.

    Source: Blelloch, "Prefix sums and their applications", 1990.
    """
    return _recurrence((a, restarting), x, as_varying_as((a, x), h))


@jax.custom_jvp
def _recurrence(factors: Any, x: Element, h: Element) -> tuple[Element, Element]:
    return run_steps(factors, x, h)


@_recurrence.defjvp
def _recurrence_of_tangents(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    (factors, x, h), ((d_a, _), d_x, d_h) = primals, tangents
    hs, last = _recurrence(factors, x, h)
    before = jax.tree.map(lambda h, hs: jnp.concatenate([h[None], hs[:-1]]), h, hs)
    # Zeros in `before`, not in the product: the transpose multiplies by it.
    d_x = plus(d_x, times(d_a, _zero_at(factors[1], before)))
    return (hs, last), _recurrence(factors, d_x, d_h)


def run_steps(factors: Any, x: Element, h: Element) -> tuple[Element, Element]:
    """`(hs, h)` of all steps, in the form that suits their number and the platform.

    On CPUs the loop runs whatever the number: its step is compiled into one function
    that costs 0.15 us and, unlike any form in parallel, reads and writes each number
    once. Of T = 8192, B = 1 and 8, H = 256 it took 1.2 and 36 ms, in chunks 2.2 and 53,
    `lax.associative_scan` 13 and 197. Elsewhere a step of a loop costs microseconds,
    whatever its size; in chunks some `4 sqrt(T)` of T steps follow one another.

    Args:
        factors: `(a, restarting)`; see `linear_recurrence`.
        x: What is added.
        h: The state before the first step.
    """
    if jax.tree.leaves(x)[0].shape[0] < 64:
        return by_loop(factors, x, h)
    return jax.lax.platform_dependent(factors, x, h, cpu=by_loop, default=by_chunks)


def by_loop(factors: Any, x: Element, h: Element) -> tuple[Element, Element]:
    """One step after another."""

    def step(h: Element, scanned: Any) -> tuple[Element, Element]:
        new = _step(h, *scanned)
        return new, new

    last, hs = jax.lax.scan(step, h, (*factors, x))
    return hs, last


def by_chunks(factors: Any, x: Element, h: Element) -> tuple[Element, Element]:
    """Chunks of about `sqrt(T)` steps, all of them at once."""
    time = jax.tree.leaves(x)[0].shape[0]
    a, restarting = factors
    divide = functools.partial(_divided, math.isqrt(time))
    # The steps that fill the last chunk keep the state: a = 1, x = 0.
    a = jax.tree.map(divide, a, one_like(a))
    restarting, x = jax.tree.map(divide, (restarting, x))
    before, last = _states_between(a, restarting, x, h)
    hs, _ = by_loop((a, restarting), x, before)
    joined = lambda h: jax.lax.collapse(jnp.swapaxes(h, 0, 1), 0, 2)[:time]
    return jax.tree.map(joined, hs), last


def _divided(size: int, x: Array, added: float = 0) -> Array:
    """`[size, chunks, ...]`, chunks of `size` steps of `x`."""
    widths = [(0, -x.shape[0] % size)] + [(0, 0)] * (x.ndim - 1)
    padded = jnp.pad(x, widths, constant_values=added)
    shape = (padded.shape[0] // size, size, *x.shape[1:])
    return jnp.swapaxes(padded.reshape(shape), 0, 1)


def _states_between(
    a: Element, restarting: Array | None, x: Element, h: Element
) -> tuple[Element, Element]:
    """The state before each chunk, and the one after the last."""

    # Two loops, each linear in its carry: JAX can transpose such loops alone.
    def multiply(factor: Element, scanned: Any) -> tuple[Element, None]:
        a, restarting = scanned
        return _zero_at(restarting, times(a, factor)), None

    def add(added: Element, scanned: Any) -> tuple[Element, None]:
        return _step(added, *scanned), None

    zeros = jax.tree.map(lambda x: jnp.zeros_like(x[0]), (a, x))
    ones, zeros = as_varying_as((a, x), (plus(zeros[0], one_like(a)), zeros[1]))
    factor, _ = jax.lax.scan(multiply, ones, (a, restarting))
    added, _ = jax.lax.scan(add, zeros, (a, restarting, x))

    def chunk(h: Element, scanned: Any) -> tuple[Element, Element]:
        return _step(h, *scanned), h

    restarting = None if restarting is None else jnp.any(restarting, axis=0)
    last, before = jax.lax.scan(chunk, h, (factor, restarting, added))
    return before, last


def _step(h: Element, a: Element, restarting: Array | None, x: Element) -> Element:
    return plus(_zero_at(restarting, times(a, h)), x)


def _zero_at(restarting: Array | None, x: Element) -> Element:
    """`x` with zeros where rows restart, where it may be NaN."""
    return x if restarting is None else masking.zero_dead(~restarting, x)
