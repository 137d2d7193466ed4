"""Runs linear attentions in chunks, and computes the maps of several steps."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from ..._base.typing import Array
from ..._base.unit_axes import scaled
from ..._cells.matrix.linear_attention_rule import LinearAttentionRule
from ..._cells.matrix.rwkv6 import RWKV6Rule
from .chunk import Chunk
from .decays import KeyDecays, decays_of
from .rules import register_rule


class LinearAttentionMap(NamedTuple):
    """The map `keep S + written` of several steps of a memory.

    Attributes:
        written: The memory after the steps if the memory was empty before them.
        keep: The product of the decays, `[batch, heads]` or `[batch, heads, key]`.
    """

    written: Array
    keep: Array


def run_chunk(rule: LinearAttentionRule, chunk: Chunk) -> tuple[Array, Array]:
    """Runs all steps of a chunk; see `MatrixRule.chunk`."""
    q, k, v, g = chunk.values
    decays = decays_of(chunk, g)
    new = jnp.einsum("bnts,bnsv->bntv", decays.scores(q, k), v)
    return decays.read(q) + new, decays.memory(k, v)


def transition(
    rule: LinearAttentionRule,
) -> tuple[Callable, Callable, Callable, Callable]:
    """Returns the functions of the map `keep S + written`; see `Transition`."""

    def filled(state: Array, factor: float) -> Array:
        keys = state[..., 0] if rule.key_decay else state[..., 0, 0]
        return jnp.full_like(keys, factor)

    empty = jnp.zeros_like
    identity = lambda state: LinearAttentionMap(empty(state), filled(state, 1))
    constant = lambda state: LinearAttentionMap(state, filled(state, 0))
    return functools.partial(_map_of_chunk, rule), identity, constant, _map_state


def _map_of_chunk(
    rule: LinearAttentionRule, chunk: Chunk
) -> tuple[Array, LinearAttentionMap]:
    """Runs a chunk with maps in place of states; see `MatrixRule.transition`."""
    h, written = run_chunk(rule, chunk.map_states(lambda state: state.written))
    keep = decays_of(chunk, chunk.values.g).keep
    keep = chunk.after(keep * chunk.start(lambda state: state.keep))
    return h, LinearAttentionMap(written, keep)


def _map_state(state_map: LinearAttentionMap, state: Array) -> Array:
    """Computes `keep S + written`."""
    return scaled(state_map.keep, state) + state_map.written


def rwkv6_chunk(rule: RWKV6Rule, chunk: Chunk) -> tuple[Array, Array]:
    """Runs all steps of a chunk; see `MatrixRule.chunk`."""
    q, k, v, g = chunk.values
    decays = KeyDecays(chunk, g)
    new = jnp.einsum("bnts,bnsv->bntv", decays.scores_before(q, k), v)
    return decays.read_before(q) + new, decays.memory(k, v)


register_rule(LinearAttentionRule, run_chunk, transition)
# Both rules compute the same states, so `RWKV6Rule` uses the map of the other rule.
register_rule(
    RWKV6Rule, rwkv6_chunk, lambda rule: transition(LinearAttentionRule(True))
)
