"""What a rule of a matrix memory is, and the chunk of steps that a rule runs at once.

A step writes a value u at a key k, and reads with a query q. With vectors as rows,

    S_t = a_t S_{t-1} + outer(k_t, u_t)        S: [key, value]
    o_t = q_t S_t

In a chunk, the steps of a row form *spans*: each restart begins a span. Step t's
span starts from a state S, which is the state before the chunk or a restart state.
If `keep_t` is the product of the a's from the span's first step to step t, and
`pairs_ts` is the product of the a's from step s + 1 to step t, then

    S_t = keep_t S + sum over s of pairs_ts outer(k_s, u_s)
    o_t = keep_t q_t S + sum over s of pairs_ts dot(q_t, k_s) u_s

where the sums run over the steps s <= t in the span of t. So o_t is the sum of a
product with S and an attention from step t to the steps of its span.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..._base.derivatives import with_tangent_of
from ..._base.errors import expect, is_array
from ..._base.math import cast_like, expand_rows
from ..._base.scaled import scaled
from ..._base.typing import Array, PyTree, Size
from ..base import check_overrides


@dataclasses.dataclass(frozen=True)
class Chunk:
    """What the steps of a chunk read and write, and the states before the spans.

    A *span* is the steps of a row, in this chunk, from one restart to the next. The
    methods are parts of formulas for a chunk: with them, a rule need not know about
    spans.

    Attributes:
        values: What the steps read and write, which is the second result of the cell's
            `project`; leaves `[batch, heads, steps, ...]`. Finished steps have the
            values `idle` of the rule.
        state: The state before the chunk, leaves `[batch, heads, 1, ...]`. If there are
            restarts, with zeros where no step reads it.
        reads: Bool `[batch, 1, t, s]`, true where step t reads what step s writes:
            where s <= t, and s and t are in one span. If there are no restarts, the
            first axis has size 1.
        restart_states: The state from which spans start after a restart, leaves
            `[batch, heads, 1, ...]`, with zeros where no step reads it. None if there
            are no restarts, or if the restart states are zeros.
        is_carried: Bool `[batch, 1, steps]`, true at steps whose span starts from
            `state`. None if there are no restarts.
        returns_states: Whether a rule returns the state after every step. If False, it
            returns only the last state.
    """

    values: PyTree
    state: PyTree
    reads: Array
    restart_states: PyTree = None
    is_carried: Array | None = None
    returns_states: bool = False

    @property
    def follows(self) -> Array:
        """Where a step follows a step of its span, bool `[batch, 1, steps]`.

        If there are no restarts, the first axis has size 1.
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
        restarted = 0.0 if self.restart_states is None else of(self.restart_states)
        return jnp.where(expand_rows(self.is_carried, carried), carried, restarted)

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
        if self.restart_states is None:
            return jnp.where(mask, jnp.einsum(product, q, carried), 0.0)
        # One matrix product with both states is faster than two.
        restarted = of(self.restart_states)[:, :, 0]
        both = jnp.concatenate([carried, restarted], axis=-1)
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
            return with_tangent_of(sums, jnp.sum(read, axis=-1))
        # A mask for each row and head keeps XLA from transposing x.
        ones = jnp.ones_like(x[:, :, None, :, 0])
        sums = product(jnp.where(self.reads, ones, 0.0), x)
        if self.is_carried is None:
            return with_tangent_of(sums, jnp.cumsum(x, axis=2))

        # A sum with a mask would hold all pairs of steps.
        def joined(first: tuple, second: tuple) -> tuple[Array, Array]:
            (follows_first, x), (follows, y) = first, second
            return follows_first & follows, y + jnp.where(follows, x, 0.0)

        given = expand_rows(self.follows, x), x
        _, same = jax.lax.associative_scan(joined, given, axis=2)
        return with_tangent_of(sums, same)

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
        restarted = None if self.restart_states is None else of(self.restart_states)
        return dataclasses.replace(self, state=of(self.state), restart_states=restarted)

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


class MatrixRule(abc.ABC):
    """An immutable rule for how a step changes and reads a matrix memory.

    A cell has a rule, and computes the values of the rule from its inputs. A rule
    defines `Inputs`, `idle`, `sizes` and `step`. With `chunk`, whole sequences run one
    chunk of steps at a time; without it, step by step. A rule that overrides `step`
    must override an inherited `chunk`, and with `chunk` an inherited `transition`.

    Attributes:
        Inputs: The values of a step, a named tuple. For a `BareMemoryCell`, the first
            two are the queries `q` and the keys `k`, `[batch, heads, key]`.
        idle: The values of a step that does not change the state, as scalars.
        chunk: A method `chunk(self, chunk)`, which runs all steps of a `Chunk` at once,
            and returns `(h, states)`; None if the rule has no such method. `h` is what
            the steps read, `[batch, heads, steps, size]`. `states` have leaves
            `[batch, heads, n, ...]`. If `chunk.returns_states`, these are the states
            after each step, otherwise only the last state (n = 1). The results must
            equal those of `step`, which `jaxrnn.testing.check_cell` compares.
    """

    Inputs: ClassVar[Any]
    idle: ClassVar[PyTree]
    chunk: Any = None

    def __init_subclass__(cls, **options: object) -> None:
        """Rejects a rule whose parts do not belong together."""
        super().__init_subclass__(**options)
        fix = "Derive the rule from `jaxrnn.extend.MatrixRule` instead."
        check_overrides(cls, ("step",), "chunk", MatrixRule, fix)
        check_overrides(cls, ("chunk",), "transition", MatrixRule, fix)
        if cls.step is MatrixRule.step:
            return
        inputs: Any = getattr(cls, "Inputs", None)
        idle: Any = getattr(cls, "idle", None)
        is_named = isinstance(inputs, type) and hasattr(inputs, "_fields")
        name = f"{cls.__name__}.Inputs"
        expect(is_named, name, "be a class of named tuples", inputs, error=TypeError)
        name = f"{cls.__name__}.idle"
        is_number = lambda x: isinstance(x, int | float) or (is_array(x) and not x.ndim)
        fits = isinstance(idle, inputs) and all(map(is_number, idle))
        expect(fits, name, "be an `Inputs` of numbers", idle, error=TypeError)

    @abc.abstractmethod
    def sizes(self, heads: int, key: int, value: int) -> tuple[Size, Size]:
        """The sizes of the values and of the state, without the batch axis.

        Each size is a `TensorShape`, and its first axis has the size `heads`. A part of
        the state of size `[heads]` is the logarithm of a scale, and may be -inf.

        Args:
            heads: The number of heads.
            key: The size of the keys of a head.
            value: The size of the values of a head.

        Returns:
            `(values, state)`: an `Inputs` of sizes, and one size or a nest of sizes.
        """

    @abc.abstractmethod
    def step(self, values: PyTree, state: PyTree) -> tuple[Array, PyTree]:
        """Runs one step, which defines the rule.

        Args:
            values: The values of the step, leaves `[batch, heads, ...]`.
            state: The state before the step, leaves `[batch, heads, ...]`.

        Returns:
            `(h, state)`: what the step reads, `[batch, heads, size]`, and the new
            state.
        """

    def stored(self, like: PyTree, state: PyTree) -> PyTree:
        """`state`, cast to the dtypes of `like`; also with a time axis."""
        return cast_like(like, state)

    def transition(self) -> tuple[Callable, Callable, Callable, Callable] | None:
        """How the state after several steps depends on the state before them.

        Returns:
            `(chunk, identity, constant, map)`, or None if the dependence has no simple
            form. A *map* is a nest of arrays that represents a function from a state to
            the state some steps later, such as the factors A and B of `A h + B`.
            `chunk` is the method `chunk` with maps in place of states.
            `identity(state)` is the map of each state to itself, for states like
            `state`. `constant(state)` is the map of all states to `state`.
            `map(transition, state)` is the state to which the map `transition` maps
            `state`; both arguments are finite.
        """
        return None
