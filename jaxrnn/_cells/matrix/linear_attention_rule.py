"""Linear attention, which decays a matrix memory and adds new values to it."""

import dataclasses
from typing import Generic, NamedTuple

import jax.numpy as jnp

from ..._base.trees import TensorShape
from ..._base.typing import Array, Leaf, Size
from .rule import MatrixRule, decayed


class LinearAttentionInputs(NamedTuple, Generic[Leaf]):
    """The inputs of one step of linear attention.

    In a chunk, the arrays are `[batch, heads, steps, ...]`.

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


@dataclasses.dataclass(frozen=True)
class LinearAttentionRule(MatrixRule):
    """Linear attention with decays.

    For each head, S is a matrix [key, value], and vectors are rows:

        S'     = exp(g) S + outer(k, v)
        h      = q S'

    Attributes:
        key_decay: Whether each key decays separately, by a diagonal matrix exp(g).
    """

    key_decay: bool = False

    Inputs = LinearAttentionInputs
    idle = LinearAttentionInputs(q=0.0, k=0.0, v=0.0, g=0.0)

    def sizes(self, heads: int, key: int, value: int) -> tuple[Size, TensorShape]:
        """The sizes of the values and of S; see `MatrixRule.sizes`."""
        decay = [heads, key] if self.key_decay else [heads]
        sizes = map(TensorShape, ([heads, key], [heads, key], [heads, value], decay))
        return LinearAttentionInputs(*sizes), TensorShape([heads, key, value])

    def step(self, values: LinearAttentionInputs, state: Array) -> tuple[Array, Array]:
        """One step; see `MatrixRule.step`."""
        q, k, v, g = values
        state = decayed(g, state) + k[..., :, None] * v[..., None, :]
        return jnp.einsum("bnk,bnkv->bnv", q, state), state
