"""Attention that moves from left to right over a memory, and never back."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn import ParamSpec

from ..._base.arguments import check_one_of
from ..._base.typing import Array, DType, Key, Params
from ..._cells.hyperparameters import set_counts, set_numbers
from .mechanisms import AttentionMechanism, BahdanauScore, LuongScore


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class _MonotonicMechanism(AttentionMechanism):
    """A mechanism whose alignments follow from the scores and the alignments before.

    Attributes:
        sigmoid_noise: The standard deviation of noise, which makes the choices more
            certain in training. It is drawn from the key with which the cell is bound.
        sigmoid_noise_seed: Different seeds draw different noise from the same key.
        score_bias_init: The initial `attention_score_bias`.
        mode: "recursive", "parallel" or "hard"; see `monotonic_attention`.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If a size is below 1, the noise is negative, the seed is not in
            `[0, 2**32)`, or `mode` is not known.
    """

    score_mask_value: float | None = None
    sigmoid_noise: float = 0.0
    sigmoid_noise_seed: int | None = None
    score_bias_init: float = 0.0
    mode: str = "parallel"
    dtype: DType | None = None
    name: Any = dataclasses.field(default=None, compare=False)

    is_random = property(lambda self: self.sigmoid_noise > 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "score_bias_init")
        set_numbers(self, "sigmoid_noise", low=0)
        set_counts(self, "sigmoid_noise_seed", least=0, most=2**32 - 1)
        _check_mode(type(self).__name__, self.mode)

    def param_specs(self, query_depth: int) -> dict[str, Any]:
        """Those of the score, and a bias that is added to all scores."""
        bias = ParamSpec((), jax.nn.initializers.constant(self.score_bias_init))
        return super().param_specs(query_depth) | {"attention_score_bias": bias}

    def score(self, params: Params, query: Array, keys: Array, previous: Any) -> Array:
        """The score, and the bias; see `AttentionMechanism.score`."""
        score = super().score(params, query, keys, previous)
        return score + params["attention_score_bias"]

    def probabilities(self, score: Array, previous: Array, key: Key | None) -> Array:
        """By `monotonic_attention`; noise is drawn if there is a key."""
        if self.is_random and key is not None:
            key = jax.random.fold_in(key, self.sigmoid_noise_seed or 0)
            noise = jax.random.normal(key, score.shape, score.dtype)
            score = score + jnp.asarray(self.sigmoid_noise, score.dtype) * noise
        is_hard = self.mode == "hard"
        chosen = (score > 0).astype(score.dtype) if is_hard else jax.nn.sigmoid(score)
        return monotonic_attention(chosen, previous, self.mode)

    def initial_alignments(self, rows: int, memory_time: int, dtype: DType) -> Array:
        """The alignments before the first step: all at the first entry."""
        return jax.nn.one_hot(jnp.zeros(rows, jnp.int32), memory_time, dtype=dtype)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class BahdanauMonotonicAttention(_MonotonicMechanism, BahdanauScore):
    """Additive attention from left to right: scores of `BahdanauAttention` and a bias.

        score      = BahdanauAttention's + attention_score_bias
        alignments = monotonic_attention(sigmoid(score + noise), previous, mode)

    Source: arXiv:1704.00784; `tf.contrib.seq2seq.BahdanauMonotonicAttention`.
    """


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LuongMonotonicAttention(_MonotonicMechanism, LuongScore):
    """Multiplicative attention from left to right: `LuongAttention`'s score and a bias.

        score      = LuongAttention's + attention_score_bias
        alignments = monotonic_attention(sigmoid(score + noise), previous, mode)

    Source: arXiv:1704.00784; `tf.contrib.seq2seq.LuongMonotonicAttention`.
    """


def monotonic_attention(
    p_choose_i: Array, previous_attention: Array, mode: str
) -> Array:
    """The expected alignments of attention that moves from left to right.

    From the entry of the step before on, it visits one entry after the other, and stops
    at entry i with the probability `p_choose_i`.

    Args:
        p_choose_i: `[batch, memory_time]`, in [0, 1].
        previous_attention: The result of the step before, `[batch, memory_time]`;
            before the first step 1 at the first entry, else 0.
        mode: "recursive" is exact. "parallel" is in closed form, and inexact where
            products of `1 - p_choose_i` are below 1e-10. "hard" is exact for
            probabilities 0 and 1.

    Returns:
        `[batch, memory_time]`. Its sum is below 1 where attention may pass the end.

    Raises:
        ValueError: If `mode` is not known.

    Source: arXiv:1704.00784; `tf.contrib.seq2seq.monotonic_attention`.
    """
    _check_mode("monotonic_attention", mode)
    p, previous = jnp.asarray(p_choose_i), jnp.asarray(previous_attention)
    if mode == "recursive":
        return p * _recursive(p, previous)
    if mode == "hard":
        p = p * jnp.cumsum(previous, axis=1)
        return p * _shifted(jnp.cumprod(1 - p, axis=1))
    # In log space: products of many factors underflow.
    tiny = jnp.finfo(p.dtype).tiny
    logs = jnp.cumsum(jnp.log(_clip(1 - p, tiny)), axis=1)
    passed = jnp.exp(_shifted(logs, first=0))
    least = max(1e-10, float(tiny))  # In float16 the first is zero.
    return p * passed * jnp.cumsum(previous / _clip(passed, least), axis=1)


def _recursive(p: Array, previous: Array) -> Array:
    """Q with `q[i] = (1 - p[i - 1]) * q[i - 1] + previous[i]`."""

    def compose(left: tuple, right: tuple) -> tuple:
        (a, b), (c, d) = left, right
        return a * c, b * c + d

    steps = _shifted(1 - p), previous
    return jax.lax.associative_scan(compose, steps, axis=1)[1]


def _shifted(x: Array, first: float = 1) -> Array:
    """The entries shifted right by one, after `first`."""
    return jnp.concatenate([jnp.full_like(x[:, :1], first), x[:, :-1]], axis=1)


def _clip(x: Array, low: Any) -> Array:
    """`x` in [low, 1]; unlike `jnp.clip` with the whole gradient at the bounds."""
    low = jnp.asarray(low, x.dtype)
    return jnp.where(x < low, low, jnp.where(x > 1, jnp.ones((), x.dtype), x))


def _check_mode(caller: str, mode: Any) -> None:
    what = 'one of "recursive", "parallel", "hard"'
    check_one_of(caller, "mode", mode, ("recursive", "parallel", "hard"), what)
