"""Attention mechanisms, and `AttentionMemory`, the memory that they read.

A mechanism scores each memory entry (Luong's or Bahdanau's score) and turns the scores
into alignments, either with a softmax or with monotonic attention, which moves only
from left to right.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import ones, zeros

from jaxrnn import ParamSpec, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, ArrayLike, DType, Key, Lengths, Params, Specs

from .._cells.fields import Hyperparameters, snake_case

_NO_MEMORY = (
    "Pass the size of a memory entry here, and the memory to "
    "`AttentionWrapper.initial_state`."
)
_MODES = ("recursive", "parallel", "hard")


def _as_mode(name: str, mode: str) -> str:
    must = f"be one of {', '.join(map(repr, _MODES))}"
    extend.expect(mode in _MODES, name, must, mode)
    return mode


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionMemory:
    """The memory of an attention mechanism, as part of a state.

    Attributes:
        memory: `[batch, memory_time, memory_depth]`, zeros beyond the lengths.
        lengths: int32 `[batch]`, or `()` for the whole memory, because a state must not
            contain None.
        keys: The keys, `[batch, memory_time, num_units]`, or `()` before a run starts.
        own_values: The values that `custom_key_value_fn` returned,
            `[batch, memory_time, depth]`; `()` to use the memory.
    """

    memory: Array
    lengths: Array | tuple[()] = ()
    keys: Array | tuple[()] = ()
    own_values: Array | tuple[()] = ()

    @property
    def values(self) -> Array:
        """The values, `[batch, memory_time, depth]`, which contexts are sums of."""
        return self.memory if isinstance(self.own_values, tuple) else self.own_values

    @property
    def valid(self) -> Array | None:
        """Bool `[batch, memory_time]`, true within the lengths. None: no lengths."""
        if isinstance(self.lengths, tuple):
            return None
        places = jnp.arange(self.memory.shape[1], dtype=jnp.int32)
        return places[None, :] < self.lengths[:, None]

    def without_padding(self, x: Array) -> Array:
        """Sets x, `[batch, memory_time, ...]`, to zero beyond the lengths."""
        if self.valid is None:
            return x
        valid = jnp.expand_dims(self.valid, tuple(range(2, x.ndim)))
        return jnp.where(valid, x, jnp.zeros((), x.dtype))


class AttentionMechanism(Hyperparameters, abc.ABC):
    """An attention mechanism, which holds hyperparameters but no memory.

    Pass the memory, `[batch, memory_time, memory_depth]`, to
    `AttentionWrapper.initial_state`. To write a custom mechanism, derive a
    `dataclass(frozen=True, eq=False)` from an existing mechanism, e.g.
    `LuongAttention`, and override any of `param_specs`, `score`, `probabilities` and
    `next_state`.

    Attributes:
        num_units: The size of the keys.
        memory_depth: The size of a memory entry.
        score_mask_value: The score of memory entries beyond the lengths. Default: minus
            infinity.
        dtype: The required dtype of the memory. Default: any dtype.
        name: Accepted for compatibility with TensorFlow, but ignored.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a size is less than 1.

    Source: `tf.contrib.seq2seq.AttentionMechanism`.
    """

    num_units: int
    memory_depth: int

    score_mask_value: float | None
    dtype: DType | None
    probability_fn: Callable[[Array], Array] | None = None
    custom_key_value_fn: Callable[..., tuple[Array, Array]] | None = None

    is_random: Any = False
    """Whether `probabilities` draws random numbers when it receives a key."""

    scope = property(lambda self: snake_case(type(self).__name__))
    """The scope of the mechanism's variables in TensorFlow, e.g. `luong_attention`."""

    @abc.abstractmethod
    def param_specs(self, query_depth: int) -> Specs:
        """Specs of the mechanism's parameters, without the memory layer.

        `query_depth` is the size of the queries.
        """

    @abc.abstractmethod
    def score(
        self, params: Params, query: Array, keys: Array, previous: Array
    ) -> Array:
        """Scores how well each key matches each query; all scores must be finite.

        A row of the memory may have several queries, e.g. one per beam. The other
        methods receive one query per row, so their `batch` is `rows * queries`.

        Args:
            params: The parameters that `param_specs` describes.
            query: `[rows, queries, query_depth]`.
            keys: `[rows, memory_time, num_units]`.
            previous: The result of `next_state` in the previous step, by default the
                alignments, `[rows, queries, memory_time]`, which are zero beyond the
                lengths.

        Returns:
            `[rows, queries, memory_time]`.
        """

    @abc.abstractmethod
    def probabilities(self, score: Array, previous: Array, key: Key | None) -> Array:
        """Turns scores into alignments, `[batch, memory_time]`.

        Args:
            score: The scores, `[batch, memory_time]`, with `score_mask_value` beyond
                the lengths.
            previous: The result of `next_state` in the previous step.
            key: The random key of the step. None if the cell is bound without a key.
        """

    def next_state(self, alignments: Array, previous: Array) -> Array:
        """Returns the argument `previous` of the next step, by default the alignments.

        Args:
            alignments: `[batch, memory_time]`, zero beyond the lengths.
            previous: The result of this method in the previous step; in the first step,
                `initial_alignments`.
        """
        return alignments

    def memory_specs(self) -> Specs:
        """Specs of the memory layer, which maps memory entries to keys."""
        shape = (self.memory_depth, self.num_units)
        return {"kernel": ParamSpec(shape, extend.glorot_uniform)}

    def with_keys(self, params: Params, memory: AttentionMemory) -> AttentionMemory:
        """Adds keys to `memory`, computed with the memory layer's `params`."""
        keys = jnp.dot(memory.memory, params["kernel"])
        if self.custom_key_value_fn is None:
            return dataclasses.replace(memory, keys=keys)
        keys, values = self.custom_key_value_fn(keys, memory.memory)
        return dataclasses.replace(
            memory,
            keys=memory.without_padding(keys),
            own_values=memory.without_padding(values),
        )

    def context_depth(self) -> int:
        """The size of a context vector."""
        if self.custom_key_value_fn is None:
            return self.memory_depth
        keys = jax.ShapeDtypeStruct((1, 1, self.num_units), jnp.float32)
        memory = jax.ShapeDtypeStruct((1, 1, self.memory_depth), jnp.float32)
        _, values = jax.eval_shape(self.custom_key_value_fn, keys, memory)
        return values.shape[-1]

    def initial_alignments(self, rows: int, memory_time: int, dtype: DType) -> Array:
        """The alignments before the first step: zeros `[rows, memory_time]`."""
        return jnp.zeros((rows, memory_time), dtype)


@fields.dataclass
class LuongScore(AttentionMechanism):
    """A mechanism with multiplicative scores; see `LuongAttention`."""

    num_units: int = fields.count()
    memory_depth: int = fields.count(fix=_NO_MEMORY)
    scale: bool = fields.flag(False)

    def param_specs(self, query_depth: int) -> Specs:
        """Specs of `attention_g` if `scale` is True; otherwise empty.

        Raises:
            ValueError: If queries and keys differ in size.
        """
        must = f"be {query_depth}, the size of the cell's output"
        fix = "For other sizes, use `BahdanauAttention`."
        units = self.num_units
        extend.expect(units == query_depth, "num_units", must, units, fix)
        return {"attention_g": ParamSpec((), ones)} if self.scale else {}

    def score(
        self, params: Params, query: Array, keys: Array, previous: Array
    ) -> Array:
        """The inner products, optionally scaled; see `AttentionMechanism.score`."""
        score = jnp.einsum("bqu,btu->bqt", query, keys)
        return params["attention_g"] * score if self.scale else score


@fields.dataclass
class BahdanauScore(AttentionMechanism):
    """A mechanism with additive scores; see `BahdanauAttention`."""

    num_units: int = fields.count()
    memory_depth: int = fields.count(fix=_NO_MEMORY)
    normalize: bool = fields.flag(False)

    def param_specs(self, query_depth: int) -> Specs:
        """Specs of the query layer and of the score's parameters."""
        units = self.num_units
        specs: Specs = {
            "query_layer": {
                "kernel": ParamSpec((query_depth, units), extend.glorot_uniform)
            },
            "attention_v": ParamSpec((units,), extend.glorot_uniform),
        }
        if self.normalize:
            norm = jax.nn.initializers.constant(math.sqrt(1 / units))
            specs["attention_g"] = ParamSpec((), norm)
            specs["attention_b"] = ParamSpec((units,), zeros)
        return specs

    def score(
        self, params: Params, query: Array, keys: Array, previous: Array
    ) -> Array:
        """The additive scores; see `AttentionMechanism.score`."""
        query = jnp.dot(query, params["query_layer"]["kernel"])
        v = params["attention_v"]
        if self.normalize:
            query = query + params["attention_b"][None, None, :]
            # If v is 0, the score is 0. In TensorFlow, it is NaN.
            square = jnp.sum(jnp.square(v))
            square = jnp.where(square > 0, square, jnp.ones_like(square))
            v = params["attention_g"] * v * jax.lax.rsqrt(square)
        hidden = jnp.tanh(keys[:, None] + query[:, :, None])
        return jnp.einsum("bqtu,u->bqt", hidden, v)


@fields.dataclass
class _SoftmaxMechanism(AttentionMechanism):
    """Computes alignments with a softmax; see `LuongAttention` for the fields."""

    probability_fn: Callable[[Array], Array] | None = fields.checked(
        extend.check_function, default=None
    )
    score_mask_value: float | None = fields.number(None)
    dtype: DType | None = fields.dtype()
    custom_key_value_fn: Callable[..., tuple[Array, Array]] | None = fields.checked(
        extend.check_function, default=None
    )
    name: object = fields.unused()

    def probabilities(self, score: Array, previous: Array, key: Key | None) -> Array:
        """Applies `probability_fn` to the scores."""
        return (self.probability_fn or jax.nn.softmax)(score)


@fields.dataclass
class LuongAttention(_SoftmaxMechanism, LuongScore):
    """Multiplicative attention.

    For each query::

        keys       = memory memory_layer/kernel
        score      = attention_g * (keys . query)
        alignments = probability_fn(score)

    The queries are the outputs of the cell, so the cell's output size must be
    `num_units`.

    Attributes:
        num_units: The size of keys and queries.
        memory_depth: The size of a memory entry.
        scale: Whether to multiply the scores by a learned scalar `attention_g`.
        probability_fn: `probability_fn(score) -> alignments`, both
            `[batch, memory_time]`. Default: softmax.
        score_mask_value: The score of memory entries beyond the lengths. Default: minus
            infinity.
        dtype: The required dtype of the memory. Default: any dtype.
        custom_key_value_fn: `custom_key_value_fn(keys, values) -> (keys, values)`,
            called once per run. By default, the keys stay unchanged, and the values are
            the memory.
        name: Accepted for compatibility with TensorFlow, but ignored.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a size is less than 1.

    Source: arXiv:1508.04025; `tf.contrib.seq2seq.LuongAttention`.
    """


@fields.dataclass
class BahdanauAttention(_SoftmaxMechanism, BahdanauScore):
    """Additive attention.

    For each query::

        keys       = memory memory_layer/kernel
        score      = v . tanh(keys + query query_layer/kernel + b)
        alignments = probability_fn(score)

    By default, v is `attention_v` and b is zero. With `normalize`, v is
    `attention_g * attention_v / |attention_v|` and b is `attention_b`.

    Attributes:
        num_units: The size of the keys.
        memory_depth: The size of a memory entry.
        normalize: Whether to normalize v, the vector `attention_v`.
        probability_fn: `probability_fn(score) -> alignments`, both
            `[batch, memory_time]`. Default: softmax.
        score_mask_value: The score of memory entries beyond the lengths. Default: minus
            infinity.
        dtype: The required dtype of the memory. Default: any dtype.
        custom_key_value_fn: `custom_key_value_fn(keys, values) -> (keys, values)`,
            called once per run. By default, the keys stay unchanged, and the values are
            the memory.
        name: Accepted for compatibility with TensorFlow, but ignored.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a size is less than 1.

    Source: arXiv:1409.0473, arXiv:1602.07868; `tf.contrib.seq2seq.BahdanauAttention`.
    """


def hardmax(logits: Array) -> Array:
    """Returns one-hot rows with 1 at the first maximum of each row, `[batch, classes]`.

    Args:
        logits: `[batch, classes]`.

    Source: `tf.contrib.seq2seq.hardmax`.
    """
    best = jnp.argmax(logits, axis=-1)
    return jax.nn.one_hot(best, logits.shape[-1], dtype=logits.dtype)


@fields.dataclass
class _MonotonicMechanism(AttentionMechanism):
    """Computes monotonic alignments from the scores and the previous alignments.

    See `BahdanauMonotonicAttention` for the fields and the errors of their checks.
    """

    score_mask_value: float | None = fields.number(None)
    sigmoid_noise: float = fields.number(0.0, low=0)
    sigmoid_noise_seed: int | None = fields.count(default=None, least=0, most=2**32 - 1)
    score_bias_init: float = fields.number(0.0)
    mode: str = fields.checked(_as_mode, default="parallel")
    dtype: DType | None = fields.dtype()
    name: object = fields.unused()

    is_random = property(lambda self: self.sigmoid_noise > 0)

    def param_specs(self, query_depth: int) -> Specs:
        """Specs of the score's parameters and of a scalar bias for all scores."""
        bias = ParamSpec((), jax.nn.initializers.constant(self.score_bias_init))
        return super().param_specs(query_depth) | {"attention_score_bias": bias}

    def score(
        self, params: Params, query: Array, keys: Array, previous: Array
    ) -> Array:
        """The score plus the bias; see `AttentionMechanism.score`."""
        score = super().score(params, query, keys, previous)
        return score + params["attention_score_bias"]

    def probabilities(self, score: Array, previous: Array, key: Key | None) -> Array:
        """Adds noise if there is a key, then applies `monotonic_attention`."""
        if self.is_random and key is not None:
            key = jax.random.fold_in(key, self.sigmoid_noise_seed or 0)
            noise = jax.random.normal(key, score.shape, score.dtype)
            score = score + jnp.asarray(self.sigmoid_noise, score.dtype) * noise
        is_hard = self.mode == "hard"
        chosen = (score > 0).astype(score.dtype) if is_hard else jax.nn.sigmoid(score)
        return monotonic_attention(chosen, previous, self.mode)

    def initial_alignments(self, rows: int, memory_time: int, dtype: DType) -> Array:
        """The alignments before the first step: 1 at the first entry, 0 elsewhere."""
        return jax.nn.one_hot(jnp.zeros(rows, jnp.int32), memory_time, dtype=dtype)


@fields.dataclass
class BahdanauMonotonicAttention(_MonotonicMechanism, BahdanauScore):
    """Additive monotonic attention, with `BahdanauAttention`'s score and a bias.

    For each query::

        score      = score of BahdanauAttention + attention_score_bias
        alignments = monotonic_attention(sigmoid(score + noise), previous, mode)

    With `mode="hard"`, the sigmoid is replaced by a step function: 1 where
    `score + noise` is positive, 0 elsewhere.

    Attributes:
        num_units: The size of the keys.
        memory_depth: The size of a memory entry.
        normalize: Whether to normalize v, the vector `attention_v`.
        score_mask_value: The score of memory entries beyond the lengths. Default: minus
            infinity.
        sigmoid_noise: The standard deviation of the noise that is added to the scores.
            Noise during training leads to alignments that are more certain. The random
            key comes from `cell.bind(params, key)`.
        sigmoid_noise_seed: Mechanisms with different seeds draw different noise from
            the same key.
        score_bias_init: The initial `attention_score_bias`.
        mode: "recursive", "parallel" or "hard"; see `monotonic_attention`.
        dtype: The required dtype of the memory. Default: any dtype.
        name: Accepted for compatibility with TensorFlow, but ignored.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a size is less than 1, the noise is negative, the seed is not in
            `[0, 2**32)`, or `mode` is unknown.

    Source: arXiv:1704.00784; `tf.contrib.seq2seq.BahdanauMonotonicAttention`.
    """


@fields.dataclass
class LuongMonotonicAttention(_MonotonicMechanism, LuongScore):
    """Multiplicative monotonic attention, with `LuongAttention`'s score and a bias.

    For each query::

        score      = score of LuongAttention + attention_score_bias
        alignments = monotonic_attention(sigmoid(score + noise), previous, mode)

    With `mode="hard"`, the sigmoid is replaced by a step function: 1 where
    `score + noise` is positive, 0 elsewhere.

    Attributes:
        num_units: The size of keys and queries.
        memory_depth: The size of a memory entry.
        scale: Whether to multiply the scores by a learned scalar `attention_g`.
        score_mask_value: The score of memory entries beyond the lengths. Default: minus
            infinity.
        sigmoid_noise: The standard deviation of the noise that is added to the scores.
            Noise during training leads to alignments that are more certain. The random
            key comes from `cell.bind(params, key)`.
        sigmoid_noise_seed: Mechanisms with different seeds draw different noise from
            the same key.
        score_bias_init: The initial `attention_score_bias`.
        mode: "recursive", "parallel" or "hard"; see `monotonic_attention`.
        dtype: The required dtype of the memory. Default: any dtype.
        name: Accepted for compatibility with TensorFlow, but ignored.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a size is less than 1, the noise is negative, the seed is not in
            `[0, 2**32)`, or `mode` is unknown.

    Source: arXiv:1704.00784; `tf.contrib.seq2seq.LuongMonotonicAttention`.
    """


def monotonic_attention(
    p_choose_i: Array, previous_attention: Array, mode: str
) -> Array:
    """Computes the expected alignments of attention that moves from left to right.

    Each step starts at the entry where the previous step stopped, visits one entry
    after another, and stops at entry i with probability `p_choose_i`.

    Args:
        p_choose_i: `[batch, memory_time]`, in [0, 1].
        previous_attention: The result of the previous step, `[batch, memory_time]`;
            for the first step, 1 at the first entry and 0 elsewhere.
        mode: "recursive" is exact. "parallel" uses a closed form, which is inexact
            where products of `1 - p_choose_i` are less than 1e-10. "hard" is exact only
            if all probabilities are 0 or 1.

    Returns:
        `[batch, memory_time]`. The sum of a row is less than 1 if attention may move
        past the end of the memory.

    Raises:
        ValueError: If `mode` is unknown.

    Source: arXiv:1704.00784; `tf.contrib.seq2seq.monotonic_attention`.
    """
    _as_mode("mode", mode)
    p = jnp.asarray(p_choose_i)
    previous = jnp.asarray(previous_attention)
    if mode == "recursive":
        return p * _recursive(p, previous)
    if mode == "hard":
        p = p * jnp.cumsum(previous, axis=1)
        return p * _shifted(jnp.cumprod(1 - p, axis=1))
    # Compute the cumulative product of `1 - p` from logarithms, as TensorFlow does.
    tiny = jnp.finfo(p.dtype).tiny
    logs = jnp.cumsum(jnp.log(_clip(1 - p, tiny)), axis=1)
    passed = jnp.exp(_shifted(logs, first=0))
    least = max(1e-10, float(tiny))  # float16 rounds 1e-10 to 0.
    return p * passed * jnp.cumsum(previous / _clip(passed, least), axis=1)


def _recursive(p: Array, previous: Array) -> Array:
    """Computes q with `q[i] = (1 - p[i - 1]) * q[i - 1] + previous[i]`."""

    def compose(
        left: tuple[Array, Array], right: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        factor, term = right
        return left[0] * factor, left[1] * factor + term

    steps = (_shifted(1 - p), previous)
    _, q = jax.lax.associative_scan(compose, steps, axis=1)
    return q


def _shifted(x: Array, first: float = 1) -> Array:
    """Shifts the entries right by one and puts `first` before them."""
    return jnp.concatenate([jnp.full_like(x[:, :1], first), x[:, :-1]], axis=1)


def _clip(x: Array, low: ArrayLike) -> Array:
    """Clips x to [low, 1] with the full gradient at the bounds, unlike `jnp.clip`."""
    low = jnp.asarray(low, x.dtype)
    return jnp.where(x < low, low, jnp.where(x > 1, jnp.ones((), x.dtype), x))


def as_memories(
    mechanisms: Sequence[AttentionMechanism],
    memories: Sequence[ArrayLike],
    lengths: Sequence[Lengths | None],
) -> list[AttentionMemory]:
    """Checks the memories of all mechanisms; returns them with zeros in their padding.

    Args:
        mechanisms: The mechanisms, which set the depths and optionally the dtype.
        memories: For each mechanism, floating `[batch, memory_time, depth]`.
        lengths: For each mechanism, integers `[batch]`, or None for the whole memory.

    Raises:
        ValueError: If an array has the wrong shape, or the number of memories or
            lengths differs from the number of mechanisms.
        TypeError: If an array has the wrong dtype.
    """
    count = len(mechanisms)
    must = f"be a tuple of length {count}, with one entry per mechanism"
    for name, given in (("memory", memories), ("memory_sequence_length", lengths)):
        extend.expect(len(given) == count, name, must, given)
    made: list[AttentionMemory] = []
    for i, mechanism in enumerate(mechanisms):
        place = f"[{i}]" if count > 1 else ""
        name = f"memory{place}"
        memory = extend.as_arrays(name, memories[i])
        first = made[0].memory if made else memory
        depth = mechanism.memory_depth
        must = f"be [batch, memory_time, {depth}]"
        fix = "The last size is `memory_depth`. All memories have the same batch size."
        fits = memory.shape == (*first.shape[:1], *memory.shape[1:2], depth)
        extend.expect(fits, name, must, memory, fix)
        dtype = mechanism.dtype or first.dtype
        must = f"be floating-point, {dtype} like the mechanism or first memory"
        fits = memory.dtype == dtype and jnp.issubdtype(dtype, jnp.floating)
        extend.expect(fits, name, must, memory, error=TypeError)
        name, time = f"memory_sequence_length{place}", memory.shape[1]
        own_lengths = extend.as_lengths(lengths[i], len(memory), name, time)
        one = AttentionMemory(memory, () if own_lengths is None else own_lengths)
        made.append(dataclasses.replace(one, memory=one.without_padding(memory)))
    return made
