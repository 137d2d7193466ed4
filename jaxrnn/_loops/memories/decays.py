"""The decays of a chunk: at each step, one factor per head, or one factor per key.

In `_cells/matrix/rule.py`, a step multiplies the memory by a number a. With a decay
*per key*, it multiplies each row i of the memory by a number `exp(g_i)` of its own. The
score of a pair of steps is then a sum over these rows:

    score_ts = sum over i of q_ti k_si exp(sum of g_ri for the steps r from s + 1 to t)

One matrix product could compute all scores if q were multiplied by `exp(G)` and k by
`exp(-G)`, where G are the sums of g from the start of the chunk. But `exp(-G)`
overflows. So write `exp(G) = 2^n 2^r` with a whole number n. `2^r` multiplies q, and
its inverse multiplies k. `2^(n_t - n_s)` multiplies each pair, exactly and without an
exponential.
"""

import math
from typing import TypeAlias

import jax
import jax.numpy as jnp

from ..._base.typing import Array, DType
from ..._base.unit_axes import scaled, without_unit_axes
from .chunk import Chunk


class HeadDecays:
    """The decays of a chunk, one for each head.

    Attributes:
        keep: The factor `keep` of each step in `chunk.py`, `[batch, heads, steps]`.
    """

    def __init__(self, chunk: Chunk, g: Array) -> None:
        self.keep = jnp.exp(chunk.sums(g))
        self._pairs = jnp.exp(chunk.sums_between(g))
        self._chunk = chunk

    def scores(self, q: Array, k: Array) -> Array:
        """The score of each pair, `[batch, heads, t, s]`; 0 where t does not read s."""
        return self._chunk.scores(q, k, self._pairs)

    def read(self, q: Array) -> Array:
        """Computes q S for the decayed states S from which spans start."""
        return scaled(self.keep, self._chunk.read(q, matrix))

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
        # Only `2^r` has a derivative, because n is a whole number.
        coarse, fine = chunk.sums_of_parts(g / math.log(2.0))
        whole = jnp.floor(coarse)
        powers = whole.astype(f"int{8 * g.dtype.itemsize}")
        powers = _power_of_two(powers[:, :, :, None] - powers[:, :, None], g.dtype)
        self._pairs = jnp.where(chunk.reads[..., None], powers, 0.0)
        self._two_to_r = jnp.exp2(coarse - whole + fine)
        self.keep = self._two_to_r * jnp.exp2(whole)
        self._chunk = chunk

    def scores(self, q: Array, k: Array) -> Array:
        """The score of each pair, `[batch, heads, t, s]`; 0 where t does not read s."""

        def product(q: Array, pairs: Array, k: Array) -> Array:
            return jnp.sum(q[..., :, None, :] * pairs * k[..., None, :, :], axis=-1)

        given = q * self._two_to_r, self._pairs, k / self._two_to_r
        scores = without_unit_axes(product, 2, *given)
        return jnp.where(self._chunk.reads, scores, 0.0)

    def scores_before(self, q: Array, k: Array) -> Array:
        """The scores of queries that read the state before their step."""
        # The state before a step is the state after the previous step.
        scores = _moved(self.scores(_moved(q, -1), k), 1)
        return jnp.where(jnp.tril(self._chunk.reads, -1), scores, 0.0)

    def read(self, q: Array) -> Array:
        """Computes q S for the decayed states S from which spans start."""
        return self._chunk.read(q * self.keep, matrix)

    def read_before(self, q: Array) -> Array:
        """Like `read`, without the decay of the step itself."""
        follows = self._chunk.follows[..., None]
        before = jnp.where(follows, _moved(self.keep, 1), 1.0)
        return self._chunk.read(q * before, matrix)

    def memory(self, k: Array, u: Array) -> Array:
        """The states after the steps wrote u at k; see `Chunk.memory`."""
        ends = self._chunk.ends()
        kept = scaled(self._chunk.after(self.keep), ends.start(matrix))
        return kept + self.written(k, u)

    def written(self, k: Array, u: Array) -> Array:
        """Computes `memory` for spans that start from zeros."""

        def product(two_to_r: Array, pairs: Array, k: Array) -> Array:
            return two_to_r[..., None, :] * pairs * k

        at_ends = self._chunk.after(self._two_to_r), self._chunk.after(self._pairs)
        keys = without_unit_axes(product, 3, *at_ends, (k / self._two_to_r)[:, :, None])
        return jnp.einsum("bntsk,bnsv->bntkv", keys, u)


def _moved(x: Array, count: int) -> Array:
    """Shifts `x` by `count` steps, and fills with zeros.

    In loops on CPUs, `jnp.roll` would be slower.
    """
    edges = [(0, 0, 0)] * x.ndim
    edges[2] = (count, -count, 0)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), edges)


def _power_of_two(n: Array, dtype: DType) -> Array:
    """Computes `2^n` for integers n, or 0 if the dtype has no such normal number."""
    info = jnp.finfo(dtype)
    exponent = jnp.clip(n - info.minexp + 1, 0, 2 - 2 * info.minexp + 1)
    return jax.lax.bitcast_convert_type(exponent << info.nmant, dtype)


Decays: TypeAlias = HeadDecays | KeyDecays


def decays_of(chunk: Chunk, g: Array) -> Decays:
    """Returns the decays of a chunk, per head or per key.

    Args:
        chunk: The chunk.
        g: The logarithms of the decays, `[batch, heads, steps]` or `[batch, heads,
            steps, key]`.
    """
    return HeadDecays(chunk, g) if g.ndim == 3 else KeyDecays(chunk, g)


def matrix(state: Array) -> Array:
    """The matrix of a state, which is the state itself."""
    return state
