"""The recurrence of the LSTM with a matrix memory (mLSTM)."""

import dataclasses
import math
from typing import Generic, NamedTuple

import jax
import jax.numpy as jnp

from ..._base.math import cast_like
from ..._base.trees import TensorShape, serializable
from ..._base.typing import Array, Leaf, PyTree
from .rule import MatrixRule


@serializable
class MLSTMState(NamedTuple, Generic[Leaf]):
    """The state of an mLSTM: the memory `c`, the normalizer `n` and the log scale `m`.

    The actual memory and normalizer are `exp(m) * c` and `exp(m) * n`, which could
    overflow if they were stored. The order of the fields matches the package `xlstm`.
    """

    c: Leaf
    n: Leaf
    m: Leaf


class MLSTMInputs(NamedTuple, Generic[Leaf]):
    """The inputs of one step of an mLSTM.

    In a chunk, the arrays are `[batch, heads, steps, ...]`.

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

    The rule expects keys that are already scaled.
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
        h = jnp.einsum("bnk,bnkv->bnv", q, c) / divisor_of(dot, m)[..., None]
        return h, MLSTMState(c, n, m)

    def stored(self, like: PyTree, state: PyTree) -> MLSTMState:
        """Casts the state to the dtypes of `like`.

        If the cast rounds m, c and n are rescaled to represent the same memory.
        """
        if state.m.dtype == like.m.dtype:
            return cast_like(like, state)
        m = state.m.astype(like.m.dtype)
        rounded = state.m - m.astype(state.m.dtype)
        scale = jnp.exp(jnp.where(state.m == -jnp.inf, 0.0, rounded))
        c = state.c * scale[..., None, None]
        n = state.n * scale[..., None]
        return cast_like(like, MLSTMState(c, n, m))


def divisor_of(dot: Array, m: Array, below: Array | float = 0.0) -> Array:
    """Computes `max(|dot|, exp(-m))`, by which a step divides q c.

    The state holds c and n divided by `exp(m)`, so `exp(-m)` replaces the 1 in
    `max(|q n|, 1)`.

    Args:
        dot: The product q n, `[...]`.
        m: The scale of c and n, `[...]`.
        below: The m of a step minus the argument `m`, which may be a smaller number.
    """
    # Limit the exponent, because exp(89) overflows float32. If `least` is exp(80),
    # the quotient is already negligible.
    least = jnp.exp(-jnp.maximum(m, -80.0))
    # Adding 1e-6, as `xlstm` does, avoids 0 / 0: `dot` may be 0, and `least` may
    # underflow to 0.
    return jnp.maximum(jnp.abs(dot), least) + 1e-6 * jnp.exp(below)
