"""How attention weighs a memory: Luong's and Bahdanau's scores, and their softmax."""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxrnn import ParamSpec

from ..._base.arguments import check_equal
from ..._base.math import dot
from ..._base.typing import Array, DType, Key, Params
from ..._cells.base import snake_case
from ..._cells.hyperparameters import (
    Hyperparameters,
    set_common_fields,
    set_counts,
    set_functions,
    set_numbers,
)
from ..._cells.initializers import glorot_uniform, ones, zeros
from .state import AttentionMemory


class AttentionMechanism(Hyperparameters, abc.ABC):
    """The hyper-parameters of an attention mechanism, which hold no memory.

    The memory, `[batch, memory_time, memory_depth]`, is an argument of
    `AttentionWrapper.initial_state`. Not a dataclass itself: a kind of score and a kind
    of probabilities declare their fields, in TensorFlow's order. A mechanism of one's
    own is a `dataclass(frozen=True, eq=False)` that inherits from one of the kinds and
    overrides `param_specs` and `score`, `probabilities` or `next_state`.

    Attributes:
        num_units: The size of keys.
        memory_depth: The size of an entry of the memory. (The memory itself is an
            argument of `AttentionWrapper.initial_state`.)
        score_mask_value: The score beyond the lengths; None for minus infinity.
        dtype: The required dtype of the memory; None for any.
        name: Accepted for compatibility with TensorFlow; not used.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If a size is below 1.

    Source: `tf.contrib.seq2seq.AttentionMechanism`.
    """

    num_units: int
    memory_depth: int

    score_mask_value: float | None
    dtype: DType | None
    probability_fn: Callable[[Array], Array] | None = None
    custom_key_value_fn: Callable[..., tuple[Array, Array]] | None = None

    is_random: Any = False
    """Whether `probabilities` draws random numbers, if it gets a key."""

    _elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("memory", "memory_sequence_length"),
        "must be given to `AttentionWrapper.initial_state`. A mechanism has "
        "`memory_depth`, the size of the memory's last axis",
    )

    def __post_init__(self) -> None:
        set_common_fields(self)
        set_counts(self, "num_units")
        fix = "The memory itself is an argument of `AttentionWrapper.initial_state`."
        set_counts(self, "memory_depth", fix=fix)
        set_numbers(self, "score_mask_value")
        set_functions(self, "probability_fn", "custom_key_value_fn")

    scope = property(lambda self: snake_case(type(self).__name__))
    """The scope of its own variables in TensorFlow."""

    @abc.abstractmethod
    def param_specs(self, query_depth: int) -> dict[str, Any]:
        """Its parameters but for the memory layer, for queries of that size."""

    @abc.abstractmethod
    def score(self, params: Params, query: Array, keys: Array, previous: Any) -> Array:
        """How well each key fits a query, any finite number.

        Args:
            params: Those of `param_specs`.
            query: `[rows, queries, query_depth]`.
            keys: `[rows, memory_time, num_units]`.
            previous: What `next_state` returned in the step before, by default its
                alignments, `[rows, queries, memory_time]`; zero beyond the lengths.

        Returns:
            `[rows, queries, memory_time]`.
        """

    @abc.abstractmethod
    def probabilities(self, score: Array, previous: Array, key: Key | None) -> Array:
        """The alignments, `[batch, memory_time]`.

        Args:
            score: `[batch, memory_time]`, `score_mask_value` beyond the lengths.
            previous: What `next_state` returned in the step before.
            key: The random key of the step, or None.
        """

    def next_state(self, alignments: Array, previous: Array) -> Array:
        """What the next step gets as `previous`: these alignments.

        Args:
            alignments: `[batch, memory_time]`, zero beyond the lengths.
            previous: What this method returned in the step before; at first
                `initial_alignments`.
        """
        return alignments

    def memory_specs(self) -> dict[str, Any]:
        """The parameters of the memory layer."""
        shape = self.memory_depth, self.num_units
        return {"kernel": ParamSpec(shape, glorot_uniform)}

    def with_keys(self, params: Params, memory: AttentionMemory) -> AttentionMemory:
        """The memory with its keys; `params` are those of the memory layer."""
        keys = dot(memory.memory, params["kernel"], memory.memory.dtype)
        if self.custom_key_value_fn is None:
            return dataclasses.replace(memory, keys=keys)
        made = self.custom_key_value_fn(keys, memory.memory)
        keys, values = map(memory.without_padding, made)
        return dataclasses.replace(memory, keys=keys, own_values=values)

    def context_depth(self) -> int:
        """The size of a context."""
        if self.custom_key_value_fn is None:
            return self.memory_depth
        sizes = self.num_units, self.memory_depth
        arrays = [jax.ShapeDtypeStruct((1, 1, n), jnp.float32) for n in sizes]
        return jax.eval_shape(self.custom_key_value_fn, *arrays)[1].shape[-1]

    def initial_alignments(self, rows: int, memory_time: int, dtype: DType) -> Array:
        """The alignments before the first step, `[rows, memory_time]`: zeros."""
        return jnp.zeros((rows, memory_time), dtype)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LuongScore(AttentionMechanism):
    """A mechanism with multiplicative scores.

    Attributes:
        num_units: The size of keys and queries.
        scale: Whether there is a factor `attention_g`, a number that is learned.
    """

    num_units: int
    memory_depth: int
    scale: bool = False

    def param_specs(self, query_depth: int) -> dict[str, Any]:
        """The factor, if any.

        Raises:
            ValueError: If queries and keys differ in size.
        """
        must = f"be the size of the cell's output, {query_depth}"
        name, fix = type(self).__name__, "Bahdanau's may have another."
        check_equal(name, "num_units", self.num_units, query_depth, must, fix)
        return {"attention_g": ParamSpec((), ones)} if self.scale else {}

    def score(self, params: Params, query: Array, keys: Array, previous: Any) -> Array:
        """The inner products, scaled; see `AttentionMechanism.score`."""
        score = jnp.einsum("bqu,btu->bqt", query, keys)
        return params["attention_g"] * score if self.scale else score


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class BahdanauScore(AttentionMechanism):
    """A mechanism with additive scores.

    Attributes:
        normalize: Whether v is normalized.
    """

    num_units: int
    memory_depth: int
    normalize: bool = False

    def param_specs(self, query_depth: int) -> dict[str, Any]:
        """The query layer, and v."""
        units = self.num_units
        specs: dict[str, Any] = {
            "query_layer": {"kernel": ParamSpec((query_depth, units), glorot_uniform)},
            "attention_v": ParamSpec((units,), glorot_uniform),
        }
        if self.normalize:
            norm = jax.nn.initializers.constant(math.sqrt(1 / units))
            specs["attention_g"] = ParamSpec((), norm)
            specs["attention_b"] = ParamSpec((units,), zeros)
        return specs

    def score(self, params: Params, query: Array, keys: Array, previous: Any) -> Array:
        """The sum over units; see `AttentionMechanism.score`."""
        query = dot(query, params["query_layer"]["kernel"], query.dtype)
        v = params["attention_v"]
        if self.normalize:
            query = query + params["attention_b"][None, None, :]
            v = params["attention_g"] * v * jax.lax.rsqrt(jnp.sum(jnp.square(v)))
        hidden = jnp.tanh(keys[:, None] + query[:, :, None])
        return jnp.einsum("bqtu,u->bqt", hidden, v)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class _SoftmaxMechanism(AttentionMechanism):
    """A mechanism whose alignments do not depend on those before.

    Attributes:
        probability_fn: `probability_fn(score)`, both `[batch, memory_time]`; None for
            softmax.
        custom_key_value_fn: `custom_key_value_fn(keys, values) -> (keys, values)`, once
            a run; None for the keys above and the memory.
    """

    probability_fn: Callable[[Array], Array] | None = None
    score_mask_value: float | None = None
    dtype: DType | None = None
    custom_key_value_fn: Callable[..., tuple[Array, Array]] | None = None
    name: Any = dataclasses.field(default=None, compare=False)

    def probabilities(self, score: Array, previous: Array, key: Key | None) -> Array:
        """`probability_fn` of the scores."""
        return (self.probability_fn or jax.nn.softmax)(score)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LuongAttention(_SoftmaxMechanism, LuongScore):
    """Multiplicative attention.

        keys       = memory memory_layer/kernel
        score      = attention_g * (keys . query)
        alignments = probability_fn(score)

    Queries are the outputs of the cell; their size must be `num_units`.

    Source: arXiv:1508.04025; `tf.contrib.seq2seq.LuongAttention`.
    """


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class BahdanauAttention(_SoftmaxMechanism, BahdanauScore):
    """Additive attention.

        keys       = memory memory_layer/kernel
        score      = v . tanh(keys + query query_layer/kernel + b)
        alignments = probability_fn(score)

    v is `attention_v`, and b zero; with `normalize` v is `attention_g * attention_v /
    |attention_v|`, and b is `attention_b`.

    Source: arXiv:1409.0473, arXiv:1602.07868; `tf.contrib.seq2seq.BahdanauAttention`.
    """


def hardmax(logits: Array) -> Array:
    """One at the greatest entry of each row, the first of equals; zeros elsewhere.

    Args:
        logits: `[batch, classes]`.

    Source: `tf.contrib.seq2seq.hardmax`.
    """
    best = jnp.argmax(logits, axis=-1)
    return jax.nn.one_hot(best, logits.shape[-1], dtype=logits.dtype)
