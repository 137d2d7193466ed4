"""One attention of a cell: a mechanism with its memory, its layers, and one step."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxrnn import ParamSpec

from ..._base.cell_keys import fold
from ..._base.math import dot
from ..._base.typing import Array, Params
from ..._cells.initializers import glorot_uniform
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

    values = property(lambda self: self.memory.values)
    keys = property(lambda self: self.memory.keys)

    def __call__(self, query: Array, state: Array) -> tuple[Array, Array]:
        """`(alignments, next_state)`, both `[batch, memory_time]`.

        Args:
            query: `[batch, query_depth]`. The batch may be a multiple of the memory's:
                then adjacent rows share an entry of it, as beams do.
            state: What the mechanism carries: the alignments of the step before.
        """
        mechanism = self.mechanism
        grouped = self.grouped(query), self.keys, self.grouped(state)
        score = mechanism.score(self.params, *grouped)
        valid, exists = self.memory.valid, None
        if valid is not None:
            masked = mechanism.score_mask_value
            masked = jnp.asarray(-jnp.inf if masked is None else masked, score.dtype)
            score = jnp.where(valid[:, None], score, masked)
            # An empty memory gets zero weights, where softmax would give NaN.
            exists = jnp.broadcast_to(valid[:, None, :1], score.shape)
            score = jnp.where(exists, score, jnp.zeros_like(score))
        score = score.reshape(state.shape)
        alignments = mechanism.probabilities(score, state, self.key)
        if exists is not None:
            exists = exists.reshape(state.shape)
            alignments = jnp.where(exists, alignments, jnp.zeros_like(alignments))
        return alignments, mechanism.next_state(alignments, state)

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


class Attention(NamedTuple):
    """One attention of an `AttentionWrapper`.

    Attributes:
        mechanism: Its mechanism.
        attention_fn: As that of `AttentionWrapper`.
        size: That of its attention layer; None for no layer.
        number: Which of the attentions it is, from 0.
        scope: That of the mechanism's own parameters.
    """

    mechanism: AttentionMechanism
    attention_fn: Callable
    size: int | None
    number: int
    scope: str

    memory_layer = property(lambda self: numbered("memory_layer", self.number))
    layer = property(lambda self: numbered("attention_layer", self.number))

    def specs(self, query_depth: int) -> dict[str, Any]:
        """All its parameters, for queries of that size."""
        own = self.mechanism.param_specs(query_depth)
        specs = {self.memory_layer: self.mechanism.memory_specs()}
        specs |= {self.scope: own} if own else {}
        if self.size is not None:
            shape = query_depth + self.mechanism.context_depth(), self.size
            specs[self.layer] = {"kernel": ParamSpec(shape, glorot_uniform)}
        return specs

    def attend(
        self, params: Params, output: Array, memory: Any, state: Any, key: Any
    ) -> tuple[Array, Array, Any]:
        """What `attention_fn` returns for the output of a cell.

        Args:
            params: The wrapper's own parameters.
            output: The output of the cell, `[batch, query_depth]`.
            memory: The memory, with its keys.
            state: What the mechanism carries.
            key: The random key of the step, or None.
        """
        project = lambda x: dot(x, params[self.layer]["kernel"], x.dtype)
        own, key = params.get(self.scope, {}), fold(key, 1 + self.number)
        bound = BoundMechanism(self.mechanism, own, memory, key)
        layer = None if self.size is None else project
        return self.attention_fn(bound, output, state, layer)


def numbered(name: str, number: int) -> str:
    """The name; with `_1` and so on if there were others before."""
    return f"{name}_{number}" if number else name
