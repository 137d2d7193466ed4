"""Cells that write with the delta rule: DeltaNet and Gated DeltaNet."""

import abc
import dataclasses
import math
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import ones

from .._base.math import affine
from .._base.trees import TensorShape
from .._base.typing import Array, DType, Initializer, Key, Params
from . import fields
from .matrix_memory import Chunk, MatrixMemoryCell
from .params import ParamSpec, Specs, glorot_blocks, head_size, zeros

# The least logarithm of a decay: exp(-87) is about the smallest normal float32. In a
# chunk (steps that are computed together), sums of these logarithms are subtracted from
# each other. Without this limit, a logarithm of large magnitude would round away the
# terms of other steps, and the difference of two infinite sums would be NaN.
_LEAST_LOG = -87.0


class DeltaValues(NamedTuple):
    """What a step reads and writes.

    `q` and `k` are `[batch, heads, key]` and `v` is `[batch, heads, value]`, all three
    before the activation; `log_a` and `b` are `[batch, heads]`. In a chunk, an axis of
    steps follows the axis of heads.
    """

    q: Any
    k: Any
    v: Any
    log_a: Any
    b: Any


@fields.dataclass
class DeltaRuleCell(MatrixMemoryCell):
    """The recurrence that `DeltaNetCell` and `GatedDeltaNetCell` share.

    For each head, with a matrix S [key, value], k of norm 1, and vectors as rows:

        S'     = a S + b outer(k, v - a k S)
        h      = q S'

    The decayed value that S holds at k therefore moves towards v by the fraction b.
    """

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
    chunk_size: int = fields.count(default=32)

    output_size = property(lambda self: self.num_units)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key_size is None:
            fields.set_field(self, "key_size", max(1, head_size(self)))
        head_size(self)  # Raises an error unless `num_heads` divides `num_units`.

    @property
    def _keys(self) -> int:
        """The number of columns of all keys."""
        return self.num_heads * (self.key_size or 0)

    @property
    def state_size(self) -> TensorShape:
        """The sizes of S, `[num_heads, key_size, num_units / num_heads]`."""
        return TensorShape([self.num_heads, self.key_size or 0, head_size(self)])

    @property
    @abc.abstractmethod
    def _sizes(self) -> list[int]:
        """The columns in each block of the kernel; the first blocks are q, k, v, b."""

    def param_specs(self, depth: int) -> Specs:
        """Specs of `kernel`, `bias` and `norm_scale`."""
        columns = sum(self._sizes)
        kernel = self.kernel_initializer or self._kernel
        bias = self.bias_initializer or self._bias
        return {
            "kernel": ParamSpec((depth, columns), kernel, depth),
            "bias": ParamSpec((columns,), bias),
            "norm_scale": ParamSpec((head_size(self),), ones),
        }

    def _blocks(
        self, params: Params, inputs: Array, dtype: DType
    ) -> tuple[Array, Array, Array, Array, list[Array]]:
        """q, k and v `[batch, heads, size]`, b, and a list of the other blocks."""
        z = affine(params, [inputs], dtype)
        q, k, v, b, *rest = jnp.split(z, np.cumsum(self._sizes)[:-1], axis=-1)
        rows = inputs.shape[0]
        heads = self.num_heads
        q, k = (x.reshape(rows, heads, self.key_size) for x in (q, k))
        v = v.reshape(rows, heads, head_size(self))
        b = jax.nn.sigmoid(b) * (2 if self.allow_neg_eigval else 1)
        return q, k, v, b, rest

    def idle(self) -> DeltaValues:
        """The values of a step without effect; see `MatrixMemoryCell.idle`."""
        return DeltaValues(q=0.0, k=0.0, v=0.0, log_a=0.0, b=0.0)

    def update(self, values: DeltaValues, state: Array) -> tuple[Array, Array]:
        """One step; see `MatrixMemoryCell.update`."""
        q, k, v = self._activated(values)
        log_a = values.log_a
        b = values.b
        state = jnp.exp(log_a)[..., None, None] * state
        u = b[..., None] * (v - jnp.einsum("bnk,bnkv->bnv", k, state))
        state = state + k[..., :, None] * u[..., None, :]
        return jnp.einsum("bnk,bnkv->bnv", q, state), state

    def attend(self, chunk: Chunk) -> tuple[Array, Array]:
        """All steps of a chunk; see `MatrixMemoryCell.attend`.

        What a step writes, `u = b (v - a k S)`, depends on what earlier steps wrote.
        With `keep` and `pairs`, the products of decays in `matrix_memory.py`,

            u_t + b_t sum over s < t of pairs_ts (k_t k_s) u_s
                = b_t (v_t - keep_t k_t S)

        The u of all steps are therefore the solution of one triangular system.

        Source: arXiv:2412.06464, section 3.3; arXiv:2406.06484, section 3.
        """
        q, k, v = self._activated(chunk.values)
        b = chunk.values.b
        log_keep = chunk.sums(chunk.values.log_a)
        decays = jnp.exp(log_keep)
        pairs = chunk.pairs(log_keep, -log_keep)
        keep = decays[..., None]
        between = jnp.tril(jnp.einsum("bntk,bnsk->bnts", k, k) * pairs, -1)
        wanted = b[..., None] * (v - keep * chunk.read(k, _matrix))
        u = _solve(b[..., None] * between, wanted)
        scores = jnp.einsum("bntk,bnsk->bnts", q, k) * pairs
        h = keep * chunk.read(q, _matrix) + jnp.einsum("bnts,bnsv->bntv", scores, u)
        return h, chunk.memory(_matrix, decays, pairs, k, u)

    def _activated(self, values: DeltaValues) -> tuple[Array, Array, Array]:
        """q, k and v after the activation; q and k have norm 1."""
        # The activation would be slower in `project`, where the axis of heads still
        # follows the axis of steps.
        q = _unit(self.activation(values.q))
        k = _unit(self.activation(values.k))
        return q, k, self.activation(values.v)

    def _kernel(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        return glorot_blocks(key, shape[0], self._sizes, dtype)

    def _bias(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        return zeros(key, shape, dtype)

    def _normalized(self, params: Params, h: Array) -> Array:
        """`h` divided by its root mean square in each head, times `norm_scale`."""
        mean = jnp.mean(jnp.square(h), axis=-1, keepdims=True)
        scale = params["norm_scale"].astype(h.dtype)[None, None, :]
        h = h * jax.lax.rsqrt(mean + 1e-5) * scale
        return h.reshape(h.shape[0], self.num_units)


@final
@fields.dataclass
class DeltaNetCell(DeltaRuleCell):
    """A linear attention that corrects what its memory holds (DeltaNet).

    For each head, with vectors as rows:

        q, k, v, b = split(x kernel + bias)
        q, k   = unit(activation(q)), unit(activation(k))
        v, b   = activation(v), sigmoid(b)
        S'     = S + b outer(k, v - k S)
        output = rms_norm(q S')

    For q S' of size V, `rms_norm(h) = h / sqrt(mean(h * h) + 1e-5) * norm_scale`. The
    package `flash-linear-attention` and Qwen3-Next divide q by `sqrt(K)` first, so
    their 1e-5 weighs K times as much.

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
    multiplies the output by a kernel. To convolve the inputs instead, wrap the cell in
    a `TemporalConvWrapper`.

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

    @property
    def _sizes(self) -> list[int]:
        return [self._keys, self._keys, self.num_units, self.num_heads]

    def project(
        self, params: Params, inputs: Array, dtype: DType
    ) -> tuple[None, DeltaValues]:
        """The values of a step; see `MatrixMemoryCell.project`."""
        q, k, v, b, _ = self._blocks(params, inputs, dtype)
        return None, DeltaValues(q, k, v, jnp.zeros_like(b), b)

    def output(self, params: Params, h: Array, rest: None) -> Array:
        """The normalized `h`."""
        return self._normalized(params, h)


@final
@fields.dataclass
class GatedDeltaNetCell(DeltaRuleCell):
    """A `DeltaNetCell` whose memory decays, with an output gate (Gated DeltaNet).

    For each head, with vectors as rows:

        q, k, v, b, a, g = split(x kernel + bias)
        q, k   = unit(activation(q)), unit(activation(k))
        v, b   = activation(v), sigmoid(b)
        a      = exp(-exp(a_log) softplus(a))
        S'     = a S + b outer(k, v - a k S)
        output = rms_norm(q S') * silu(g)

    `unit` divides a vector by its norm, and
    `rms_norm(h) = h / sqrt(mean(h * h) + 1e-5) * norm_scale`. As in `DeltaNetCell`, q
    is not divided by `sqrt(K)` before. The decay a is at least exp(-87). With
    `allow_neg_eigval`, b is doubled; see `DeltaNetCell`.

    Shapes, for input size `I`, `H = num_units`, `N = num_heads`, `K = key_size` and
    `V = H / N`: inputs `[batch, I]`; state S `[batch, N, K, V]`; output `[batch, H]`;
    `kernel` `[I, 2NK + 2H + 2N]` and `bias` `[2NK + 2H + 2N]`, blocks q, k, v, b, a, g,
    each ordered by head; `a_log` `[N]`; `norm_scale` `[V]`.

    The paper's layer has a bias only in the block a, convolves q, k and v over a few
    steps, and multiplies the output by a kernel. To convolve the inputs instead, wrap
    the cell in a `TemporalConvWrapper`.

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
        heads = self.num_heads
        units = self.num_units
        return [self._keys, self._keys, units, heads, heads, units]

    def param_specs(self, depth: int) -> Specs:
        """Specs of `kernel`, `bias`, `norm_scale` and `a_log`."""
        a_log = ParamSpec((self.num_heads,), _draw_a_log)
        return {**super().param_specs(depth), "a_log": a_log}

    def project(
        self, params: Params, inputs: Array, dtype: DType
    ) -> tuple[Array, DeltaValues]:
        """The gate g and the values of a step; see `MatrixMemoryCell.project`."""
        q, k, v, b, (a, g) = self._blocks(params, inputs, dtype)
        log_a = _log_decay(params["a_log"].astype(dtype), jax.nn.softplus(a))
        return g, DeltaValues(q, k, v, log_a, b)

    def output(self, params: Params, h: Array, rest: Array) -> Array:
        """The normalized `h`, times `silu` of the gate g."""
        return self._normalized(params, h) * jax.nn.silu(rest)

    def _bias(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        start = sum(self._sizes[:4])
        decay = _draw_time_steps(key, (self.num_heads,), dtype)
        return jnp.zeros(shape, dtype).at[start : start + self.num_heads].set(decay)


def _matrix(state: Array) -> Array:
    """The matrix of a state, which is the state itself."""
    return state


def _unit(x: Array) -> Array:
    """`x` divided by its norm, with a finite derivative at 0."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


def _log_decay(a_log: Array, time_step: Array) -> Array:
    """`-exp(a_log) * time_step`, at least -87; `[batch, heads]`."""
    return jnp.maximum(-jnp.exp(a_log)[None, :] * time_step, _LEAST_LOG)


def _draw_a_log(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    """Draws logarithms of uniform numbers in [1, 16]."""
    return jnp.log(jax.random.uniform(key, shape, dtype, 1, 16))


def _draw_time_steps(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    """Draws numbers whose softplus is log-uniform in [0.001, 0.1]."""
    low, high = math.log(0.001), math.log(0.1)
    steps = jnp.exp(jax.random.uniform(key, shape, dtype, low, high))
    return steps + jnp.log(-jnp.expm1(-steps))


@jax.custom_jvp
def _solve(a: Array, rhs: Array) -> Array:
    """Solves `u + a u = rhs` for u; a `[..., n, n]` is strictly lower triangular.

    `jax.scipy.linalg.solve_triangular` is not used, because in a scan it was seen to
    hang on a CPU with two threads (JAX 0.10.2).
    """
    return _product(_unit_lower_inverse(a), rhs)


@_solve.defjvp
def _solve_tangents(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    a, rhs = primals
    d_a, d_rhs = tangents
    u = _solve(a, rhs)
    return u, _solve(a, d_rhs - _product(d_a, u))


def _unit_lower_inverse(a: Array) -> Array:
    """The inverse of `I + a`, for strictly lower triangular a `[..., n, n]`.

    Let P and Q be the diagonal blocks of `I + a`, of half the size, and C the block
    below P. The inverses of P and Q are computed together, and

        [[P, 0], [C, Q]]^-1 = [[P^-1, 0], [-Q^-1 C P^-1, Q^-1]]
    """
    size = a.shape[-1]
    if size == 1:
        return jnp.ones_like(a)
    if size % 2:
        edges = [(0, 0)] * (a.ndim - 2) + [(0, 1), (0, 1)]
        return _unit_lower_inverse(jnp.pad(a, edges))[..., :size, :size]
    half = size // 2
    halves = jnp.stack([a[..., :half, :half], a[..., half:, half:]], axis=-3)
    inverses = _unit_lower_inverse(halves)
    first = inverses[..., 0, :, :]
    second = inverses[..., 1, :, :]
    corner = -_product(_product(second, a[..., half:, :half]), first)
    top = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
    bottom = jnp.concatenate([corner, second], axis=-1)
    return jnp.concatenate([top, bottom], axis=-2)


def _product(a: Array, b: Array) -> Array:
    # With a lower precision, errors would grow with each level of the recursion.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
