"""Cells that write with the delta rule: DeltaNet and Gated DeltaNet."""

import dataclasses
import math
from typing import final

import jax
import jax.numpy as jnp

from ..._base.scaled import unit
from ..._base.typing import Array, DType, Initializer, Key, Params
from .. import fields
from ..params import ParamSpec, Specs, draw_a_log, draw_time_steps, head_size, ones
from .decays import LEAST_LOG
from .delta_rule import DeltaInputs, DeltaRule
from .projected_memory import ProjectedMemoryCell


@fields.dataclass
class DeltaNetBase(ProjectedMemoryCell[Array]):
    """The projections of `DeltaNetCell` and `GatedDeltaNetCell`."""

    num_units: int = fields.size()
    num_heads: int = fields.count(default=1)
    key_size: int | None = fields.count(default=None)
    activation: fields.ActivationLike = fields.activation(none=jax.nn.silu)
    allow_neg_eigval: bool = fields.flag(False)
    kernel_initializer: Initializer | None = fields.initializer()
    bias_initializer: Initializer | None = fields.initializer()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()
    _: dataclasses.KW_ONLY
    norm_epsilon: float = fields.number(1e-5, low=1e-12)
    chunk_size: int = fields.count(default=32)

    rule = property(lambda self: DeltaRule(self._prepared))

    @property
    def _sizes(self) -> list[int]:
        return [*super()._sizes, self.num_heads]

    def param_specs(self, depth: int) -> Specs:
        """Specs of `kernel`, `bias` and `norm_scale`."""
        scale = ParamSpec((head_size(self),), ones)
        return super().param_specs(depth) | {"norm_scale": scale}

    def _blocks(self, params: Params, inputs: Array, dtype: DType) -> list[Array]:
        """q, k, v, the fraction b, and the other blocks."""
        q, k, v, b, *others = super()._blocks(params, inputs, dtype)
        b = jax.nn.sigmoid(b) * (2 if self.allow_neg_eigval else 1)
        return [q, k, v, b, *others]

    def _prepared(self, values: DeltaInputs) -> DeltaInputs:
        """q, k and v after the activation; q and k have norm 1."""
        q, k, v = map(self.activation, values[:3])
        return values._replace(q=unit(q), k=unit(k), v=v)

    def _normalized(self, params: Params, h: Array) -> Array:
        """RMS-normalizes `h / sqrt(K)` in each head; multiplies by `norm_scale`."""
        size = h.shape[-1]
        scale = math.sqrt(size) * params["norm_scale"].astype(h.dtype)
        # sqrt(K) cancels, except beside epsilon.
        epsilon = size * self.norm_epsilon * (self.key_size or 1)
        h = unit(h, epsilon) * scale[None, None, :]
        return h.reshape(h.shape[0], self.num_units)


@final
@fields.dataclass
class DeltaNetCell(DeltaNetBase):
    """A linear attention that corrects what its memory holds (DeltaNet).

    For each head, with vectors as rows::

        q, k, v, b = split(x kernel + bias)
        q, k   = unit(activation(q)), unit(activation(k))
        v, b   = activation(v), sigmoid(b)
        S'     = S + b outer(k, v - k S)
        output = rms_norm(q S' / sqrt(K))

    Here, `rms_norm(h) = h / sqrt(mean(h * h) + norm_epsilon) * norm_scale`, as in the
    package `flash-linear-attention`.

    `unit` divides a vector by its norm, so that S' holds `(1 - b) k S + b v` at k: the
    old value moves towards v by the fraction b. Values at keys that are orthogonal to k
    do not change.

    A step multiplies S by `I - b outer(k, k)`. With `allow_neg_eigval`, b is doubled,
    so the eigenvalue `1 - b` is in (-1, 1) instead of (0, 1). A step can then change
    the sign of what S holds at k, which is needed, for example, to compute the parity
    of a sequence of bits.

    Shapes, for input size `I`, `H = num_units`, `N = num_heads`, `K = key_size` and
    `V = H / N`: inputs `[batch, I]`; state S `[batch, N, K, V]`; output `[batch, H]`;
    `kernel` `[I, 2NK + H + N]` and `bias` `[2NK + H + N]`, blocks q, k, v, b, each
    ordered by head; `norm_scale` `[V]`.

    The paper's layer has no biases, convolves q, k and v over a few steps, and
    multiplies the output by a kernel. To convolve the inputs instead, use `short_conv`
    or a `TemporalConvWrapper`.

    Attributes:
        num_units: `H`, the size of the output, which is split equally among the heads.
        num_heads: `N`, the number of heads, which must divide `H`.
        key_size: `K`, the size of q and k in each head; None for `V`.
        activation: The activation of q, k and v: None for SiLU, the name of a Keras
            activation, or a function.
        allow_neg_eigval: Whether b is in (0, 2) instead of (0, 1).
        kernel_initializer: For the kernel; None for Glorot uniform, drawn separately
            for each block.
        bias_initializer: For the bias; None for zeros.
        norm_epsilon: The number that is added to the mean square of `q S' / sqrt(K)`.
            Qwen3-Next adds 1e-6.
        chunk_size: The largest number of steps that are computed together (a chunk).
            Results for different sizes differ only by rounding.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, `num_heads` does not divide
            `num_units`, or `dtype` is not floating-point.

    Source: arXiv:2406.06484, sections 2.2 and 3.3; `allow_neg_eigval`:
    arXiv:2411.12537, and the option of this name in the package
    `flash-linear-attention`.
    """

    def project(
        self, params: Params, inputs: Array, dtype: DType
    ) -> tuple[None, DeltaInputs]:
        """The values of a step; see `MatrixMemoryCell.project`."""
        q, k, v, b = self._blocks(params, inputs, dtype)
        return None, DeltaInputs(q, k, v, jnp.zeros_like(b), b)

    def output(self, params: Params, h: Array, rest: None) -> Array:
        """The normalized `h`."""
        return self._normalized(params, h)


@final
@fields.dataclass
class GatedDeltaNetCell(DeltaNetBase):
    """A `DeltaNetCell` whose memory decays, with an output gate (Gated DeltaNet).

    For each head, with vectors as rows::

        q, k, v, b, a, g = split(x kernel + bias)
        q, k   = unit(activation(q)), unit(activation(k))
        v, b   = activation(v), sigmoid(b)
        a      = exp(-exp(a_log) softplus(a))
        S'     = a S + b outer(k, v - a k S)
        output = rms_norm(q S' / sqrt(K)) * silu(g)

    `unit` divides a vector by its norm, and
    `rms_norm(h) = h / sqrt(mean(h * h) + norm_epsilon) * norm_scale`. The decay a is at
    least exp(-87). With `allow_neg_eigval`, b is doubled; see `DeltaNetCell`.

    Shapes, for input size `I`, `H = num_units`, `N = num_heads`, `K = key_size` and
    `V = H / N`: inputs `[batch, I]`; state S `[batch, N, K, V]`; output `[batch, H]`;
    `kernel` `[I, 2NK + 2H + 2N]` and `bias` `[2NK + 2H + 2N]`, blocks q, k, v, b, a, g,
    each ordered by head; `a_log` `[N]`; `norm_scale` `[V]`.

    The paper's layer has a bias only in the block a, convolves q, k and v over a few
    steps, and multiplies the output by a kernel. To convolve the inputs instead, use
    `short_conv` or a `TemporalConvWrapper`.

    Attributes:
        num_units: `H`, the size of the output, which is split equally among the heads.
        num_heads: `N`, the number of heads, which must divide `H`.
        key_size: `K`, the size of q and k in each head; None for `V`.
        activation: The activation of q, k and v: None for SiLU, the name of a Keras
            activation, or a function.
        allow_neg_eigval: Whether b is in (0, 2) instead of (0, 1).
        kernel_initializer: For the kernel; None for Glorot uniform, drawn separately
            for each block.
        bias_initializer: For the bias; None for zeros, except in the block a, where
            `softplus` of the bias is log-uniform in [0.001, 0.1].
        norm_epsilon: The number that is added to the mean square of `q S' / sqrt(K)`.
            Qwen3-Next adds 1e-6.
        chunk_size: The largest number of steps that are computed together (a chunk).
            Results for different sizes differ only by rounding.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, `num_heads` does not divide
            `num_units`, or `dtype` is not floating-point.

    Source: arXiv:2412.06464, equation 10 and section 3.4; the decay and its initial
    values (`exp(a_log)` is uniform in [1, 16]): Mamba-2, arXiv:2405.21060.
    """

    @property
    def _sizes(self) -> list[int]:
        return [*super()._sizes, self.num_heads, self.num_units]

    def param_specs(self, depth: int) -> Specs:
        """Specs of `kernel`, `bias`, `norm_scale` and `a_log`."""
        a_log = ParamSpec((self.num_heads,), draw_a_log)
        return super().param_specs(depth) | {"a_log": a_log}

    def project(
        self, params: Params, inputs: Array, dtype: DType
    ) -> tuple[Array, DeltaInputs]:
        """The gate g and the values of a step; see `MatrixMemoryCell.project`."""
        q, k, v, b, a, g = self._blocks(params, inputs, dtype)
        decay = _log_decay(params["a_log"].astype(dtype), jax.nn.softplus(a))
        return g, DeltaInputs(q, k, v, decay, b)

    def output(self, params: Params, h: Array, rest: Array) -> Array:
        """The normalized `h`, times `silu` of the gate g."""
        return self._normalized(params, h) * jax.nn.silu(rest)

    def _bias(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        start = sum(self._sizes[:4])
        decay = draw_time_steps(key, (self.num_heads,), dtype)
        return jnp.zeros(shape, dtype).at[start : start + self.num_heads].set(decay)


def _log_decay(a_log: Array, time_step: Array) -> Array:
    """`-exp(a_log) * time_step`, at least -87; `[batch, heads]`."""
    return jnp.maximum(-jnp.exp(a_log)[None, :] * time_step, LEAST_LOG)
