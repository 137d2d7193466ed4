"""Attention that moves over a memory only from left to right."""

import jax
import jax.numpy as jnp

from jaxrnn import ParamSpec, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, ArrayLike, DType, Key, Params, Specs

from .mechanisms import AttentionMechanism, BahdanauScore, LuongScore

_MODES = ("recursive", "parallel", "hard")


def _as_mode(name: str, mode: str) -> str:
    must = f"be one of {', '.join(map(repr, _MODES))}"
    extend.expect(mode in _MODES, name, must, mode)
    return mode


@fields.dataclass
class _MonotonicMechanism(AttentionMechanism):
    """A mechanism whose alignments depend on the scores and on earlier alignments.

    `BahdanauMonotonicAttention` describes the fields and the errors of their checks.
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
        """Specs of the score's parameters and of a bias that all scores share."""
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

        score      = score of BahdanauAttention + attention_score_bias
        alignments = monotonic_attention(sigmoid(score + noise), previous, mode)

    With `mode="hard"`, the sigmoid is replaced by a step function: 1 where
    `score + noise` is positive, 0 elsewhere.

    Attributes:
        num_units: The size of the keys.
        memory_depth: The size of a memory entry.
        normalize: Whether to normalize v, the vector `attention_v`.
        score_mask_value: The score of memory entries beyond the lengths; None for minus
            infinity.
        sigmoid_noise: The standard deviation of the noise that is added to the scores.
            Noise during training leads to alignments that are more certain. The random
            key comes from `cell.bind(params, key)`.
        sigmoid_noise_seed: Mechanisms with different seeds draw different noise from
            the same key.
        score_bias_init: The initial `attention_score_bias`.
        mode: "recursive", "parallel" or "hard"; see `monotonic_attention`.
        dtype: The required dtype of the memory; None for any dtype.
        name: Accepted for compatibility with TensorFlow; not used.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a size is less than 1, the noise is negative, the seed is not in
            `[0, 2**32)`, or `mode` is unknown.

    Source: arXiv:1704.00784; `tf.contrib.seq2seq.BahdanauMonotonicAttention`.
    """


@fields.dataclass
class LuongMonotonicAttention(_MonotonicMechanism, LuongScore):
    """Multiplicative monotonic attention, with `LuongAttention`'s score and a bias.

        score      = score of LuongAttention + attention_score_bias
        alignments = monotonic_attention(sigmoid(score + noise), previous, mode)

    With `mode="hard"`, the sigmoid is replaced by a step function: 1 where
    `score + noise` is positive, 0 elsewhere.

    Attributes:
        num_units: The size of keys and queries.
        memory_depth: The size of a memory entry.
        scale: Whether to multiply the scores by a learned scalar `attention_g`.
        score_mask_value: The score of memory entries beyond the lengths; None for minus
            infinity.
        sigmoid_noise: The standard deviation of the noise that is added to the scores.
            Noise during training leads to alignments that are more certain. The random
            key comes from `cell.bind(params, key)`.
        sigmoid_noise_seed: Mechanisms with different seeds draw different noise from
            the same key.
        score_bias_init: The initial `attention_score_bias`.
        mode: "recursive", "parallel" or "hard"; see `monotonic_attention`.
        dtype: The required dtype of the memory; None for any dtype.
        name: Accepted for compatibility with TensorFlow; not used.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a size is less than 1, the noise is negative, the seed is not in
            `[0, 2**32)`, or `mode` is unknown.

    Source: arXiv:1704.00784; `tf.contrib.seq2seq.LuongMonotonicAttention`.
    """


def monotonic_attention(
    p_choose_i: Array, previous_attention: Array, mode: str
) -> Array:
    """The expected alignments of attention that moves from left to right.

    At each step, attention starts at the entry where the previous step stopped. From
    there, attention visits one entry after another and stops at entry i with
    probability `p_choose_i`.

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
    # As in TensorFlow, compute the cumulative product of `1 - p` as the exponential of
    # a sum of logarithms.
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
