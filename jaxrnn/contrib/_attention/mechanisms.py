"""Attention mechanisms with Luong's and Bahdanau's scores."""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import ones, zeros

from jaxrnn import ParamSpec, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, DType, Key, Params, Specs

from ..._cells.fields import Hyperparameters, snake_case
from .memory import AttentionMemory

_NO_MEMORY = (
    "Pass the size of a memory entry here, and the memory to "
    "`AttentionWrapper.initial_state`."
)


class AttentionMechanism(Hyperparameters, abc.ABC):
    """An attention mechanism, which holds hyperparameters but no memory.

    The memory, `[batch, memory_time, memory_depth]`, is an argument of
    `AttentionWrapper.initial_state`. This class is not a dataclass; its subclasses for
    scores and for probabilities declare their fields in TensorFlow's order. To write a
    custom mechanism, derive a `dataclass(frozen=True, eq=False)` from an existing
    mechanism, e.g. `LuongAttention`, and override any of `param_specs`, `score`,
    `probabilities` and `next_state`.

    Attributes:
        num_units: The size of the keys.
        memory_depth: The size of a memory entry.
        score_mask_value: The score of memory entries beyond the lengths; None for minus
            infinity.
        dtype: The required dtype of the memory; None for any dtype.
        name: Accepted for compatibility with TensorFlow; not used.

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
    """The scope of the mechanism's own variables in TensorFlow."""

    @abc.abstractmethod
    def param_specs(self, query_depth: int) -> Specs:
        """Specs of all but the memory layer's parameters, for queries of this depth."""

    @abc.abstractmethod
    def score(
        self, params: Params, query: Array, keys: Array, previous: Array
    ) -> Array:
        """Scores how well each key matches each query; all scores must be finite.

        All queries of a row, e.g. beams, share a row of the memory. The other methods
        receive one query per row: their `batch` is `rows * queries`.

        Args:
            params: The parameters that `param_specs` describes.
            query: `[rows, queries, query_depth]`.
            keys: `[rows, memory_time, num_units]`.
            previous: The result of `next_state` in the previous step, by default the
                alignments, `[rows, queries, memory_time]`; zero beyond the lengths.

        Returns:
            `[rows, queries, memory_time]`.
        """

    @abc.abstractmethod
    def probabilities(self, score: Array, previous: Array, key: Key | None) -> Array:
        """Computes the alignments, `[batch, memory_time]`.

        Args:
            score: The scores, `[batch, memory_time]`, with `score_mask_value` beyond
                the lengths.
            previous: The result of `next_state` in the previous step.
            key: The random key of the step, or None.
        """

    def next_state(self, alignments: Array, previous: Array) -> Array:
        """Returns the next step's argument `previous`, by default the alignments.

        Args:
            alignments: `[batch, memory_time]`, zero beyond the lengths.
            previous: The result of this method in the previous step; in the first step,
                `initial_alignments`.
        """
        return alignments

    def memory_specs(self) -> Specs:
        """Specs of the memory layer."""
        shape = (self.memory_depth, self.num_units)
        return {"kernel": ParamSpec(shape, extend.glorot_uniform)}

    def with_keys(self, params: Params, memory: AttentionMemory) -> AttentionMemory:
        """Adds keys to the memory; `params` are the parameters of the memory layer."""
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
        """Specs of the scale `attention_g` if there is one.

        Raises:
            ValueError: If queries and keys differ in size.
        """
        must = f"be the size of the cell's output ({query_depth})"
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
            v = params["attention_g"] * v * jax.lax.rsqrt(jnp.sum(jnp.square(v)))
        hidden = jnp.tanh(keys[:, None] + query[:, :, None])
        return jnp.einsum("bqtu,u->bqt", hidden, v)


@fields.dataclass
class _SoftmaxMechanism(AttentionMechanism):
    """A mechanism whose alignments do not depend on earlier alignments.

    `LuongAttention` describes the fields.
    """

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
            `[batch, memory_time]`; None for softmax.
        score_mask_value: The score of memory entries beyond the lengths; None for minus
            infinity.
        dtype: The required dtype of the memory; None for any dtype.
        custom_key_value_fn: `custom_key_value_fn(keys, values) -> (keys, values)`,
            called once per run; None to use the keys unchanged and the memory as
            values.
        name: Accepted for compatibility with TensorFlow; not used.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a size is less than 1.

    Source: arXiv:1508.04025; `tf.contrib.seq2seq.LuongAttention`.
    """


@fields.dataclass
class BahdanauAttention(_SoftmaxMechanism, BahdanauScore):
    """Additive attention.

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
            `[batch, memory_time]`; None for softmax.
        score_mask_value: The score of memory entries beyond the lengths; None for minus
            infinity.
        dtype: The required dtype of the memory; None for any dtype.
        custom_key_value_fn: `custom_key_value_fn(keys, values) -> (keys, values)`,
            called once per run; None to use the keys unchanged and the memory as
            values.
        name: Accepted for compatibility with TensorFlow; not used.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a size is less than 1.

    Source: arXiv:1409.0473, arXiv:1602.07868; `tf.contrib.seq2seq.BahdanauAttention`.
    """


def hardmax(logits: Array) -> Array:
    """One-hot rows, with 1 at the first maximum of each row of `logits`.

    Args:
        logits: `[batch, classes]`.

    Source: `tf.contrib.seq2seq.hardmax`.
    """
    best = jnp.argmax(logits, axis=-1)
    return jax.nn.one_hot(best, logits.shape[-1], dtype=logits.dtype)
