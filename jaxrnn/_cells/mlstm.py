"""The LSTM with a matrix memory (mLSTM), part of the xLSTM."""

import math
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp

from .._base.math import affine, cast_like
from .._base.trees import TensorShape, serializable
from .._base.typing import Array, DType, Initializer, Key, Params, PyTree
from . import fields
from .matrix_memory import Chunk, MatrixMemoryCell
from .params import ParamSpec, Specs, glorot_blocks, head_size, zeros


@serializable
class MLSTMState(NamedTuple):
    """The state of an mLSTM: the memory `c`, its normalizer `n`, and their scale `m`.

    The actual memory and normalizer are `exp(m) * c` and `exp(m) * n`, which could
    overflow. The order of the fields matches the package `xlstm`.
    """

    c: PyTree
    n: PyTree
    m: PyTree


# The argument f of sigmoid(f) is clipped to this minimum, where the sigmoid is close to
# the smallest normal float32. In a chunk (steps that are computed together), sums of
# log(sigmoid(f)) are subtracted from each other. Without the clip, a logarithm of large
# magnitude would round away the terms of other steps, and the difference of two
# infinite sums would be NaN.
_SHUT = -87.0


class MLSTMValues(NamedTuple):
    """What a step reads and writes.

    `q`, `k` (scaled) and `v` are `[batch, heads, d]`; `i` and `log_f` are
    `[batch, heads]`. In a chunk, an axis of steps follows the axis of heads.
    """

    q: Any
    k: Any
    v: Any
    i: Any
    log_f: Any


@final
@fields.dataclass
class MLSTMCell(MatrixMemoryCell):
    """An LSTM with a matrix memory (mLSTM): a linear attention with gates.

    For each head, with `k` scaled by `1 / sqrt(d)`:

        q, k, v, o, i, f = split(x kernel + bias)
        c'     = sigmoid(f) * c + exp(i) * outer(k, v)
        n'     = sigmoid(f) * n + exp(i) * k
        output = sigmoid(o) * (q c') / max(|q n'|, 1)

    Each head has one scalar for each of the gates i and f; o has the size of the
    output. To keep exp(i) in range, the state holds c and n divided by exp(m):

        m'     = max(log(sigmoid(f)) + m, i)

    f is clipped to at least -87, where `sigmoid(f)` is about 1e-38.

    The gates, q, k and v do not depend on the state. Whole sequences are therefore run
    in chunks of steps, with attention within each chunk and this recurrence between
    chunks.

    Shapes, for input size `I`, `H = num_units`, `N = num_heads` and `d = H / N`: inputs
    `[batch, I]`; state `MLSTMState(c, n, m)` with c `[batch, N, d, d]` (the axis of k
    before the axis of v), n `[batch, N, d]` and m `[batch, N]`; output `[batch, H]`;
    `kernel` `[I, 4H + 2N]` and `bias` `[4H + 2N]`, blocks q, k, v, o of size H, ordered
    by head, then i, f of size N.

    Arithmetic is done in at least float32. The state may be wider than the inputs; for
    bfloat16 inputs, use a float32 state.

    Attributes:
        num_units: `H`, the total size of all heads.
        num_heads: `N`, the number of heads, which must divide `H`.
        kernel_initializer: For the kernel; None for Glorot uniform, drawn separately
            for each of the blocks q, k, v and o, and zeros in i and f.
        bias_initializer: For the bias; None for zeros in q, k, v and o, draws from
            `N(0, 0.1^2)` in i, and values from 3 to 6 in f, evenly spaced over heads.
        chunk_size: The largest number of steps in a chunk. Results for different sizes
            differ only by rounding.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If `num_units` is negative, `num_heads` is not positive or does not
            divide `num_units`, or `dtype` is not floating-point.

    Source: arXiv:2405.04517, section 2.3 and appendix A; `mLSTMCell` of the package
    `xlstm`, which defines the scaling of k, the order of c and the 1e-6 that is added
    to the denominator.
    """

    num_units: int = fields.size()
    num_heads: int = fields.count(default=1)
    kernel_initializer: Initializer | None = fields.initializer()
    bias_initializer: Initializer | None = fields.initializer()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    output_size = property(lambda self: self.num_units)

    @property
    def state_size(self) -> MLSTMState:
        """The sizes of the state, an `MLSTMState`."""
        heads = self.num_heads
        size = head_size(self)
        return MLSTMState(
            c=TensorShape([heads, size, size]),
            n=TensorShape([heads, size]),
            m=TensorShape([heads]),
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        head_size(self)  # Raises an error unless `num_heads` divides `num_units`.

    def param_specs(self, depth: int) -> Specs:
        """Specs of `kernel` and `bias`."""
        columns = 4 * self.num_units + 2 * self.num_heads
        kernel = self.kernel_initializer or self._kernel
        bias = self.bias_initializer or self._bias
        return {
            "kernel": ParamSpec((depth, columns), kernel, depth),
            "bias": ParamSpec((columns,), bias),
        }

    def project(
        self, params: Params, inputs: Array, dtype: DType
    ) -> tuple[Array, MLSTMValues]:
        """The output gate, `[batch, num_units]`, and the values of a step."""
        z = affine(params, [inputs], dtype)
        heads = self.num_heads
        units = self.num_units
        ends = [units, 2 * units, 3 * units, 4 * units, 4 * units + heads]
        *vectors, o, i, f = jnp.split(z, ends, axis=-1)
        shape = (inputs.shape[0], heads, head_size(self))
        q, k, v = (x.reshape(shape) for x in vectors)
        k = k / math.sqrt(max(1, head_size(self)))
        log_f = jax.nn.log_sigmoid(jnp.maximum(f, _SHUT))
        return jax.nn.sigmoid(o), MLSTMValues(q, k, v, i, log_f)

    def idle(self) -> MLSTMValues:
        """The values of a step without effect; see `MatrixMemoryCell.idle`."""
        return MLSTMValues(q=0.0, k=0.0, v=0.0, i=-math.inf, log_f=0.0)

    def update(
        self, values: MLSTMValues, state: MLSTMState
    ) -> tuple[Array, MLSTMState]:
        """One step; see `MatrixMemoryCell.update`."""
        q, k, v, i, log_f = values
        m = jnp.maximum(log_f + state.m, i)
        keep = jnp.exp(log_f + state.m - m)
        added = k * jnp.exp(i - m)[..., None]
        n = keep[..., None] * state.n + added
        c = keep[..., None, None] * state.c + added[..., :, None] * v[..., None, :]
        dot = jnp.einsum("bnk,bnk->bn", q, n)
        h = jnp.einsum("bnk,bnkv->bnv", q, c) / _divisor(dot, m)[..., None]
        return h, MLSTMState(c, n, m)

    def attend(self, chunk: Chunk) -> tuple[Array, MLSTMState]:
        """All steps of a chunk; see `MatrixMemoryCell.attend`.

        A span begins at the start of the chunk and at each restart of the state. Let
        `F_t` be the sum of `log_f` from the first step of the span of t up to t.
        Step t computes the same m as `update`:

            m_t = F_t + a_t,    a_t = max(m_0, max_s (i_s - F_s))

        Here, s runs over the steps of this span up to t, and m_0 is the m before the
        span. `F_t` cancels in all weights.
        """
        q, k, v, i, log_f = chunk.values
        forgotten = chunk.sums(log_f)
        added = i - forgotten
        m = chunk.start(lambda state: state.m)
        a = jnp.maximum(m, chunk.maxima(added))
        # Where no step was written yet, an empty memory (m = -inf) stays as it is.
        is_empty = a == -jnp.inf
        keep = jnp.exp(jnp.where(is_empty, 0.0, m - a))
        pairs = chunk.pairs(-jnp.where(is_empty, 0.0, a), added)
        scores = chunk.scores(q, k, pairs)
        old_values = chunk.read(q, _memory)
        old_dot = chunk.read(q, _normalizer)[..., 0]
        values = jnp.einsum("bnts,bnsv->bntv", scores, v)
        values = values + keep[..., None] * old_values
        dot = keep * old_dot + jnp.sum(scores, axis=-1)
        m = forgotten + a
        c = chunk.memory(_memory, keep, pairs, k, v)
        n = chunk.memory(_normalizer, keep, pairs, k, jnp.ones_like(log_f)[..., None])
        state = MLSTMState(c, n[..., 0], chunk.after(m))
        # Without the barrier, XLA computes the divisor again for each number.
        divisor = jax.lax.optimization_barrier(_divisor(dot, m))
        # If `dot` overflowed, the derivative of the quotient is NaN, which must not
        # reach the products of the chunk.
        values = jnp.where(jnp.isfinite(divisor)[..., None], values, jnp.nan)
        return values / divisor[..., None], state

    def output(self, params: Params, h: Array, rest: Array) -> Array:
        """`h` times the output gate."""
        return rest * h.reshape(rest.shape)

    def stored(self, state: PyTree, like: PyTree) -> MLSTMState:
        """The state, cast to the dtypes of `like`.

        If m is rounded, c and n are rescaled to represent the same memory.
        """
        m = state.m.astype(like.m.dtype)
        rounded = state.m - m.astype(state.m.dtype)
        scale = jnp.exp(jnp.where(state.m == -jnp.inf, 0.0, rounded))
        c = state.c * scale[..., None, None]
        n = state.n * scale[..., None]
        return cast_like(like, MLSTMState(c, n, m))

    def _kernel(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        depth = shape[0]
        blocks = glorot_blocks(key, depth, [self.num_units] * 4, dtype)
        gates = jnp.zeros((depth, 2 * self.num_heads), dtype)
        return jnp.concatenate([blocks, gates], axis=-1)

    def _bias(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        heads = self.num_heads
        i = jax.random.normal(key, (heads,), dtype) * 0.1
        f = jnp.linspace(3, 6, heads, dtype=dtype)
        return jnp.concatenate([zeros(key, (4 * self.num_units,), dtype), i, f])


def _memory(state: MLSTMState) -> Array:
    return state.c


def _normalizer(state: MLSTMState) -> Array:
    """The normalizer as a matrix with one column, to which a step adds k times 1."""
    return state.n[..., None]


def _divisor(dot: Array, m: Array) -> Array:
    """Computes `max(|dot|, exp(-m))`, by which a step divides q c.

    The state holds c and n divided by `exp(m)`, so `exp(-m)` replaces the 1 in
    `max(|q n|, 1)`.

    Args:
        dot: The product q n, `[...]`.
        m: The scale of c and n, `[...]`.
    """
    # Limit the exponent, because exp(89) overflows float32. If `least` is exp(80),
    # the quotient is already negligible.
    least = jnp.exp(-jnp.maximum(m, -80.0))
    # Adding 1e-6, as `xlstm` does, avoids 0 / 0: `dot` may be 0, and `least` may
    # underflow to 0.
    return jnp.maximum(jnp.abs(dot), least) + 1e-6
