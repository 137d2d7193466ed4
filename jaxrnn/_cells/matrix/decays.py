"""The decays of a chunk: one factor of a step for each head, or one for each key.

In the module `rule.py`, a step multiplies the memory by a number a. With a decay *per
key*, it multiplies each row i of the memory by a number `exp(g_i)` of its own. The
score of a pair of steps is then a sum over these rows:

    score_ts = sum over i of q_ti k_si exp(sum of g_ri for the steps r from s + 1 to t)

The exponential is computed for each pair and key, with the mask inside, so that it
cannot overflow if no logarithm is more than 0. To multiply q by `exp(G)` and k by
`exp(-G)`, with sums G from the start of the chunk, would be one matrix product, but
`exp(-G)` overflows.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp

from ..._base.typing import Array
from .rule import Chunk

# The least logarithm of a decay, and the least argument of a decay's sigmoid: exp(-87),
# and nearly sigmoid(-87), is about the smallest normal float32. In a
# chunk (steps that are computed together), sums of these logarithms are subtracted from
# each other. Without this limit, a logarithm of large magnitude would round away the
# terms of other steps, and the difference of two infinite sums would be NaN.
LEAST_LOG = -87.0


class HeadDecays:
    """The decays of a chunk, one for each head.

    Attributes:
        keep: The factor `keep` of each step in `rule.py`, `[batch, heads, steps]`.
    """

    def __init__(self, chunk: Chunk, g: Array) -> None:
        log_keep = chunk.sums(g)
        self.keep = jnp.exp(log_keep)
        self._chunk, self._pairs = chunk, chunk.pairs(log_keep, -log_keep)

    def scores(self, q: Array, k: Array) -> Array:
        """The score of each pair, `[batch, heads, t, s]`; 0 where t does not read s."""
        return self._chunk.scores(q, k, self._pairs)

    def read(self, q: Array) -> Array:
        """What q reads of the decayed states before the spans."""
        return self.keep[..., None] * self._chunk.read(q, matrix)

    def memory(self, k: Array, u: Array) -> Array:
        """The states after the steps wrote u at k; see `Chunk.memory`."""
        return self._chunk.memory(matrix, self.keep, self._pairs, k, u)


class KeyDecays:
    """The decays of a chunk, one for each key; with the methods of `HeadDecays`.

    Attributes:
        keep: The product of the decays from the first step of the span up to each
            step, `[batch, heads, steps, key]`.
    """

    def __init__(self, chunk: Chunk, g: Array) -> None:
        sums = jax.vmap(chunk.sums, in_axes=-1, out_axes=-1)(g)
        between = sums[:, :, :, None] - sums[:, :, None]
        self.keep = jnp.exp(sums)
        self._before = jnp.exp(sums - g)
        self._pairs = jnp.exp(jnp.where(chunk.reads[..., None], between, -jnp.inf))
        self._chunk = chunk

    def scores(self, q: Array, k: Array) -> Array:
        """The score of each pair, `[batch, heads, t, s]`; 0 where t does not read s."""
        scores = jnp.sum(q[:, :, :, None] * self._pairs * k[:, :, None], axis=-1)
        return jnp.where(self._chunk.reads, scores, 0.0)

    def scores_before(self, q: Array, k: Array) -> Array:
        """The scores of queries that read the state before their step."""
        # The state before a step is the state after the step before it.
        scores = self.scores(jnp.roll(q, -1, axis=2), k)
        reads = jnp.tril(self._chunk.reads, -1)
        return jnp.where(reads, jnp.roll(scores, 1, axis=2), 0.0)

    def read(self, q: Array) -> Array:
        """What q reads of the decayed states before the spans."""
        return self._chunk.read(q * self.keep, matrix)

    def read_before(self, q: Array) -> Array:
        """Like `read`, without the decay of the step itself."""
        return self._chunk.read(q * self._before, matrix)

    def memory(self, k: Array, u: Array) -> Array:
        """The states after the steps wrote u at k; see `Chunk.memory`."""
        ends = self._chunk.ends()
        kept = self._chunk.after(self.keep)[..., None] * ends.start(matrix)
        return kept + self.written(k, u)

    def written(self, k: Array, u: Array) -> Array:
        """What `memory` returns if the states before the spans are zeros."""
        keys = self._chunk.after(self._pairs) * k[:, :, None]
        return jnp.einsum("bntsk,bnsv->bntkv", keys, u)


Decays: TypeAlias = HeadDecays | KeyDecays


def decays_of(chunk: Chunk, g: Array) -> Decays:
    """The decays of a chunk.

    Args:
        chunk: The chunk.
        g: The logarithms of the decays, `[batch, heads, steps]` or `[batch, heads,
            steps, key]`.
    """
    return HeadDecays(chunk, g) if g.ndim == 3 else KeyDecays(chunk, g)


def decayed(factor: Array, state: Array) -> Array:
    """The memory times a factor for each head, or one for each key."""
    axes = tuple(range(factor.ndim, state.ndim))
    return jnp.expand_dims(factor, axes) * state


def matrix(state: Array) -> Array:
    """The matrix of a state, which is the state itself."""
    return state
