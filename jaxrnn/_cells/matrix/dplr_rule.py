"""The generalized delta rule, whose steps are diagonal plus low rank (DPLR)."""

import dataclasses
from typing import Generic, NamedTuple

import jax.numpy as jnp

from ..._base.trees import TensorShape
from ..._base.typing import Array, Leaf, Size
from .rule import MatrixRule, decayed


class DPLRInputs(NamedTuple, Generic[Leaf]):
    """The inputs of one step of the generalized delta rule.

    In a chunk, the arrays are `[batch, heads, steps, ...]`.

    Attributes:
        q: The queries, `[batch, heads, key]`.
        k: The keys, with the shape of the queries.
        v: The values, `[batch, heads, value]`.
        a: The keys at which a step reads the previous state, `[batch, heads, key]`.
        b: The keys at which a step adds the values that it read, `[batch, heads, key]`.
        g: The logarithms of the decays, `[batch, heads, key]`, at most 0.
    """

    q: Leaf
    k: Leaf
    v: Leaf
    a: Leaf
    b: Leaf
    g: Leaf


@dataclasses.dataclass(frozen=True)
class DPLRRule(MatrixRule):
    """The generalized delta rule (DPLR), as in RWKV-7.

    For each head, S is a matrix [key, value], and vectors are rows:

        S'     = diag(exp(g)) S + outer(b, a S) + outer(k, v)
        h      = q S'
    """

    Inputs = DPLRInputs
    idle = DPLRInputs(q=0.0, k=0.0, v=0.0, a=0.0, b=0.0, g=0.0)

    def sizes(self, heads: int, key: int, value: int) -> tuple[Size, TensorShape]:
        """The sizes of the values and of S; see `MatrixRule.sizes`."""
        keys, values = TensorShape([heads, key]), TensorShape([heads, value])
        inputs = DPLRInputs(keys, keys, values, keys, keys, keys)
        return inputs, TensorShape([heads, key, value])

    def step(self, values: DPLRInputs, state: Array) -> tuple[Array, Array]:
        """One step; see `MatrixRule.step`."""
        q, k, v, a, b, g = values
        z = jnp.einsum("bnk,bnkv->bnv", a, state)
        state = decayed(g, state) + b[..., :, None] * z[..., None, :]
        state = state + k[..., :, None] * v[..., None, :]
        return jnp.einsum("bnk,bnkv->bnv", q, state), state
