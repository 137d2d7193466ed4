"""The delta rule: a matrix memory whose values move towards new ones."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._base.trees import TensorShape
from ..._base.typing import Array
from .rule import Chunk, MatrixRule

# The least logarithm of a decay: exp(-87) is about the smallest normal float32. In a
# chunk (steps that are computed together), sums of these logarithms are subtracted from
# each other. Without this limit, a logarithm of large magnitude would round away the
# terms of other steps, and the difference of two infinite sums would be NaN.
LEAST_LOG = -87.0


class DeltaInputs(NamedTuple):
    """What a step of the delta rule reads and writes.

    In a chunk, an axis of steps follows the axis of heads.

    Attributes:
        q: The queries, `[batch, heads, key]`.
        k: The keys, with the shape of the queries.
        v: The values, `[batch, heads, value]`.
        log_a: The logarithms of the decays, `[batch, heads]`, at most 0.
        b: The fractions by which values move towards `v`, `[batch, heads]`.
    """

    q: Any
    k: Any
    v: Any
    log_a: Any
    b: Any


@dataclasses.dataclass(frozen=True)
class DeltaRule(MatrixRule):
    """The delta rule.

    For each head, with a matrix S [key, value], and vectors as rows:

        S'     = a S + b outer(k, v - a k S)
        h      = q S'

    If k has norm 1, the decayed value that S holds at k moves towards v by the fraction
    b.

    Attributes:
        prepare: Element-wise operations within each head, which the rule applies to its
            values first. They would be slower in the projection of a cell, where the
            axis of heads still follows the axis of steps.
    """

    prepare: Callable[[DeltaInputs], DeltaInputs] = lambda values: values

    Inputs = DeltaInputs
    idle = DeltaInputs(q=0.0, k=0.0, v=0.0, log_a=0.0, b=0.0)

    def sizes(self, heads: int, key: int, value: int) -> tuple[Any, TensorShape]:
        """The sizes of the values and of S; see `MatrixRule.sizes`."""
        sizes = [heads, key], [heads, key], [heads, value], [heads], [heads]
        return DeltaInputs(*map(TensorShape, sizes)), TensorShape([heads, key, value])

    def step(self, values: DeltaInputs, state: Array) -> tuple[Array, Array]:
        """One step; see `MatrixRule.step`."""
        q, k, v, log_a, b = self.prepare(values)
        state = jnp.exp(log_a)[..., None, None] * state
        u = b[..., None] * (v - jnp.einsum("bnk,bnkv->bnv", k, state))
        state = state + k[..., :, None] * u[..., None, :]
        return jnp.einsum("bnk,bnkv->bnv", q, state), state

    def chunk(self, chunk: Chunk) -> tuple[Array, Array]:
        """All steps of a chunk; see `MatrixRule.chunk`.

        What a step writes, `u = b (v - a k S)`, depends on what earlier steps wrote.
        With `keep` and `pairs`, the products of decays in `rule.py`,

            u_t + b_t sum over s < t of pairs_ts (k_t k_s) u_s
                = b_t (v_t - keep_t k_t S)

        The u of all steps are therefore the solution of one triangular system.

        Source: arXiv:2412.06464, section 3.3; arXiv:2406.06484, section 3.
        """
        q, k, v, log_a, b = self.prepare(chunk.values)
        log_keep = chunk.sums(log_a)
        keep = jnp.exp(log_keep)
        pairs = chunk.pairs(log_keep, -log_keep)
        between = jnp.tril(jnp.einsum("bntk,bnsk->bnts", k, k) * pairs, -1)
        wanted = b[..., None] * (v - keep[..., None] * chunk.read(k, _matrix))
        u = _solve(b[..., None] * between, wanted)
        scores = jnp.einsum("bntk,bnsk->bnts", q, k) * pairs
        new = jnp.einsum("bnts,bnsv->bntv", scores, u)
        h = keep[..., None] * chunk.read(q, _matrix) + new
        return h, chunk.memory(_matrix, keep, pairs, k, u)

    def transition(self) -> tuple[Callable, Callable, Callable, Callable]:
        """`A S + B`, as one matrix with the columns `[B, A]`; see `MatrixRule`.

        A step multiplies A and B by `a (I - b outer(k, k))`, and adds `b outer(k, v)`
        to B: the delta rule for the values `[v, 0]`.
        """

        def prepare(values: DeltaInputs) -> DeltaInputs:
            values = self.prepare(values)
            return values._replace(v=_padded(values.v, values.k.shape[-1]))

        constant = lambda state: _padded(state, state.shape[-2])
        return DeltaRule(prepare).chunk, _identity, constant, _map_state


def _identity(state: Array) -> Array:
    """The columns `[0, I]`."""
    *axes, size, _ = state.shape
    one = jnp.broadcast_to(jnp.eye(size, dtype=state.dtype), (*axes, size, size))
    return jnp.concatenate([jnp.zeros_like(state), one], axis=-1)


def _map_state(transition: Array, state: Array) -> Array:
    """`A S + B`, for `transition` with the columns `[B, A]`."""
    b, a = jnp.split(transition, [state.shape[-1]], axis=-1)
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("bnkj,bnjv->bnkv", a, state, precision=highest) + b


def _padded(x: Array, count: int) -> Array:
    """`x` with `count` zeros at the end of the last axis."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, count)])


def _matrix(state: Array) -> Array:
    """The matrix of a state, which is the state itself."""
    return state


@jax.custom_jvp
def _solve(a: Array, rhs: Array) -> Array:
    """Solves `u + a u = rhs` for u; a `[..., n, n]` is strictly lower triangular.

    `jax.scipy.linalg.solve_triangular` is not used, because in a scan it was seen to
    hang on a CPU with two threads (JAX 0.10.2).
    """
    return _product(_unit_lower_inverse(a), rhs)


@_solve.defjvp
def _solve_tangents(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    a, rhs = primals
    d_a, d_rhs = tangents
    u = _solve(a, rhs)
    return u, _solve(a, d_rhs - _product(d_a, u))


def _unit_lower_inverse(a: Array) -> Array:
    """The inverse of `I + a`, for strictly lower triangular a `[..., n, n]`.

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
    inverses = _unit_lower_inverse(halves)
    first = inverses[..., 0, :, :]
    second = inverses[..., 1, :, :]
    corner = -_product(_product(second, a[..., half:, :half]), first)
    top = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
    bottom = jnp.concatenate([corner, second], axis=-1)
    return jnp.concatenate([top, bottom], axis=-2)


def _product(a: Array, b: Array) -> Array:
    # With a lower precision, errors would grow with each level of the recursion.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
