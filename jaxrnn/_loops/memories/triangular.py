"""Solves unit triangular systems, in which each step depends on all earlier steps."""

import math

import jax
import jax.numpy as jnp

from ..._base.typing import Array


@jax.custom_jvp
def solve(a: Array, rhs: Array) -> Array:
    """Solves `u + a u = rhs` for u; a `[..., n, n]` is strictly lower triangular.

    Works around a hang of `jax.scipy.linalg.solve_triangular` in a scan, which was seen
    on a CPU with two threads (JAX 0.10.2).
    """
    return _product(_unit_lower_inverse(a), rhs)


@solve.defjvp
def _tangents(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    a, rhs = primals
    d_a, d_rhs = tangents
    u = solve(a, rhs)
    return u, solve(a, d_rhs - _product(d_a, u))


def _unit_lower_inverse(a: Array) -> Array:
    """Inverts `I + a` for strictly lower triangular a `[..., n, n]`.

    Let P and Q be the diagonal blocks of `I + a`, of half the size, and C the block
    below P. The inverses of P and Q are computed together, and

        [[P, 0], [C, Q]]^-1 = [[P^-1, 0], [-Q^-1 C P^-1, Q^-1]]
    """
    size = a.shape[-1]
    if size == 1:
        return jnp.ones_like(a)
    if size % 2:
        edges = [(0, 0)] * (a.ndim - 2) + [(0, 1), (0, 1)]
        return _unit_lower_inverse(jnp.pad(a, edges))[..., :size, :size]
    half = size // 2
    halves = jnp.stack([a[..., :half, :half], a[..., half:, half:]], axis=-3)
    # TensorFlow Lite cannot pad arrays of more than five axes, so do not add an axis
    # with each level. Rows and heads stay apart, because devices may divide the rows.
    merged = (*a.shape[:-3], 2 * math.prod(a.shape[-3:-2]), half, half)
    inverses = _unit_lower_inverse(halves.reshape(merged)).reshape(halves.shape)
    first = inverses[..., 0, :, :]
    second = inverses[..., 1, :, :]
    corner = -_product(_product(second, a[..., half:, :half]), first)
    top = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
    bottom = jnp.concatenate([corner, second], axis=-1)
    return jnp.concatenate([top, bottom], axis=-2)


def _product(a: Array, b: Array) -> Array:
    # At a lower precision, errors would grow with each level of the recursion.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
