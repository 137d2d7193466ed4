"""One step of attention: a mechanism with its memory, and the attention it gives."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from ..._base.typing import Array, Params
from .mechanisms import AttentionMechanism
from .state import AttentionMemory


@dataclasses.dataclass(frozen=True)
class BoundMechanism:
    """A mechanism with its parameters and its memory, as an `attention_fn` gets it.

    Attributes:
        mechanism: The hyper-parameters.
        params: Its parameters, but for the memory layer.
        memory: The memory, with its keys.
        key: The random key of the step, or None.
    """

    mechanism: AttentionMechanism
    params: Params
    memory: AttentionMemory
    key: Any = None

    values = property(lambda self: self.memory.values, doc="See `AttentionMemory`.")
    keys = property(
        lambda self: self.memory.keys, doc="What queries are compared with."
    )

    def __call__(self, query: Array, state: Array) -> tuple[Array, Array]:
        """`(alignments, next_state)`, both `[batch, memory_time]`.

        Args:
            query: `[batch, query_depth]`. The batch may be a multiple of the memory's:
                then adjacent rows share an entry of it, as beams do.
            state: The alignments of the step before.
        """
        mechanism = self.mechanism
        score = mechanism.score(self.params, self.grouped(query), self.keys)
        valid = self.memory.valid
        if valid is None:
            score = score.reshape(state.shape)
            alignments = mechanism.probabilities(score, state, self.key)
            return alignments, alignments
        masked = mechanism.score_mask_value
        masked = jnp.asarray(-jnp.inf if masked is None else masked, score.dtype)
        score = jnp.where(valid[:, None], score, masked)
        # An empty memory gets zero weights, where softmax would give NaN.
        exists = jnp.broadcast_to(valid[:, None, :1], score.shape)
        score = jnp.where(exists, score, jnp.zeros_like(score)).reshape(state.shape)
        alignments = mechanism.probabilities(score, state, self.key)
        exists = exists.reshape(state.shape)
        alignments = jnp.where(exists, alignments, jnp.zeros_like(alignments))
        return alignments, alignments

    def context(self, alignments: Array) -> Array:
        """The sum of the values with these weights, `[batch, depth]`."""
        context = jnp.einsum("bqt,btd->bqd", self.grouped(alignments), self.values)
        return context.reshape(alignments.shape[0], context.shape[-1])

    def grouped(self, x: Array) -> Array:
        """`[batch, n]` as `[rows of the memory, queries, n]`."""
        rows = self.values.shape[0]
        return x.reshape(rows, x.shape[0] // max(rows, 1), x.shape[1])


def compute_attention(
    attention_mechanism: BoundMechanism,
    cell_output: Array,
    attention_state: Array,
    attention_layer: Callable[[Array], Array] | None,
) -> tuple[Array, Array, Array]:
    """`(attention, alignments, next_attention_state)` of a step: the default.

    Args:
        attention_mechanism: The mechanism, with its memory.
        cell_output: `[batch, query_depth]`.
        attention_state: What the mechanism carries, `[batch, memory_time]`.
        attention_layer: The product that makes the attention from output and context;
            None for the context itself.

    Source: arXiv:1508.04025.
    """
    alignments, next_state = attention_mechanism(cell_output, attention_state)
    context = attention_mechanism.context(alignments)
    if attention_layer is None:
        return context, alignments, next_state
    joined = jnp.concatenate([cell_output, context], axis=-1)
    return attention_layer(joined), alignments, next_state
