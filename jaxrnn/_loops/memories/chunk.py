"""The chunk of steps of a matrix memory that a rule runs at once.

A step writes a value u at a key k, and reads with a query q. With vectors as rows,

    S_t = a_t S_{t-1} + outer(k_t, u_t)        S: [key, value]
    o_t = q_t S_t

In a chunk, the steps of a row form *spans*: each reset begins a span. Step t's
span starts from a state S, which is the state before the chunk or a reset state.
If `keep_t` is the product of the a's from the span's first step to step t, and
`pairs_ts` is the product of the a's from step s + 1 to step t, then

    S_t = keep_t S + sum over s of pairs_ts outer(k_s, u_s)
    o_t = keep_t q_t S + sum over s of pairs_ts dot(q_t, k_s) u_s

where the sums run over the steps s <= t in the span of t. So o_t is the sum of a
product with S and an attention from step t to the steps of its span.
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
    """What the steps of a chunk read and write, and the states before the spans.

    A *span* is the steps of a row, in this chunk, from one reset to the next. The
    methods are parts of formulas for a chunk: with them, a rule need not know about
    spans.

    Attributes:
        values: What the steps read and write, which is the second result of the cell's
            `project`; leaves `[batch, heads, steps, ...]`. Finished steps have the
            values `idle` of the rule.
        state: The state before the chunk, leaves `[batch, heads, 1, ...]`. If there are
            resets, with zeros where no step reads it.
        reads: Bool `[batch, 1, t, s]`, true where step t reads what step s writes:
            where s <= t, and s and t are in one span. If there are no resets, the
            first axis has size 1.
        reset_state: The state from which spans start after a reset, leaves
            `[batch, heads, 1, ...]`, with zeros where no step reads it. None if there
            are no resets, or if the reset states are zeros.
        is_carried: Bool `[batch, 1, steps]`, true at steps whose span starts from
            `state`. None if there are no resets.
        returns_states: Whether a rule returns the state after every step. If False, it
            returns only the last state.
    """

    values: PyTree
    state: PyTree
    reads: Array
    reset_state: PyTree = None
    is_carried: Array | None = None
    returns_states: bool = False

    @property
    def follows(self) -> Array:
        """Where a step follows a step of its span, bool `[batch, 1, steps]`.

        If there are no resets, the first axis has size 1.
        """
        return jnp.any(jnp.tril(self.reads, -1), axis=-1)

    def start(self, of: Callable[[PyTree], Array]) -> Array:
        """`of(state)` for the state from which each step's span starts.

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
        """`q S`, `[batch, heads, steps, value]`, for the S from `start`.

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
        """Sums of `x` over the steps from s + 1 to t where t reads s, otherwise -inf.

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
        """Two arrays whose sum is `sums(x)`: exact sums, and sums of small numbers.

        The difference of two sums of `x` would have the rounding errors of the sums,
        which may be much larger than the difference. The coarse part of each number is
        therefore a multiple of `unit`, the least number of which the dtype represents
        all multiples up to 128 for each step. Only the fine parts have derivatives.

        Args:
            x: `[batch, heads, steps, ...]`, at least -128.
        """
        bits_of_largest = 7 + (x.shape[2] - 1).bit_length()
        unit = 2.0 ** (bits_of_largest - jnp.finfo(x.dtype).nmant - 1)
        coarse = unit * jnp.floor(x / unit)
        return self._sums(coarse), self._sums(x - coarse)

    def _sums(self, x: Array) -> Array:
        # CPUs compute a product faster than `cumsum`. But the transpose of the product
        # would multiply the cotangents of steps that do not read x by 0, and they are
        # NaN where a score overflowed.
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

        # A sum with a mask would hold all pairs of steps.
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
        """`dot(q_t, k_s) pairs_ts` where t reads s, otherwise 0.

        The shape is `[batch, heads, t, s]`. Where t does not read s, a product may
        overflow; the mask in `pairs` stops its derivative.

        Args:
            q: The queries, `[batch, heads, steps, key]`.
            k: The keys, `[batch, heads, steps, key]`.
            pairs: The factors of the pairs, `[batch, heads, t, s]`, with zeros where t
                does not read s.
        """
        products = jnp.einsum("bntk,bnsk->bnts", q, k) * pairs
        return jnp.where(self.reads, products, 0.0)

    def pairs(self, log_read: Array, log_written: Array) -> Array:
        """`exp(log_read_t + log_written_s)` where t reads s, otherwise 0.

        The shape is `[batch, heads, t, s]`.

        Args:
            log_read: `[batch, heads, steps]`.
            log_written: `[batch, heads, steps]`.
        """
        sums = log_read[..., :, None] + log_written[..., None, :]
        return jnp.exp(jnp.where(self.reads, sums, -jnp.inf))

    def after(self, x: Array) -> Array:
        """The steps of `x`, along axis 2, after which a rule returns the states.

        Args:
            x: `[batch, heads, steps, ...]`.
        """
        return x if self.returns_states else x[:, :, -1:]

    def ends(self) -> "Chunk":
        """The chunk with `start` only for the steps in `after`."""
        is_carried = jax.tree.map(self.after, self.is_carried)
        return dataclasses.replace(self, is_carried=is_carried)

    def map_states(self, of: Callable[[PyTree], PyTree]) -> "Chunk":
        """The chunk with `of(state)` in place of each state before a span."""
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
        """The matrices that a rule returns, `[batch, heads, n, key, value]`.

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
