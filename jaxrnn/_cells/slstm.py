"""The LSTM with exponential input gates (sLSTM), part of the xLSTM."""

import dataclasses
from typing import Generic, NamedTuple, final

import jax
import jax.numpy as jnp

from .._base.math import at_least_float32
from .._base.sharding import replicated_on_explicit_mesh
from .._base.trees import serializable
from .._base.typing import Array, DType, Initializer, Key, Leaf, Params
from . import fields
from .affine import AffineCell, Stage, StageResult
from .params import ParamSpec, Specs, head_size, input_specs, zeros


@serializable
class SLSTMState(NamedTuple, Generic[Leaf]):
    """The state of an sLSTM: output `h`, cell `c`, normalizer `n` and log scale `m`.

    The actual cell and normalizer are `exp(m) * c` and `exp(m) * n`. The order of the
    fields matches the state array `[4, batch, num_units]` of the package `xlstm`.
    """

    h: Leaf
    c: Leaf
    n: Leaf
    m: Leaf


@final
@fields.dataclass
class SLSTMCell(AffineCell[SLSTMState[Array]]):
    """An LSTM with exponential input gates and units divided into heads (sLSTM).

    Each head g receives only its own part of h::

        i, f, z, o = split(x kernel + bias) + split(h_g recurrent_kernel[g])
        c'     = sigmoid(f) * c + exp(i) * tanh(z)
        n'     = sigmoid(f) * n + exp(i)
        output = h' = sigmoid(o) * c' / n'

    To keep exp(i) in range, the state holds c and n divided by exp(m)::

        m'     = max(log(sigmoid(f)) + m, i), or i where n is 0, as in the zero state

    Shapes, for input size `I`, `H = num_units`, `N = num_heads` and `d = H / N`: inputs
    `[batch, I]`; state `SLSTMState(h, c, n, m)`, each `[batch, H]`; output
    `[batch, H]`; `kernel` `[I, 4H]` and `bias` `[4H]`, blocks i, f, z, o, each ordered
    by head; `recurrent_kernel` `[N, d, 4d]`, the same blocks for each head.

    Arithmetic, except for the matrix products, is done in at least float32. c, n and m
    may have a wider dtype than the inputs. h must have the dtype of the inputs; use
    `state._replace(h=...)` to cast h.

    Attributes:
        num_units: `H`, the total size of all heads.
        num_heads: `N`, the number of heads, which must divide `H`.
        kernel_initializer: Initializes the kernel. Default: Glorot uniform.
        recurrent_initializer: Initializes the recurrent kernel. Default: zeros, as in
            the package `xlstm`.
        bias_initializer: Initializes the bias. Default: zeros in i, z and o; in f,
            values from 5 down to -7, `5 - 12 (j / (d - 1))^0.3` for unit j of a head.
        project_inputs: Whether the cell multiplies the inputs by `kernel`. If False, a
            layer before the cell must project the inputs to `[batch, 4H]`. The cell
            adds them to the product of h and to the bias, and has no `kernel`.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If `num_units` is negative, `num_heads` is not positive or does not
            divide `num_units`, or `dtype` is not floating-point.

    Source: arXiv:2405.04517, section 2.2 and appendix A; `sLSTMCell` of the package
    `xlstm`, which defines the order of the gates and the first step from the zero
    state. In the first step, the package tests whether all of n is 0, whereas this cell
    tests each element.
    """

    num_units: int = fields.size()
    num_heads: int = fields.count(default=1)
    kernel_initializer: Initializer | None = fields.initializer()
    recurrent_initializer: Initializer | None = fields.initializer()
    bias_initializer: Initializer | None = fields.initializer()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()
    _: dataclasses.KW_ONLY
    project_inputs: bool = fields.flag(True)

    output_size = property(lambda self: self.num_units)

    @property
    def state_size(self) -> SLSTMState[int]:
        """The sizes of h, c, n and m, all `num_units`."""
        size = self.num_units
        return SLSTMState(h=size, c=size, n=size, m=size)

    def __post_init__(self) -> None:
        super().__post_init__()
        head_size(self)  # Raises an error unless `num_heads` divides `num_units`.

    @property
    def stages(self) -> tuple[Stage, ...]:
        """A single stage: one product with a kernel that is zero between heads."""
        n = self.num_units
        return (Stage(self._update, operand_size=n, columns=4 * n),)

    def param_specs(self, depth: int) -> Specs:
        """Specs of `kernel`, `recurrent_kernel` and `bias`."""
        recurrent = self.recurrent_initializer or zeros
        size = head_size(self)
        blocks = (self.num_heads, size, 4 * size)
        specs = input_specs(self, depth, 4 * self.num_units, 4, bias=self._bias)
        if not self.project_inputs:
            del specs["kernel"]
        return specs | {"recurrent_kernel": ParamSpec(blocks, recurrent, 0, blocks=4)}

    def stage_params(self, params: Params) -> Params:
        """Joins both kernels into one; see `AffineCell.stage_params`."""
        # Gather both kernels, because their shardings may be incompatible.
        params = replicated_on_explicit_mesh(params)
        heads = self.num_heads
        size = head_size(self)
        units = self.num_units
        blocks = params["recurrent_kernel"].reshape(heads, size, 4, 1, size)
        diagonal = jnp.eye(heads, dtype=bool)[:, None, None, :, None]
        recurrent = jnp.where(diagonal, blocks, jnp.zeros((), blocks.dtype))
        recurrent = recurrent.reshape(units, 4 * units)
        if self.project_inputs:
            recurrent = jnp.concatenate([params["kernel"], recurrent])
        return {"kernel": recurrent, "bias": params["bias"]}

    def enter(self, state: SLSTMState) -> tuple[Array, SLSTMState]:
        """Returns `h` as the operand and the state as the carry."""
        state = SLSTMState(*state)
        return state.h, state

    def _update(self, params: Params, z: Array, state: SLSTMState) -> StageResult:
        dtype = at_least_float32(z.dtype)
        c, n, m = (leaf.astype(dtype) for leaf in state[1:])
        i, f, z, o = jnp.split(z.astype(dtype), 4, axis=-1)
        old_m = jax.nn.log_sigmoid(f) + m
        new_m = jnp.where(n == 0, i, jnp.maximum(old_m, i))
        # Round m first, because c and n must be scaled by the stored value.
        new_m = new_m.astype(state.m.dtype)
        m = new_m.astype(dtype)
        # Where n is 0, `old_m` may be larger than m, so `exp` could overflow.
        f = jnp.exp(jnp.where(n == 0, jnp.minimum(old_m - m, 0.0), old_m - m))
        i = jnp.exp(i - m)
        c = f * c + i * jnp.tanh(z)
        n = f * n + i
        h = (jax.nn.sigmoid(o) * c / n).astype(state.h.dtype)
        return h, SLSTMState(h, c.astype(state.c.dtype), n.astype(state.n.dtype), new_m)

    def _bias(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        size = head_size(self)
        ramp = jnp.arange(size, dtype=dtype) / max(1, size - 1)
        f = jnp.tile(5 - 12 * ramp**0.3, self.num_heads)
        none = zeros(key, (self.num_units,), dtype)
        return jnp.concatenate([none, f, none, none])
