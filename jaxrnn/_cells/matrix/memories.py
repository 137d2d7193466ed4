"""Matrix memories without projections, which differ in how a step updates the state.

| memory | new state |
|---|---|
| `LinearAttentionMemoryCell` | `exp(g) S + outer(k, v)` |
| `DeltaMemoryCell` | `exp(g) S + beta outer(k, v - k exp(g) S)` |
| `DPLRMemoryCell` | `diag(exp(g)) S + outer(b, a S) + outer(k, v)` |
| `RWKV6MemoryCell` | `diag(exp(g)) S + outer(k, v)`; the output reads the old S |
| `MLSTMMemoryCell` | `sigmoid(f) c + exp(i) outer(k, v)`, with a normalizer |
"""

import dataclasses
from typing import Any, final

import jax.numpy as jnp

from ..._base.typing import Array, State
from .. import fields
from .bare_memory import BareMemoryCell
from .delta_rule import DeltaRule
from .dplr_rule import DPLRRule
from .linear_attention_rule import LinearAttentionRule
from .mlstm_rule import MLSTMInputs, MLSTMRule, MLSTMState
from .rule import LEAST_LOG


@fields.dataclass
class ChosenLoopCell(BareMemoryCell[State]):
    """A memory that chooses its loop and the size of chunks if `chunk_size` is None.

    `_loops/memories/choose.py` contains the choice.
    """

    _: dataclasses.KW_ONLY
    chunk_size: Any = fields.count(default=None)


@fields.dataclass
class DecayMemoryCell(ChosenLoopCell[Array]):
    """A memory with one decay for each head, or for each key."""

    _: dataclasses.KW_ONLY
    key_decay: bool = fields.flag(False)


@final
@fields.dataclass
class LinearAttentionMemoryCell(DecayMemoryCell):
    """Linear attention with decays, without projections or parameters.

    For each head, S is a matrix [key, value], and vectors are rows::

        S'     = exp(g) S + outer(k, v)
        output = scale q S'

    Use the cell in a layer that has its own projections, convolutions or norms. Bind
    the cell with `cell.bind({})`. g is the logarithm of the decay, at most 0; for no
    decay, pass zeros.

    With one decay for each head, the cell computes the recurrence of RetNet, lightning
    attention and Mamba-2 (SSD: q is C, k is B, v is the input times the time step, and
    `scale` is 1). With `key_decay=True`, the cell computes gated linear attention
    (GLA).

    Mamba-3 (arXiv:2603.15569) without MIMO is two steps for each token. The first step
    has `g = dt A`, q = 0, the previous k, and the previous v times
    `dt (1 - lambda) exp(dt A)`. The second step has g = 0, the token's q and k, and v
    times `dt lambda`. The layer rotates q and k by sums of angles.

    Shapes, for `N = num_heads`, `M = num_key_heads`, `K = key_size` and
    `V = value_size`: inputs `LinearAttentionInputs(q, k, v, g)` with q and k
    `[batch, M, K]`, v `[batch, N, V]`, and g `[batch, N]`, or `[batch, N, K]` with
    `key_decay`; state S `[batch, N, K, V]`; output `[batch, N, V]`, in the widest dtype
    of the inputs. g is clipped to at least -87.

    Attributes:
        num_heads: `N`, the number of heads.
        key_size: `K`, the size of q and k in each head.
        value_size: `V`, the size of v in each head.
        num_key_heads: `M`, the number of heads of q and k, which must divide `N`.
            Default: `N`. Each q and k is shared by `N / M` consecutive heads.
        key_decay: Whether each key decays separately, so that `exp(g)` is a diagonal
            matrix.
        scale: The factor of q. Default: `1 / sqrt(K)`.
        chunk_size: The largest number of steps that are computed together (a chunk).
            Results for different sizes differ only by rounding. Default: 16 with
            `key_decay`. Default without `key_decay`: 32 for small heads on a CPU,
            otherwise 64. By default, CPUs also scan small memories step by step if the
            call is not differentiated.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, or `num_key_heads` does not divide
            `num_heads`.

    Source: arXiv:2405.21060, section 6 (SSD); arXiv:2312.06635, section 4 (GLA).

    Example:
        >>> import jax.numpy as jnp, jaxrnn
        >>> cell = jaxrnn.LinearAttentionMemoryCell(2, key_size=4, value_size=3)
        >>> k = jnp.ones((1, 5, 2, 4))  # [batch, time, heads, key]
        >>> v, g = jnp.ones((1, 5, 2, 3)), jnp.full((1, 5, 2), -0.1)
        >>> inputs = jaxrnn.LinearAttentionInputs(q=k, k=k, v=v, g=g)
        >>> outputs, state = jaxrnn.dynamic_rnn(cell.bind({}), inputs, dtype=v.dtype)
        >>> outputs.shape, state.shape
        ((1, 5, 2, 3), (1, 2, 4, 3))
    """

    rule = property(lambda self: LinearAttentionRule(self.key_decay))


@final
@fields.dataclass
class DeltaMemoryCell(DecayMemoryCell):
    """The gated delta rule, without projections or parameters.

    For each head, S is a matrix [key, value], and vectors are rows::

        S'     = exp(g) S + beta outer(k, v - k exp(g) S)
        output = scale q S'

    Use the cell in a layer that has its own projections, convolutions or position
    embeddings, such as `nnx.GatedDeltaNet`. Bind the cell with `cell.bind({})`. g is
    the logarithm of the decay, at most 0; for no decay, pass zeros. With
    `key_decay=True`, the cell computes Kimi delta attention (KDA).

    Normalize k, as in `k / sqrt(sum(k * k) + 1e-6)`, because a step multiplies the
    value that the memory holds at k by `1 - beta sum(k * k)`. With a k of larger norm,
    the memory could grow. Some layers also normalize q.

    DeltaProduct (arXiv:2502.10297) writes several values for each token; each value is
    a step. The first step of a token has the token's g, and the last step has the
    token's q. In the other steps, g and q are zeros. Use the output of the last step.

    Shapes, for `N = num_heads`, `M = num_key_heads`, `K = key_size` and
    `V = value_size`: inputs `DeltaInputs(q, k, v, g, beta)` with q and k
    `[batch, M, K]`, v `[batch, N, V]`, beta `[batch, N]`, and g `[batch, N]`, or
    `[batch, N, K]` with `key_decay`; state S `[batch, N, K, V]`; output
    `[batch, N, V]`, in the widest dtype of the inputs. g is clipped to at least -87.

    Attributes:
        num_heads: `N`, the number of heads.
        key_size: `K`, the size of q and k in each head.
        value_size: `V`, the size of v in each head.
        num_key_heads: `M`, the number of heads of q and k, which must divide `N`.
            Default: `N`. Each q and k is shared by `N / M` consecutive heads.
        key_decay: Whether each key decays separately, so that `exp(g)` is a diagonal
            matrix.
        scale: The factor of q. Default: `1 / sqrt(K)`.
        chunk_size: The largest number of steps that are computed together (a chunk).
            Results for different sizes differ only by rounding. Default: 16 with
            `key_decay`. Default without `key_decay`: 32 for small heads on a CPU,
            otherwise 64. By default, CPUs also scan small memories step by step if the
            call is not differentiated.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, or `num_key_heads` does not divide
            `num_heads`.

    Source: arXiv:2412.06464, equation 10; `key_decay`: arXiv:2510.26692; the scale of q
    and the shared heads as in the package `flash-linear-attention` and in Qwen3-Next.

    Example:
        >>> import jax.numpy as jnp, jaxrnn
        >>> cell = jaxrnn.DeltaMemoryCell(num_heads=2, key_size=4, value_size=3)
        >>> k = jnp.full((1, 5, 2, 4), 0.5)  # [batch, time, heads, key], with norm 1.
        >>> v, beta = jnp.ones((1, 5, 2, 3)), jnp.ones((1, 5, 2))
        >>> inputs = jaxrnn.DeltaInputs(q=k, k=k, v=v, g=0 * beta, beta=beta)
        >>> outputs, state = jaxrnn.dynamic_rnn(cell.bind({}), inputs, dtype=v.dtype)
        >>> outputs.shape, state.shape
        ((1, 5, 2, 3), (1, 2, 4, 3))
    """

    rule = property(lambda self: DeltaRule(key_decay=self.key_decay))


@final
@fields.dataclass
class DPLRMemoryCell(ChosenLoopCell[Array]):
    """The generalized delta rule, without projections or parameters.

    A step multiplies the memory by a matrix that is diagonal plus low rank (DPLR). For
    each head, S is a matrix [key, value], and vectors are rows::

        S'     = diag(exp(g)) S + outer(b, a S) + outer(k, v)
        output = scale q S'

    Use the cell in a layer that has its own projections, convolutions or norms. Bind
    the cell with `cell.bind({})`. g is the logarithm of the decay, at most 0. a reads
    the state before the decay. In RWKV-7, q is r, `scale` is 1, a is `-k'` and b is
    `k' * rate`, for a k' of norm 1 and a rate in (0, 1).

    Shapes, for `N = num_heads`, `M = num_key_heads`, `K = key_size` and
    `V = value_size`: inputs `DPLRInputs(q, k, v, a, b, g)` with q and k
    `[batch, M, K]`, v `[batch, N, V]`, and a, b and g `[batch, N, K]`; state S
    `[batch, N, K, V]`; output `[batch, N, V]`, in the widest dtype of the inputs. g is
    clipped to at least -87.

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

    Source: arXiv:2503.14456, section 3 (RWKV-7); `dplr` in the package
    `flash-linear-attention`.

    Example:
        >>> import jax.numpy as jnp, jaxrnn
        >>> cell = jaxrnn.DPLRMemoryCell(2, key_size=4, value_size=3)
        >>> k = jnp.full((1, 5, 2, 4), 0.5)  # [batch, time, heads, key], with norm 1.
        >>> v = jnp.ones((1, 5, 2, 3))
        >>> inputs = jaxrnn.DPLRInputs(q=k, k=k, v=v, a=-k, b=0.5 * k, g=-0.1 * k)
        >>> outputs, state = jaxrnn.dynamic_rnn(cell.bind({}), inputs, dtype=v.dtype)
        >>> outputs.shape, state.shape
        ((1, 5, 2, 3), (1, 2, 4, 3))
    """

    rule = DPLRRule()


@final
@fields.dataclass
class MLSTMMemoryCell(ChosenLoopCell[MLSTMState[Array]]):
    """The memory of an mLSTM, without projections or parameters.

    For each head, with k multiplied by `scale`::

        c'     = sigmoid(f) * c + exp(i) * outer(k, v)
        n'     = sigmoid(f) * n + exp(i) * k
        output = (q c') / (max(|q n'|, 1) + 1e-6 exp(m'))

    Use the cell in a layer that has its own projections, convolutions, norms or gates.
    Bind the cell with `cell.bind({})`. `MLSTMCell` has the same rule, with projections
    and an output gate; its documentation explains the state.

    Shapes, for `N = num_heads`, `M = num_key_heads`, `K = key_size` and
    `V = value_size`: inputs `MLSTMInputs(q, k, v, i, f)` with q and k `[batch, M, K]`,
    v `[batch, N, V]`, i and f `[batch, N]`; state `MLSTMState(c, n, m)` with c
    `[batch, N, K, V]`, n `[batch, N, K]` and m `[batch, N]`; output `[batch, N, V]`, in
    the widest dtype of the inputs. f is clipped to [-87, 87], and i to at least -1e9.
    For bfloat16 inputs, use a float32 state.

    Attributes:
        num_heads: `N`, the number of heads.
        key_size: `K`, the size of q and k in each head.
        value_size: `V`, the size of v in each head.
        num_key_heads: `M`, the number of heads of q and k, which must divide `N`.
            Default: `N`. Each q and k is shared by `N / M` consecutive heads.
        scale: The factor of k. Default: `1 / sqrt(K)`.
        chunk_size: The largest number of steps that are computed together (a chunk).
            Results for different sizes differ only by rounding. Default: 32 for small
            heads on a CPU, otherwise 64. By default, CPUs also scan small memories step
            by step if the call is not differentiated.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, or `num_key_heads` does not divide
            `num_heads`.

    Source: arXiv:2405.04517, section 2.3; `mlstm_kernels`, the package of the authors.

    Example:
        >>> import jax.numpy as jnp, jaxrnn
        >>> cell = jaxrnn.MLSTMMemoryCell(2, key_size=4, value_size=3)
        >>> k = jnp.ones((1, 5, 2, 4))  # [batch, time, heads, key]
        >>> v, gates = jnp.ones((1, 5, 2, 3)), jnp.zeros((1, 5, 2))
        >>> inputs = jaxrnn.MLSTMInputs(q=k, k=k, v=v, i=gates, f=gates + 3)
        >>> outputs, state = jaxrnn.dynamic_rnn(cell.bind({}), inputs, dtype=v.dtype)
        >>> outputs.shape, state.c.shape
        ((1, 5, 2, 3), (1, 2, 4, 3))
    """

    rule = MLSTMRule()

    def scaled(self, values: MLSTMInputs) -> MLSTMInputs:
        """The values with the scale of k, and with gates in range."""
        k = self.times_scale(values.k)
        # In an empty memory, whose scale is -inf, a gate of -inf would give NaN.
        i = jnp.maximum(values.i, -1e9)
        return values._replace(k=k, i=i, f=jnp.clip(values.f, LEAST_LOG, -LEAST_LOG))
