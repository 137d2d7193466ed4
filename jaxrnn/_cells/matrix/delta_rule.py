"""The delta rule: a matrix memory whose values move towards new ones."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Generic, NamedTuple

import jax.numpy as jnp

from ..._base.scaled import scaled
from ..._base.trees import TensorShape
from ..._base.typing import Array, Leaf, Size
from ..._hints import with_hints
from .columns import columns_of
from .decays import decays_of
from .rule import Chunk, MatrixRule
from .triangular import solve


class DeltaInputs(NamedTuple, Generic[Leaf]):
    """What a step of the delta rule reads and writes.

    In a chunk, an axis of steps follows the axis of heads.

    Attributes:
        q: The queries, `[batch, heads, key]`.
        k: The keys, with the shape of the queries. Divide each key by its norm: a step
            multiplies what the memory holds at k by `1 - beta sum(k * k)`, and below -1
            the memory grows.
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
    """The delta rule.

    For each head, with a matrix S [key, value], and vectors as rows:

        S'     = exp(g) S + beta outer(k, v - k exp(g) S)
        h      = q S'

    If k has norm 1, the decayed value that S holds at k moves towards v by the fraction
    beta.

    Attributes:
        prepare: Element-wise operations within each head, which the rule applies to its
            values first. They would be slower in the projection of a cell, where the
            axis of heads still follows the axis of steps.
        key_decay: Whether each key decays separately: exp(g) is then a diagonal matrix.
    """

    prepare: Callable[[DeltaInputs], DeltaInputs] = lambda values: values
    key_decay: bool = False

    Inputs = DeltaInputs
    idle = DeltaInputs(q=0.0, k=0.0, v=0.0, g=0.0, beta=0.0)
    # By whether each key decays, and by package; see `published_kernels.py`.
    kernels: ClassVar[dict[bool, dict[str, str]]] = {
        False: {"jla": "gated_deltanet", "deltanet_tpu": "chunk_gdn"},
        True: {"jla": "kda", "deltanet_tpu": "chunk_kda"},
    }

    def sizes(self, heads: int, key: int, value: int) -> tuple[Size, TensorShape]:
        """The sizes of the values and of S; see `MatrixRule.sizes`."""
        decay = [heads, key] if self.key_decay else [heads]
        sizes = [heads, key], [heads, key], [heads, value], decay, [heads]
        return DeltaInputs(*map(TensorShape, sizes)), TensorShape([heads, key, value])

    def step(self, values: DeltaInputs, state: Array) -> tuple[Array, Array]:
        """One step; see `MatrixRule.step`."""
        q, k, v, g, beta = self.prepare(values)
        state = scaled(jnp.exp(g), state)
        u = beta[..., None] * (v - jnp.einsum("bnk,bnkv->bnv", k, state))
        state = state + k[..., :, None] * u[..., None, :]
        return jnp.einsum("bnk,bnkv->bnv", q, state), state

    def chunk(self, chunk: Chunk) -> tuple[Array, Array]:
        """All steps of a chunk; see `MatrixRule.chunk`.

        What a step writes, `u = beta (v - k exp(g) S)`, depends on what earlier steps
        wrote. With the scores of `decays.py`,

            u_t + beta_t sum over s < t of score(k_t, k_s) u_s
                = beta_t (v_t - what k_t reads of the decayed state before the span)

        The u of all steps are therefore the solution of one triangular system.

        Source: arXiv:2412.06464, section 3.3; arXiv:2406.06484, section 3.
        """
        q, k, v, g, beta = self.prepare(chunk.values)
        decays = decays_of(chunk, g)
        # The mask comes last, because the cotangents of other pairs may overflow.
        between = jnp.tril(scaled(beta, decays.scores(k, k)), -1)
        u = solve(between, scaled(beta, v - decays.read(k)))
        new = jnp.einsum("bnts,bnsv->bntv", decays.scores(q, k), u)
        return decays.read(q) + new, decays.memory(k, u)

    def transition(self) -> tuple[Callable, Callable, Callable, Callable]:
        """`A S + B`; see `MatrixRule.transition` and `columns.py`."""
        return columns_of(DeltaRule().chunk, self.prepare)
