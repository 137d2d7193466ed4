"""The generalized delta rule, whose steps are diagonal plus low rank (DPLR)."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Generic, NamedTuple

import jax.numpy as jnp

from ..._base.scaled import scaled
from ..._base.trees import TensorShape
from ..._base.typing import Array, Leaf, Size
from .columns import columns_of
from .decays import KeyDecays
from .rule import Chunk, MatrixRule
from .triangular import solve


class DPLRInputs(NamedTuple, Generic[Leaf]):
    """What a step of the generalized delta rule reads and writes.

    In a chunk, an axis of steps follows the axis of heads.

    Attributes:
        q: The queries, `[batch, heads, key]`.
        k: The keys, with the shape of the queries.
        v: The values, `[batch, heads, value]`.
        a: The keys at which a step reads the state before it, `[batch, heads, key]`.
        b: The keys to which it adds what it read, `[batch, heads, key]`.
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
    """The generalized delta rule.

    For each head, with a matrix S [key, value], and vectors as rows:

        S'     = diag(exp(g)) S + outer(b, a S) + outer(k, v)
        h      = q S'
    """

    Inputs = DPLRInputs
    idle = DPLRInputs(q=0.0, k=0.0, v=0.0, a=0.0, b=0.0, g=0.0)
    kernels: ClassVar[Any] = {True: {"jla": "rwkv7"}}  # See `published_kernels.py`.

    def sizes(self, heads: int, key: int, value: int) -> tuple[Size, TensorShape]:
        """The sizes of the values and of S; see `MatrixRule.sizes`."""
        keys, values = TensorShape([heads, key]), TensorShape([heads, value])
        inputs = DPLRInputs(keys, keys, values, keys, keys, keys)
        return inputs, TensorShape([heads, key, value])

    def step(self, values: DPLRInputs, state: Array) -> tuple[Array, Array]:
        """One step; see `MatrixRule.step`."""
        q, k, v, a, b, g = values
        z = jnp.einsum("bnk,bnkv->bnv", a, state)
        state = scaled(jnp.exp(g), state) + b[..., :, None] * z[..., None, :]
        state = state + k[..., :, None] * v[..., None, :]
        return jnp.einsum("bnk,bnkv->bnv", q, state), state

    def chunk(self, chunk: Chunk) -> tuple[Array, Array]:
        """All steps of a chunk; see `MatrixRule.chunk`.

        What a step reads, `z = a S`, depends on what earlier steps wrote. With the
        scores of `decays.py`, here of the state before step t,

            z_t - sum over s < t of score(a_t, b_s) z_s
                = what a_t reads of the decayed state before the span
                  + sum over s < t of score(a_t, k_s) v_s

        The z of all steps are therefore the solution of one triangular system.
        """
        q, k, v, a, b, g = chunk.values
        decays = KeyDecays(chunk, g)
        sum_over = lambda scores, u: jnp.einsum("bnts,bnsv->bntv", scores, u)
        start = decays.read_before(a) + sum_over(decays.scores_before(a, k), v)
        z = solve(-decays.scores_before(a, b), start)
        h = decays.read(q) + sum_over(decays.scores(q, k), v)
        h = h + sum_over(decays.scores(q, b), z)
        return h, decays.memory(k, v) + decays.written(b, z)

    def transition(self) -> tuple[Callable, Callable, Callable, Callable]:
        """`A S + B`; see `MatrixRule.transition` and `columns.py`."""
        return columns_of(self.chunk)
