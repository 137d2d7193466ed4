"""The memory of RWKV-5 and RWKV-6, linear attention that reads before it writes."""

import dataclasses
from typing import Any, final

import jax.numpy as jnp

from ..._base.typing import Array, DType, Params
from ..._base.unit_axes import without_unit_axes
from .. import fields
from ..params import ParamSpec, Specs, zeros
from .linear_attention_rule import LinearAttentionInputs, LinearAttentionRule
from .memories import ChosenLoopCell


@dataclasses.dataclass(frozen=True)
class RWKV6Rule(LinearAttentionRule):
    """Linear attention with decays for each key, which reads the state before a step.

    Each head reads `h = q S`. `LinearAttentionRule` defines the new state S'.
    """

    key_decay: bool = True

    def step(self, values: LinearAttentionInputs, state: Array) -> tuple[Array, Array]:
        """One step; see `MatrixRule.step`."""
        _, new_state = super().step(values, state)
        return jnp.einsum("bnk,bnkv->bnv", values.q, state), new_state


@final
@fields.dataclass
class RWKV6MemoryCell(ChosenLoopCell[Array]):
    """The memory of RWKV-5 (Eagle) and RWKV-6 (Finch), without projections.

    A step reads the previous state, and its own value, weighted by a bonus. For each
    head, S is a matrix [key, value], and vectors are rows::

        output = scale q (S + outer(bonus * k, v))
        S'     = diag(exp(g)) S + outer(k, v)

    Use the cell in a layer that has its own projections, token shifts or norms. In
    RWKV, q is the receptance r, the bonus is u, and `scale` is 1. g is the logarithm of
    the decay, at most 0. In RWKV-6, g is `-exp(w)`, where w depends on the inputs of
    the step. In RWKV-5, g is the same at all steps.

    Shapes, for `N = num_heads`, `M = num_key_heads`, `K = key_size` and
    `V = value_size`: inputs `LinearAttentionInputs(q, k, v, g)` with q and k
    `[batch, M, K]`, v `[batch, N, V]` and g `[batch, N, K]`; state S
    `[batch, N, K, V]`; output `[batch, N, V]`, in the widest dtype of the inputs;
    `bonus` `[N, K]`, initially 0. g is clipped to at least -87.

    Attributes:
        num_heads: `N`, the number of heads.
        key_size: `K`, the size of q and k in each head.
        value_size: `V`, the size of v in each head.
        num_key_heads: `M`, the number of heads of q and k, which must divide `N`.
            Default: `N`. Each q and k is shared by `N / M` consecutive heads.
        scale: The factor of q. Default: `1 / sqrt(K)`.
        chunk_size: The largest number of steps that are computed together (a chunk).
            Results for different sizes differ only by rounding. Default: 16. By
            default, CPUs also scan small memories step by step if the call is not
            differentiated.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, or `num_key_heads` does not divide
            `num_heads`.

    Source: arXiv:2404.05892, section 4; `rwkv6` in the package
    `flash-linear-attention`.

    Example:
        >>> import jax.numpy as jnp, jaxrnn
        >>> cell = jaxrnn.RWKV6MemoryCell(2, key_size=4, value_size=3, scale=1.0)
        >>> r = k = jnp.ones((1, 5, 2, 4))  # [batch, time, heads, key]
        >>> v, g = jnp.ones((1, 5, 2, 3)), -jnp.exp(-3 * k)
        >>> inputs = jaxrnn.LinearAttentionInputs(q=r, k=k, v=v, g=g)
        >>> bound = cell.bind({"bonus": jnp.ones((2, 4))})
        >>> outputs, state = jaxrnn.dynamic_rnn(bound, inputs, dtype=v.dtype)
        >>> outputs.shape, state.shape
        ((1, 5, 2, 3), (1, 2, 4, 3))
    """

    rule = RWKV6Rule()

    def param_specs(self, depth: int) -> Specs:
        """The spec of `bonus`."""
        return {"bonus": ParamSpec((self.num_heads, self.key_size), zeros)}

    def project(self, params: Params, inputs: Any, dtype: DType) -> tuple[Any, Any]:
        """Returns the values of a step twice, because `output` also reads them."""
        _, values = super().project(params, inputs, dtype)
        return values, values

    def output(self, params: Params, h: Array, rest: LinearAttentionInputs) -> Array:
        """Adds the step's own value, weighted by the bonus, to what the step read."""

        def with_own(h: Array, q: Array, k: Array, v: Array, bonus: Array) -> Array:
            return h + jnp.sum(q * bonus * k, axis=-1, keepdims=True) * v

        bonus = params["bonus"].astype(h.dtype)[None]
        return without_unit_axes(with_own, 2, h, rest.q, rest.k, rest.v, bonus)
