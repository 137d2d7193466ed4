"""One attention of a wrapper: a mechanism with its memory, layers and step."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxrnn import ParamSpec

from ..._base.cell_keys import fold
from ..._base.math import dot
from ..._base.typing import Array, Params
from ..._cells.initializers import Specs, glorot_uniform
from .mechanisms import AttentionMechanism
from .state import AttentionMemory


@dataclasses.dataclass(frozen=True)
class BoundMechanism:
    """A mechanism with its parameters and memory, as `attention_fn` receives it.

    Attributes:
        mechanism: The hyperparameters.
        params: The parameters of the mechanism, without the memory layer.
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
        """Computes `(alignments, next_state)`, both `[batch, memory_time]`.

        Args:
            query: `[batch, query_depth]`. The batch size may be a multiple of the
                memory's batch size. In this case, adjacent rows, e.g. beams, share a
                row of the memory.
            state: The state of the mechanism, by default the previous alignments.
        """
        mechanism = self.mechanism
        grouped = self.grouped(query), self.keys, self.grouped(state)
        score = mechanism.score(self.params, *grouped)
        valid, exists = self.memory.valid, None
        if valid is not None:
            masked = mechanism.score_mask_value
            masked = jnp.asarray(-jnp.inf if masked is None else masked, score.dtype)
            score = jnp.where(valid[:, None], score, masked)
            # The weights of an empty memory are set to zero, because softmax would
            # return NaN.
            exists = jnp.broadcast_to(valid[:, None, :1], score.shape)
            score = jnp.where(exists, score, jnp.zeros_like(score))
        score = score.reshape(state.shape)
        alignments = mechanism.probabilities(score, state, self.key)
        if exists is not None:
            exists = exists.reshape(state.shape)
            alignments = jnp.where(exists, alignments, jnp.zeros_like(alignments))
        return alignments, mechanism.next_state(alignments, state)

    def context(self, alignments: Array) -> Array:
        """The sum of the values, weighted by the alignments, `[batch, depth]`."""
        context = jnp.einsum("bqt,btd->bqd", self.grouped(alignments), self.values)
        return context.reshape(alignments.shape[0], context.shape[-1])

    def grouped(self, x: Array) -> Array:
        """Reshapes `[batch, n]` to `[memory rows, queries, n]`."""
        rows = self.values.shape[0]
        return x.reshape(rows, x.shape[0] // max(rows, 1), x.shape[1])


def compute_attention(
    attention_mechanism: BoundMechanism,
    cell_output: Array,
    attention_state: Array,
    attention_layer: Callable[[Array], Array] | None,
) -> tuple[Array, Array, Array]:
    """The default `attention_fn`, which runs one step of attention.

    Args:
        attention_mechanism: The mechanism, with its memory.
        cell_output: `[batch, query_depth]`.
        attention_state: The state of the mechanism, `[batch, memory_time]`.
        attention_layer: The function that computes the attention from the concatenated
            output and context; None to use the context as the attention.

    Returns:
        `(attention, alignments, next_attention_state)`.

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
        mechanism: The mechanism.
        attention_fn: See `AttentionWrapper`.
        size: The size of the attention layer; None for no layer.
        number: The index of the attention, from 0.
        scope: The scope of the mechanism's own parameters.
    """

    mechanism: AttentionMechanism
    attention_fn: Callable
    size: int | None
    number: int
    scope: str

    memory_layer = property(lambda self: numbered("memory_layer", self.number))
    layer = property(lambda self: numbered("attention_layer", self.number))

    def specs(self, query_depth: int) -> Specs:
        """Specs of all parameters for queries of this size."""
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
        """Calls `attention_fn` with the output of the cell.

        Args:
            params: The wrapper's own parameters.
            output: The output of the cell, `[batch, query_depth]`.
            memory: The memory, with its keys.
            state: The state of the mechanism.
            key: The random key of the step, or None.
        """
        project = lambda x: dot(x, params[self.layer]["kernel"], x.dtype)
        own, key = params.get(self.scope, {}), fold(key, 1 + self.number)
        bound = BoundMechanism(self.mechanism, own, memory, key)
        layer = None if self.size is None else project
        return self.attention_fn(bound, output, state, layer)


def numbered(name: str, number: int) -> str:
    """The name, followed by `_<number>` unless `number` is 0."""
    return f"{name}_{number}" if number else name
