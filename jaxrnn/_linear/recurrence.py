"""The states of a linear recurrence, with a derivative of the same kind.

The tangent of `h_t = a_t * h_{t-1} + x_t` is the same recurrence of
`da_t * h_{t-1} + dx_t`, and the transpose of that is the transposed recurrence. So
derivatives of every order are two loops, and read only `a` and the states.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._autodiff.differentiable import differentiable
from .._autodiff.transposable import dense, transposable
from .._base.typing import Array
from .elements import Element, conjugate, plus, times
from .forms import Recurrence, run_steps, zero_at


class _Linear(NamedTuple):
    """What a recurrence is linear in: `x` of all steps, and the carry."""

    x: Any
    carry: Any


def linear_recurrence(
    a: Element, x: Element, h: Element, resets: Array | None, axis: int
) -> tuple[Element, Element]:
    """`(hs, h)`: the states after all steps of `h' = a * h + x`, and the last one.

    Args:
        a: `[batch, time, units]`, or time first. Where time is divided into chunks,
            products of many factors are formed: they should not exceed 1.
        x: Of the same shape.
        h: The state before the first step, `[batch, units]`.
        resets: Bool `[batch, time]`, the steps that do not depend on the state before
            them; None if all do.
        axis: The axis of time, 0 or 1.

    Source: Blelloch, "Prefix sums and their applications", 1990.
    """
    return _run(axis, False, (a, resets), _Linear(x, h))


def _run(
    axis: int, transposed: bool, factors: Any, linear: _Linear
) -> tuple[Element, Element]:
    """`run_steps` with its derivative; `factors` are `(a, resets)`."""
    run = functools.partial(_run_plainly, axis, transposed)
    rule = functools.partial(_push_forward, axis, transposed)
    return differentiable(run, rule, factors, linear)


def _run_plainly(
    axis: int, transposed: bool, factors: Any, linear: _Linear
) -> tuple[Element, Element]:
    (a, resets), (x, carry) = factors, linear
    return run_steps(Recurrence(a, x, resets), carry, axis, transposed)


def _push_forward(axis: int, transposed: bool, primals: Any, tangents: Any) -> Any:
    """The derivative rule: the results and their tangents."""
    factors, linear = primals
    (d_a, _), (d_x, d_carry) = tangents[0], dense(tangents[1])
    ys, carry = _run(axis, transposed, factors, linear)
    multiplied = ys if transposed else _before(ys, linear.carry, axis)
    d_factor = zero_at(factors[1], times(dense(d_a), multiplied))
    # In a transposed step what is multiplied reaches the step before.
    d_x = plus(d_x, _after(d_factor, axis) if transposed else d_factor)
    run = functools.partial(_run, axis, transposed)
    transpose = functools.partial(_transpose, axis, transposed)
    d_ys, d_last = transposable(run, transpose, factors, _Linear(d_x, d_carry))
    if transposed:
        d_last = plus(d_last, jax.tree.map(lambda x: x.take(0, axis), d_factor))
    return (ys, carry), (d_ys, d_last)


def _transpose(axis: int, transposed: bool, factors: Any, cotangents: Any) -> Any:
    """From cotangents of `(ys, carry)` to those of `(x, carry)`."""
    a, resets = factors
    c_linear = _Linear(*dense(cotangents))
    return _run(axis, not transposed, (conjugate(a), resets), c_linear)


def _before(hs: Element, h: Element, axis: int) -> Element:
    """The states before all steps, from those after them and the first one."""

    def shift(hs: Array, h: Array) -> Array:
        kept = jax.lax.slice_in_dim(hs, 0, hs.shape[axis] - 1, axis=axis)
        return jnp.concatenate([jnp.expand_dims(h, axis), kept], axis)

    return jax.tree.map(shift, hs, h)


def _after(xs: Element, axis: int) -> Element:
    """Each step's successor; zeros after the last step."""

    def shift(x: Array) -> Array:
        kept = jax.lax.slice_in_dim(x, 1, x.shape[axis], axis=axis)
        zeros = jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis))
        return jnp.concatenate([kept, zeros], axis)

    return jax.tree.map(shift, xs)
