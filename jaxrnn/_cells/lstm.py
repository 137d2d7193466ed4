"""The LSTM cell with peepholes, clips and a projection."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from .._base.arguments import as_count
from .._base.math import clip_symmetric
from .._base.typing import Array, DType, Initializer, Params
from .affine import Stage, Updated
from .hyperparameters import check_fields, check_number, optional
from .initializers import ParamSpec, bias_initializer, glorot_uniform, zeros
from .states import LSTMFamily, LSTMStateTuple, add_peephole


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LSTMCell(LSTMFamily):
    """A long short-term memory (LSTM) with optional peepholes, clips and projection.

        i, j, f, o = split([x, h] kernel + bias)
        c' = sigmoid(f + forget_bias + w_f_diag c) * c
             + sigmoid(i + w_i_diag c) * activation(j)
        c' = clip(c', -cell_clip, cell_clip)
        m  = sigmoid(o + w_o_diag c') * activation(c')
        h' = clip(m projection/kernel, -proj_clip, proj_clip)

    Shapes, for input size `I`, `H = num_units` and `P = num_proj` or `H`: inputs
    `[batch, I]`; c `[batch, H]`; h and output `[batch, P]`; `kernel` `[I + P, 4H]`,
    blocks i, j, f, o; `bias` `[4H]`; `w_f_diag`, `w_i_diag`, `w_o_diag` `[H]`;
    `projection/kernel` `[H, P]`. c may be float32 while h and the parameters are
    16-bit; in that case, pass an `initial_state` with these dtypes.

    Attributes:
        num_units: `H`, at least 0.
        use_peepholes: Whether the gates read c through three diagonal kernels.
        cell_clip: The bound on the magnitude of c', at least 0; None for no bound.
        initializer: For kernels and peepholes; None for Glorot uniform. The bias is
            initialized to zeros unless `initializer` is an `initializers.by_part` with
            a `bias`.
        num_proj: `P`; None for no projection.
        proj_clip: The bound on the magnitude of h' after a projection, at least 0; None
            for no bound.
        num_unit_shards: Accepted for compatibility with TensorFlow; not used.
        num_proj_shards: Accepted for compatibility with TensorFlow; not used.
        forget_bias: Added to f at each step; not stored in the bias.
        state_is_tuple: False for a state `[batch, H + P]` that holds `[c, h]`.
        activation: None for tanh, the name of a Keras activation, or a function.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: Sak, Senior and Beaufays, Interspeech 2014;
    `tf.compat.v1.nn.rnn_cell.LSTMCell`.
    """

    num_units: int
    use_peepholes: bool = False
    cell_clip: float | None = None
    initializer: Initializer | None = None
    num_proj: int | None = None
    proj_clip: float | None = None
    num_unit_shards: Any = dataclasses.field(default=None, compare=False)
    num_proj_shards: Any = dataclasses.field(default=None, compare=False)
    forget_bias: float = 1.0
    state_is_tuple: bool = True
    activation: Any = None
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = None
    dtype: DType | None = None

    library_kind = "lstm"

    def __post_init__(self) -> None:
        super().__post_init__()
        clip, count = optional(_as_clip), optional(as_count)
        check_fields(self, cell_clip=clip, proj_clip=clip, num_proj=count)

    @property
    def sizes(self) -> LSTMStateTuple:
        """The sizes: `num_units` for c; `num_proj` (if given) or `num_units` for h."""
        h = self.num_units if self.num_proj is None else self.num_proj
        return LSTMStateTuple(self.num_units, h)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages: one product for all four blocks, then any projection."""
        (c, h), kernel = self.sizes, self.initializer or glorot_uniform
        bias = bias_initializer(kernel, zeros)
        gates = Stage(self._gates, h, 4 * c, kernel, bias, blocks=4)
        if self.num_proj is None:
            return (gates,)
        return gates, Stage(self._project, c, h, kernel, None, "projection", False, 1)

    def elementwise_specs(self) -> dict[str, ParamSpec]:
        """Specs of the peepholes; empty without peepholes."""
        if not self.use_peepholes:
            return {}
        spec = ParamSpec((self.num_units,), self.initializer or glorot_uniform)
        return dict.fromkeys(("w_f_diag", "w_i_diag", "w_o_diag"), spec)

    def _gates(self, params: Params, z: Array, state: LSTMStateTuple) -> Updated:
        c = state.c
        i, j, f, o = jnp.split(z, 4, axis=-1)
        f = add_peephole(params, "w_f_diag", f + self.forget_bias, c)
        i = add_peephole(params, "w_i_diag", i, c)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * self.activation(j)
        c = clip_symmetric(c, self.cell_clip)
        # The output gate reads the new c after clipping.
        o = add_peephole(params, "w_o_diag", o, c)
        m = (jax.nn.sigmoid(o) * self.activation(c)).astype(state.h.dtype)
        if self.num_proj is None:
            return self.leave(c, m)
        return m, LSTMStateTuple(c, state.h)

    def _project(self, params: Params, z: Array, carry: LSTMStateTuple) -> Updated:
        z = clip_symmetric(z, self.proj_clip)
        return self.leave(carry.c, z.astype(carry.h.dtype))


def _as_clip(name: str, value: Any) -> float:
    bound = float(value) if isinstance(value, bool) else value  # As in TensorFlow.
    return check_number(name, bound, low=0)
