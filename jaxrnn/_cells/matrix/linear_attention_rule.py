"""Linear attention: a matrix memory that decays, and to which values are added."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Generic, NamedTuple

import jax.numpy as jnp

from ..._base.scaled import scaled
from ..._base.trees import TensorShape
from ..._base.typing import Array, Leaf, Size
from .decays import decays_of
from .rule import Chunk, MatrixRule


class LinearAttentionInputs(NamedTuple, Generic[Leaf]):
    """What a step of a linear attention reads and writes.

    In a chunk, an axis of steps follows the axis of heads.

    Attributes:
        q: The queries, `[batch, heads, key]`.
        k: The keys, with the shape of the queries.
        v: The values, `[batch, heads, value]`.
        g: The logarithms of the decays, at most 0: `[batch, heads]`, or
            `[batch, heads, key]` if each key decays separately.
    """

    q: Leaf
    k: Leaf
    v: Leaf
    g: Leaf


class LinearAttentionMap(NamedTuple):
    """The map of a memory over several steps, `keep S + written`.

    Attributes:
        written: The memory after the steps if it was empty.
        keep: The product of the decays, `[batch, heads]` or `[batch, heads, key]`.
    """

    written: Array
    keep: Array


@dataclasses.dataclass(frozen=True)
class LinearAttentionRule(MatrixRule):
    """Linear attention with decays.

    For each head, with a matrix S [key, value], and vectors as rows:

        S'     = exp(g) S + outer(k, v)
        h      = q S'

    Attributes:
        key_decay: Whether each key decays separately: exp(g) is then a diagonal matrix.
    """

    key_decay: bool = False

    Inputs = LinearAttentionInputs
    idle = LinearAttentionInputs(q=0.0, k=0.0, v=0.0, g=0.0)
    # By whether each key decays, and by package; see `published_kernels.py`.
    kernels: ClassVar[dict[bool, dict[str, str]]] = {
        False: {"jla": "simple_gla", "deltanet_tpu": "chunk_gla"},
        True: {"jla": "gla", "deltanet_tpu": "chunk_gla"},
    }

    def sizes(self, heads: int, key: int, value: int) -> tuple[Size, TensorShape]:
        """The sizes of the values and of S; see `MatrixRule.sizes`."""
        decay = [heads, key] if self.key_decay else [heads]
        sizes = map(TensorShape, ([heads, key], [heads, key], [heads, value], decay))
        return LinearAttentionInputs(*sizes), TensorShape([heads, key, value])

    def step(self, values: LinearAttentionInputs, state: Array) -> tuple[Array, Array]:
        """One step; see `MatrixRule.step`."""
        q, k, v, g = values
        state = scaled(jnp.exp(g), state) + k[..., :, None] * v[..., None, :]
        return jnp.einsum("bnk,bnkv->bnv", q, state), state

    def chunk(self, chunk: Chunk) -> tuple[Array, Array]:
        """All steps of a chunk; see `MatrixRule.chunk`."""
        q, k, v, g = chunk.values
        decays = decays_of(chunk, g)
        new = jnp.einsum("bnts,bnsv->bntv", decays.scores(q, k), v)
        return decays.read(q) + new, decays.memory(k, v)

    def transition(self) -> tuple[Callable, Callable, Callable, Callable]:
        """`keep S + written`, with one factor for each head or key."""

        def filled(state: Array, factor: float) -> Array:
            keys = state[..., 0] if self.key_decay else state[..., 0, 0]
            return jnp.full_like(keys, factor)

        empty = jnp.zeros_like
        identity = lambda state: LinearAttentionMap(empty(state), filled(state, 1))
        constant = lambda state: LinearAttentionMap(state, filled(state, 0))
        return self._map_of_chunk, identity, constant, _map_state

    def _map_of_chunk(self, chunk: Chunk) -> tuple[Array, LinearAttentionMap]:
        """Runs a chunk with maps in place of states; see `MatrixRule.transition`."""
        h, written = self.chunk(chunk.map_states(lambda state: state.written))
        keep = decays_of(chunk, chunk.values.g).keep
        keep = chunk.after(keep * chunk.start(lambda state: state.keep))
        return h, LinearAttentionMap(written, keep)


def _map_state(transition: LinearAttentionMap, state: Array) -> Array:
    """`keep S + written`."""
    return scaled(transition.keep, state) + transition.written
