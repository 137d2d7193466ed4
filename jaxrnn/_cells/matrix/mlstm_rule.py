"""The recurrence of the LSTM with a matrix memory (mLSTM)."""

import dataclasses
import math
from collections.abc import Callable
from typing import Generic, NamedTuple

import jax
import jax.numpy as jnp

from ..._base.math import cast_like
from ..._base.scaled import scaled
from ..._base.trees import TensorShape, serializable
from ..._base.typing import Array, Leaf, PyTree
from .rule import Chunk, MatrixRule


@serializable
class MLSTMState(NamedTuple, Generic[Leaf]):
    """The state of an mLSTM: the memory `c`, its normalizer `n`, and their scale `m`.

    The actual memory and normalizer are `exp(m) * c` and `exp(m) * n`, which could
    overflow. The order of the fields matches the package `xlstm`.
    """

    c: Leaf
    n: Leaf
    m: Leaf


class MLSTMInputs(NamedTuple, Generic[Leaf]):
    """What a step of an mLSTM reads and writes.

    In a chunk, an axis of steps follows the axis of heads.

    Attributes:
        q: The queries, `[batch, heads, key]`.
        k: The keys, with the shape of the queries.
        v: The values, `[batch, heads, value]`.
        i: The input gates before `exp`, `[batch, heads]`.
        f: The forget gates before `sigmoid`, `[batch, heads]`.
    """

    q: Leaf
    k: Leaf
    v: Leaf
    i: Leaf
    f: Leaf


@dataclasses.dataclass(frozen=True)
class MLSTMRule(MatrixRule):
    """The recurrence of an mLSTM; see `MLSTMCell`.

    The cell has already scaled the keys.
    """

    Inputs = MLSTMInputs
    idle = MLSTMInputs(q=0.0, k=0.0, v=0.0, i=-math.inf, f=math.inf)

    def sizes(self, heads: int, key: int, value: int) -> tuple[MLSTMInputs, MLSTMState]:
        """The sizes of the values and of the state; see `MatrixRule.sizes`."""
        values = [heads, key], [heads, key], [heads, value], [heads], [heads]
        state = [heads, key, value], [heads, key], [heads]
        of_values = MLSTMInputs(*map(TensorShape, values))
        return of_values, MLSTMState(*map(TensorShape, state))

    def step(self, values: MLSTMInputs, state: MLSTMState) -> tuple[Array, MLSTMState]:
        """One step; see `MatrixRule.step`."""
        q, k, v, i, f = values
        log_f = jax.nn.log_sigmoid(f)
        m = jnp.maximum(log_f + state.m, i)
        keep = jnp.exp(log_f + state.m - m)
        added = k * jnp.exp(i - m)[..., None]
        n = keep[..., None] * state.n + added
        c = keep[..., None, None] * state.c + added[..., :, None] * v[..., None, :]
        dot = jnp.einsum("bnk,bnk->bn", q, n)
        h = jnp.einsum("bnk,bnkv->bnv", q, c) / _divisor(dot, m)[..., None]
        return h, MLSTMState(c, n, m)

    def chunk(self, chunk: Chunk) -> tuple[Array, MLSTMState]:
        """All steps of a chunk; see `MatrixRule.chunk`.

        A span begins at the start of the chunk and at each restart of the state. Let
        `F_t` be the sum of `log_f` from the first step of the span of t up to t.
        Step t computes the same m as `step`:

            m_t = F_t + a_t,    a_t = max(m_0, max_s (i_s - F_s))

        Here, s runs over the steps of this span up to t, and m_0 is the m before the
        span. `F_t` cancels in all weights, and rounds away digits of `a_t`. The weights
        are therefore computed from whole numbers and exact sums, with an m that is too
        small by up to about 1, and the states that the chunk returns are rescaled.
        """
        q, k, v, i, f = chunk.values
        coarse, fine = chunk.sums_of_parts(jax.nn.log_sigmoid(f))
        m = chunk.start(lambda state: state.m)
        a = jnp.maximum(m, chunk.maxima(i - (coarse + fine)))
        # While the memory is empty, m and a are -inf, and m - a would be NaN.
        is_empty = a == -jnp.inf
        below = jnp.where(is_empty, 0.0, a - jnp.floor(a) + fine)
        a, whole = jnp.floor(a), jnp.floor(i)
        keep = jnp.exp(jnp.where(is_empty, 0.0, m - a))
        rest = jnp.exp(jnp.where(whole == -jnp.inf, 0.0, i - whole) - fine)
        k, added = scaled(rest, k), whole - coarse
        pairs = chunk.pairs(-jnp.where(is_empty, 0.0, a), added)
        scores = chunk.scores(q, k, pairs)
        old_values = chunk.read(q, _memory)
        old_dot = chunk.read(q, _normalizer)[..., 0]
        values = jnp.einsum("bnts,bnsv->bntv", scores, v)
        values = values + scaled(keep, old_values)
        # The factor has the derivative of `F_t`.
        factor = jnp.exp(fine)
        dot = factor * (keep * old_dot + jnp.sum(scores, axis=-1))
        # Without the barrier, XLA computes the divisor again for each number.
        divisor = jax.lax.optimization_barrier(_divisor(dot, coarse + a, below))
        h = scaled(factor / divisor, values)
        c = chunk.memory(_memory, keep, pairs, k, v)
        n = chunk.memory(_normalizer, keep, pairs, k, jnp.ones_like(f)[..., None])
        at_ends = keep, rest[:, :, None] * pairs, coarse + a + fine
        keep, pairs, m = map(chunk.after, at_ends)
        largest = jnp.maximum(keep, jnp.max(pairs, axis=-1))
        c, n = c / largest[..., None, None], n[..., 0] / largest[..., None]
        return h, MLSTMState(c, n, m + jnp.log(largest))

    def stored(self, like: PyTree, state: PyTree) -> MLSTMState:
        """The state, cast to the dtypes of `like`.

        If m is rounded, c and n are rescaled to represent the same memory.
        """
        if state.m.dtype == like.m.dtype:
            return cast_like(like, state)
        m = state.m.astype(like.m.dtype)
        rounded = state.m - m.astype(state.m.dtype)
        scale = jnp.exp(jnp.where(state.m == -jnp.inf, 0.0, rounded))
        c = state.c * scale[..., None, None]
        n = state.n * scale[..., None]
        return cast_like(like, MLSTMState(c, n, m))

    def transition(self) -> tuple[Callable, Callable, Callable, Callable]:
        """`exp(log_keep) C + written`, for the memory C and its normalizer."""
        return _map_of_chunk, _identity, _constant, _map_state


def _memory(state: MLSTMState) -> Array:
    return state.c


def _normalizer(state: MLSTMState) -> Array:
    """The normalizer as a matrix with one column, to which a step adds k times 1."""
    return state.n[..., None]


def _divisor(dot: Array, m: Array, below: Array | float = 0.0) -> Array:
    """Computes `max(|dot|, exp(-m))`, by which a step divides q c.

    The state holds c and n divided by `exp(m)`, so `exp(-m)` replaces the 1 in
    `max(|q n|, 1)`.

    Args:
        dot: The product q n, `[...]`.
        m: The scale of c and n, `[...]`.
        below: By how much m is below the m of a step.
    """
    # Limit the exponent, because exp(89) overflows float32. If `least` is exp(80),
    # the quotient is already negligible.
    least = jnp.exp(-jnp.maximum(m, -80.0))
    # Adding 1e-6, as `xlstm` does, avoids 0 / 0: `dot` may be 0, and `least` may
    # underflow to 0.
    return jnp.maximum(jnp.abs(dot), least) + 1e-6 * jnp.exp(below)


class MLSTMMap(NamedTuple):
    """The map of an mLSTM's state over several steps.

    Attributes:
        written: The state after the steps if the memory was empty, an `MLSTMState`.
        log_keep: The sum of `log(sigmoid(f))`, `[batch, heads]`; -inf for a constant.
    """

    written: MLSTMState[Array]
    log_keep: Array


def _map_of_chunk(chunk: Chunk) -> tuple[Array, MLSTMMap]:
    """All steps of a chunk whose states are maps."""
    h, written = MLSTMRule().chunk(chunk.map_states(lambda state: state.written))
    log_keep = chunk.sums(jax.nn.log_sigmoid(chunk.values.f))
    log_keep += chunk.start(lambda state: state.log_keep)
    return h, MLSTMMap(written, chunk.after(log_keep))


def _identity(state: MLSTMState) -> MLSTMMap:
    empty = jax.tree.map(jnp.zeros_like, state)
    return MLSTMMap(empty._replace(m=empty.m - jnp.inf), empty.m)


def _constant(state: MLSTMState) -> MLSTMMap:
    return MLSTMMap(state, jnp.full_like(state.m, -jnp.inf))


def _map_state(transition: MLSTMMap, state: MLSTMState) -> MLSTMState:
    """`exp(log_keep) C + written`, with the larger of both scales."""
    written, log_keep = transition
    old = log_keep + state.m
    m = jnp.maximum(old, written.m)
    # If both memories are empty, m is -inf, and x - m would be NaN.
    scale = lambda x: jnp.exp(jnp.where(m == -jnp.inf, 0.0, x - m))[..., None]
    kept, added = scale(old), scale(written.m)
    n = kept * state.n + added * written.n
    c = kept[..., None] * state.c + added[..., None] * written.c
    return MLSTMState(c, n, m)
