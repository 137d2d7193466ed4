"""A chunk of steps of a matrix memory, such as 32 steps, that a rule computes at once.

A step writes a value u at a key k, and reads with a query q. With vectors as rows,

    S_t = a_t S_{t-1} + outer(k_t, u_t)        S: [key, value]
    o_t = q_t S_t

In a chunk, each reset of a row begins a new *span* of steps. For example, a row of 8
steps with a reset before step 5 has two spans: steps 0 to 4 and steps 5 to 7. The span
of step t starts from a state S, which is the state before the chunk or a reset state.
If `keep_t` is the product of the a's from the span's first step to step t, and
`pairs_ts` is the product of the a's from step s + 1 to step t, then

    S_t = keep_t S + sum over s of pairs_ts outer(k_s, u_s)
    o_t = keep_t q_t S + sum over s of pairs_ts dot(q_t, k_s) u_s

where the sums run over the steps s <= t in the span of t. So o_t is the sum of a
product with S and an attention of step t to the steps of its span.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..._base.derivatives import straight_through
from ..._base.math import expand_rows
from ..._base.typing import Array, PyTree
from ..._base.unit_axes import scaled


@dataclasses.dataclass(frozen=True)
class Chunk:
    """The values of a chunk's steps, and the states from which its spans start.

    A *span* is the steps of a row, in this chunk, from one reset to the next. A rule
    calls the methods in its formulas, and need not know about spans.

    Attributes:
        values: The arrays that the rule reads, such as keys and values: the second
            result of the cell's `project`, leaves `[batch, heads, steps, ...]`.
            Finished steps have the values `idle` of the rule.
        state: The state before the chunk, leaves `[batch, heads, 1, ...]`. If there are
            resets, rows have zeros if no step reads their state.
        reads: Bool `[batch, 1, t, s]`, true if step t reads the value that step s
            wrote: s <= t, and s and t are in the same span. If there are no resets, the
            first axis has size 1.
        reset_state: The state from which spans start after a reset, leaves
            `[batch, heads, 1, ...]`. Rows have zeros if no step reads their reset
            state. None if there are no resets, or if the reset states are zeros.
        is_carried: Bool `[batch, 1, steps]`, true at steps whose span starts from
            `state`. None if there are no resets.
        returns_states: Whether the rule returns the state after every step, or only the
            last state.
    """

    values: PyTree
    state: PyTree
    reads: Array
    reset_state: PyTree = None
    is_carried: Array | None = None
    returns_states: bool = False

    @property
    def follows(self) -> Array:
        """Bool `[batch, 1, steps]`, false at the first step of each span.

        If there are no resets, the first axis has size 1.
        """
        return jnp.any(jnp.tril(self.reads, -1), axis=-1)

    def start(self, of: Callable[[PyTree], Array]) -> Array:
        """Returns `of(state)` for the state from which each step's span starts.

        The shape is `[batch, heads, 1 or steps, ...]`.

        Args:
            of: Selects a leaf of a state, `[batch, heads, 1 or steps, ...]`.
        """
        carried = of(self.state)
        if self.is_carried is None:
            return carried
        reset = 0.0 if self.reset_state is None else of(self.reset_state)
        return jnp.where(expand_rows(self.is_carried, carried), carried, reset)

    def read(self, q: Array, of: Callable[[PyTree], Array]) -> Array:
        """Computes `q S`, `[batch, heads, steps, value]`, for the S from `start`.

        Args:
            q: `[batch, heads, steps, key]`.
            of: Returns a state's matrices, `[batch, heads, 1 or steps, key, value]`.
        """
        carried = of(self.state)[:, :, 0]
        product = "bntk,bnkv->bntv"
        if self.is_carried is None:
            return jnp.einsum(product, q, carried)
        mask = self.is_carried[..., None]
        if self.reset_state is None:
            return jnp.where(mask, jnp.einsum(product, q, carried), 0.0)
        # One matrix product with both states is faster than two.
        reset = of(self.reset_state)[:, :, 0]
        both = jnp.concatenate([carried, reset], axis=-1)
        old, new = jnp.split(jnp.einsum(product, q, both), 2, axis=-1)
        return jnp.where(mask, old, new)

    def sums(self, x: Array) -> Array:
        """Cumulative sums of `x`, `[batch, heads, steps, ...]`, within each span."""
        coarse, fine = self.sums_of_parts(x)
        return coarse + fine

    def sums_between(self, x: Array) -> Array:
        """Sums `x` over the steps from s + 1 to t if t reads s; otherwise -inf.

        If `x` are the logarithms of decays, `exp` of the result is the product of the
        decays between each pair of steps, or 0 where t does not read s. The rounding
        errors are relative to these sums if no `x` is below -128.

        Args:
            x: `[batch, heads, steps]`.

        Returns:
            `[batch, heads, t, s]`.
        """
        coarse, fine = (
            sums[..., :, None] - sums[..., None, :] for sums in self.sums_of_parts(x)
        )
        return jnp.where(self.reads, coarse + fine, -jnp.inf)

    def sums_of_parts(self, x: Array) -> tuple[Array, Array]:
        """Splits `sums(x)` into exact coarse sums and small fine sums.

        The difference of two sums of `x` would have the rounding errors of the sums,
        which may be much larger than the difference. So each number is split into a
        multiple of `unit` and a small rest. `unit` is so large that the dtype
        represents all sums of multiples exactly. Only the fine sums have derivatives.

        Args:
            x: `[batch, heads, steps, ...]`, at least -128.
        """
        bits_of_largest = 7 + (x.shape[2] - 1).bit_length()
        unit = 2.0 ** (bits_of_largest - jnp.finfo(x.dtype).nmant - 1)
        coarse = unit * jnp.floor(x / unit)
        return self._sums(coarse), self._sums(x - coarse)

    def _sums(self, x: Array) -> Array:
        # CPUs compute a matrix product faster than `cumsum`. But the transpose of the
        # product multiplies the cotangents of steps that do not read x by 0, which
        # gives NaN if a score overflowed. So the derivative is taken from masked sums.
        product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        if x.ndim == 3:
            sums = product(x, self.reads[:, 0].mT.astype(x.dtype))
            read = jnp.where(self.reads, x[..., None, :], 0.0)
            return straight_through(sums, jnp.sum(read, axis=-1))
        # A mask for each row and head keeps XLA from transposing x.
        ones = jnp.ones_like(x[:, :, None, :, 0])
        sums = product(jnp.where(self.reads, ones, 0.0), x)
        if self.is_carried is None:
            return straight_through(sums, jnp.cumsum(x, axis=2))

        # A masked sum, as above, would need an array over all pairs of steps.
        def joined(first: tuple, second: tuple) -> tuple[Array, Array]:
            (follows_first, x), (follows, y) = first, second
            return follows_first & follows, y + jnp.where(follows, x, 0.0)

        given = expand_rows(self.follows, x), x
        _, same = jax.lax.associative_scan(joined, given, axis=2)
        return straight_through(sums, same)

    def maxima(self, x: Array) -> Array:
        """Cumulative maxima of `x`, `[batch, heads, steps]`, within each span."""
        if self.is_carried is None:
            return jax.lax.cummax(x, axis=x.ndim - 1)
        # CPUs reduce the second-to-last axis faster than the last.
        read = jnp.where(self.reads.mT, x[..., None], -jnp.inf)
        return jnp.max(read, axis=-2)

    def scores(self, q: Array, k: Array, pairs: Array) -> Array:
        """Computes `dot(q_t, k_s) pairs_ts` if t reads s, otherwise 0.

        The shape is `[batch, heads, t, s]`. If t does not read s, a product may
        overflow; the zero in `pairs` stops its derivative.

        Args:
            q: The queries, `[batch, heads, steps, key]`.
            k: The keys, `[batch, heads, steps, key]`.
            pairs: The factors of the pairs, `[batch, heads, t, s]`, with zeros where t
                does not read s.
        """
        products = jnp.einsum("bntk,bnsk->bnts", q, k) * pairs
        return jnp.where(self.reads, products, 0.0)

    def pairs(self, log_read: Array, log_written: Array) -> Array:
        """Computes `exp(log_read_t + log_written_s)` if t reads s, otherwise 0.

        The shape is `[batch, heads, t, s]`.

        Args:
            log_read: `[batch, heads, steps]`, finite.
            log_written: `[batch, heads, steps]`, finite or -inf.
        """
        # XLA for CPUs would compute a sum's terms again for each pair of steps, but not
        # the factors of a product. The factors must be finite, because TPUs split them.
        log_written = jnp.maximum(log_written, jnp.finfo(log_written.dtype).min / 2)
        one = jnp.ones_like(log_read)
        of_read = jnp.stack([log_read, one], axis=-1)
        of_written = jnp.stack([one, log_written], axis=-2)
        sums = jnp.matmul(of_read, of_written, precision=jax.lax.Precision.HIGHEST)
        return jnp.exp(jnp.where(self.reads, sums, -jnp.inf))

    def after(self, x: Array) -> Array:
        """Selects the steps of `x` whose states a rule returns: all, or the last.

        Args:
            x: `[batch, heads, steps, ...]`.
        """
        return x if self.returns_states else x[:, :, -1:]

    def ends(self) -> "Chunk":
        """Returns a chunk whose `start` covers only the steps that `after` selects."""
        is_carried = jax.tree.map(self.after, self.is_carried)
        return dataclasses.replace(self, is_carried=is_carried)

    def map_states(self, of: Callable[[PyTree], PyTree]) -> "Chunk":
        """Applies `of` to the state before the chunk and to the reset state."""
        reset = None if self.reset_state is None else of(self.reset_state)
        return dataclasses.replace(self, state=of(self.state), reset_state=reset)

    def memory(
        self,
        of: Callable[[PyTree], Array],
        keep: Array,
        pairs: Array,
        k: Array,
        u: Array,
    ) -> Array:
        """Computes the states that a rule returns, `[batch, heads, n, key, value]`.

        n is the number of steps if `returns_states` is true, otherwise 1.

        Args:
            of: Returns a state's matrices, `[batch, heads, 1 or steps, key, value]`.
            keep: For each step, the product of the decays from the first step of its
                span to the step, scaled like the state, `[batch, heads, steps]`.
            pairs: For steps t and s, the product of the decays from step s + 1 to step
                t, scaled likewise, `[batch, heads, t, s]`, with zeros where s > t or
                where s and t belong to different spans; see `sums_between`.
            k: The keys, `[batch, heads, steps, key]`.
            u: The written values, `[batch, heads, steps, value]`.
        """
        ends = self.ends()
        keys = scaled(self.after(pairs), k[:, :, None])
        written = jnp.einsum("bntsk,bnsv->bntkv", keys, u)
        return scaled(self.after(keep), ends.start(of)) + written
