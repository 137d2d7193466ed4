"""The delta rule, which moves the values of a matrix memory towards new values."""

import dataclasses
from typing import Generic, NamedTuple

import jax.numpy as jnp

from ..._base.hints import with_hints
from ..._base.trees import TensorShape
from ..._base.typing import Array, Leaf, Size
from .rule import MatrixRule, decayed


class DeltaInputs(NamedTuple, Generic[Leaf]):
    """The inputs of one step of the delta rule.

    In a chunk, the arrays are `[batch, heads, steps, ...]`.

    Attributes:
        q: The queries, `[batch, heads, key]`.
        k: The keys, with the shape of the queries. Divide each key by its norm, because
            a step multiplies the value that the memory holds at k by
            `1 - beta sum(k * k)`. If this factor is below -1, the memory grows.
        v: The values, `[batch, heads, value]`.
        g: The logarithms of the decays, at most 0: `[batch, heads]`, or
            `[batch, heads, key]` if each key decays separately.
        beta: The fractions by which values move towards `v`, `[batch, heads]`.
    """

    q: Leaf
    k: Leaf
    v: Leaf
    g: Leaf
    beta: Leaf


DeltaInputs.__new__ = with_hints(DeltaInputs.__new__)


@dataclasses.dataclass(frozen=True)
class DeltaRule(MatrixRule):
    """The delta rule, with decays.

    For each head, S is a matrix [key, value], and vectors are rows:

        S'     = exp(g) S + beta outer(k, v - k exp(g) S)
        h      = q S'

    If k has norm 1, the decayed value that S holds at k moves towards v by the fraction
    beta.

    Attributes:
        key_decay: Whether each key decays separately, by a diagonal matrix exp(g).
    """

    key_decay: bool = False

    Inputs = DeltaInputs
    idle = DeltaInputs(q=0.0, k=0.0, v=0.0, g=0.0, beta=0.0)

    def sizes(self, heads: int, key: int, value: int) -> tuple[Size, TensorShape]:
        """The sizes of the values and of S; see `MatrixRule.sizes`."""
        decay = [heads, key] if self.key_decay else [heads]
        sizes = [heads, key], [heads, key], [heads, value], decay, [heads]
        return DeltaInputs(*map(TensorShape, sizes)), TensorShape([heads, key, value])

    def step(self, values: DeltaInputs, state: Array) -> tuple[Array, Array]:
        """One step; see `MatrixRule.step`."""
        q, k, v, g, beta = values
        state = decayed(g, state)
        u = beta[..., None] * (v - jnp.einsum("bnk,bnkv->bnv", k, state))
        state = state + k[..., :, None] * u[..., None, :]
        return jnp.einsum("bnk,bnkv->bnv", q, state), state
