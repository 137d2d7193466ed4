"""The LSTM with a matrix memory (mLSTM), part of the xLSTM."""

import dataclasses
import math
from typing import final

import jax
import jax.numpy as jnp
import numpy as np

from ..._base.math import standardized
from ..._base.products import affine
from ..._base.typing import Array, DType, Initializer, Key, Params, Size
from .. import fields
from ..params import ParamSpec, Specs, glorot_uniform, head_size, input_specs, ones
from .cell import MatrixMemoryCell
from .mlstm_rule import MLSTMInputs, MLSTMRule, MLSTMState
from .rule import LEAST_LOG


@final
@fields.dataclass
class MLSTMCell(MatrixMemoryCell[MLSTMState[Array]]):
    """An LSTM with a matrix memory (mLSTM), a form of linear attention with gates.

    For each head, with k scaled by `1 / sqrt(K)`::

        q, k, v, o, i, f = split(x kernel + bias)
        c'     = sigmoid(f) * c + exp(i) * outer(k, v)
        n'     = sigmoid(f) * n + exp(i) * k
        output = sigmoid(o) * (q c') / max(|q n'|, 1)

    Each head has one scalar for each of the gates i and f; o has the size of the
    output. To keep exp(i) in range, the state holds c and n divided by exp(m)::

        m'     = max(log(sigmoid(f)) + m, i)

    The cell also adds `1e-6 exp(m')` to the denominator, so that 0 / 0 cannot occur.
    With `gate_soft_cap = c`, `c tanh(i / c)` and `c tanh(f / c)` replace i and f. Then,
    f is clipped to at least -87, where `sigmoid(f)` is about 1e-38. With
    `norm_epsilon`, each head is normalized before the output gate::

        output = sigmoid(o) * layer_norm((q c') / max(|q n'|, 1)) * norm_scale

    The gates, q, k and v do not depend on the state. Whole sequences are therefore run
    in chunks of steps, with attention within each chunk and this recurrence between
    chunks.

    Shapes, for input size `I`, `H = num_units`, `N = num_heads`, `K = key_size` and
    `V = H / N`: inputs `[batch, I]`; state `MLSTMState(c, n, m)` with c
    `[batch, N, K, V]`, n `[batch, N, K]` and m `[batch, N]`; output `[batch, H]`;
    `kernel` `[I, 2NK + 2H + 2N]` and `bias` `[2NK + 2H + 2N]`, blocks q, k, v, o,
    ordered by head, then i, f; with `norm_epsilon`, `norm_scale` `[H]`.

    Arithmetic is done in at least float32. The state may have a wider dtype than
    the inputs; for bfloat16 inputs, use a float32 state.

    Attributes:
        num_units: `H`, the total size of all heads.
        num_heads: `N`, the number of heads, which must divide `H`.
        kernel_initializer: Initializes the kernel. Default: Glorot uniform, drawn
            separately, in each of the blocks q, k, v and o; zeros in i and f.
        bias_initializer: Initializes the bias. Default: zeros in q, k, v and o; draws
            from `N(0, 0.1^2)` in i; values from 3 to 6, evenly spaced over heads, in f.
        key_size: `K`, the size of q and k in each head. Default: `V`.
        gate_soft_cap: The soft cap c of i and f; xLSTM-7B uses 15. If None, i and f
            have no cap.
        norm_epsilon: A number that is added to the variance of a head; xLSTM-7B uses
            1e-6. If None, heads are not normalized.
        chunk_size: The largest number of steps in a chunk. Results for different sizes
            differ only by rounding.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, `num_heads` does not divide
            `num_units`, or `dtype` is not floating-point.

    Source: arXiv:2405.04517, section 2.3 and appendix A; `mLSTMCell` of the package
    `xlstm`, which defines the scaling of k, the order of c and the 1e-6 in the
    denominator. `key_size`, `gate_soft_cap`, `norm_epsilon`: `mLSTMLayer` of xLSTM-7B,
    arXiv:2503.13427, in the same package.
    """

    num_units: int = fields.size()
    num_heads: int = fields.count(default=1)
    kernel_initializer: Initializer | None = fields.initializer()
    bias_initializer: Initializer | None = fields.initializer()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()
    _: dataclasses.KW_ONLY
    key_size: int | None = fields.count(default=None)
    gate_soft_cap: float | None = fields.number(None, low=1e-3, high=1e6)
    norm_epsilon: float | None = fields.number(None, low=1e-12)

    rule = MLSTMRule()
    output_size = property(lambda self: self.num_units)

    def __post_init__(self) -> None:
        super().__post_init__()
        size = head_size(self)
        if self.key_size is None:
            fields.set_field(self, "key_size", max(1, size))

    @property
    def state_size(self) -> Size:
        """The sizes of c, n and m."""
        return self.rule.sizes(self.num_heads, self.key_size or 0, head_size(self))[1]

    @property
    def _sizes(self) -> list[int]:
        """The columns of q, k, v, o, i and f."""
        keys, units = self.num_heads * (self.key_size or 0), self.num_units
        return [keys, keys, units, units, self.num_heads, self.num_heads]

    def param_specs(self, depth: int) -> Specs:
        """Specs of `kernel` and `bias` and, with `norm_epsilon`, `norm_scale`."""
        columns = sum(self._sizes)
        specs = input_specs(self, depth, columns, kernel=self._kernel, bias=self._bias)
        if self.norm_epsilon is not None:
            specs["norm_scale"] = ParamSpec((self.num_units,), ones)
        return specs

    def project(
        self, params: Params, inputs: Array, dtype: DType
    ) -> tuple[Array, MLSTMInputs]:
        """Computes the output gate, `[batch, num_units]`, and the `MLSTMInputs`."""
        z = affine(params, [inputs], dtype)
        *heads, o, i, f = jnp.split(z, np.cumsum(self._sizes)[:-1], axis=-1)
        axes = inputs.shape[0], self.num_heads
        sizes = self.key_size, self.key_size, head_size(self)
        q, k, v = (x.reshape(*axes, n) for x, n in zip(heads, sizes, strict=True))
        if self.gate_soft_cap is not None:
            i, f = (
                self.gate_soft_cap * jnp.tanh(x / self.gate_soft_cap) for x in (i, f)
            )
        k = k / math.sqrt(self.key_size or 1)
        return jax.nn.sigmoid(o), MLSTMInputs(q, k, v, i, jnp.maximum(f, LEAST_LOG))

    def output(self, params: Params, h: Array, rest: Array) -> Array:
        """Normalizes h if `norm_epsilon` is given, then applies the output gate."""
        if self.norm_epsilon is None:
            return rest * h.reshape(rest.shape)
        h = standardized(h, self.norm_epsilon).reshape(rest.shape)
        return rest * h * params["norm_scale"].astype(h.dtype)[None, :]

    def _kernel(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        depth, sizes = shape[0], self._sizes[:4]
        keys = jax.random.split(key, 4)
        blocks = [
            glorot_uniform(key, (depth, size), dtype)
            for key, size in zip(keys, sizes, strict=True)
        ]
        gates = jnp.zeros((depth, 2 * self.num_heads), dtype)
        return jnp.concatenate([*blocks, gates], axis=-1)

    def _bias(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        heads = self.num_heads
        i = jax.random.normal(key, (heads,), dtype) * 0.1
        f = jnp.linspace(3, 6, heads, dtype=dtype)
        return jnp.concatenate([jnp.zeros((sum(self._sizes[:4]),), dtype), i, f])
