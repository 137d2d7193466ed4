"""Core cells under contrib's names, and an LSTM with normalized kernels."""

from typing import Any, final

import jax
import jax.numpy as jnp

from jaxrnn import AffineCell, GRUCell, LSTMCell, ParamSpec, Stage, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, DType, Initializer, Params, Specs

from ._contrib_lstm import NO_PROJECTION, ContribLSTM, core_lstm


class _OfLSTMCell(ContribLSTM):
    """A cell that computes the same matrix products and updates as an `LSTMCell`."""

    library_cell: Any
    """The `LSTMCell` whose matrix products and updates this cell uses."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the `LSTMCell`."""
        return self.library_cell.stages

    def elementwise_specs(self) -> Specs:
        """Specs of the peepholes; empty without peepholes."""
        return self.library_cell.elementwise_specs()


@final
@fields.dataclass
class LSTMBlockCell(_OfLSTMCell):
    """An LSTM that TensorFlow implements as one operation.

    The cell has the same equations, shapes and parameters as an `LSTMCell` without a
    projection:

        i, j, f, o = split([x, h] kernel + bias)
        c' = sigmoid(f + forget_bias + w_f_diag c) * c
             + sigmoid(i + w_i_diag c) * tanh(j)
        c' = clip(c', -cell_clip, cell_clip)
        h' = sigmoid(o + w_o_diag c') * tanh(c')

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; c, h and output
    `[batch, H]`; `kernel` `[I + H, 4H]`, blocks i, j, f, o; `bias` `[4H]`; `w_i_diag`,
    `w_f_diag`, `w_o_diag` `[H]`.

    Attributes:
        num_units: `H`, at least 0.
        forget_bias: Added to f at each step; not stored in the bias.
        cell_clip: The bound on the magnitude of c'; None, 0 or a negative number for
            no bound. Gradients take the clip into account, unlike in TensorFlow.
        use_peephole: Whether the gates read c through three diagonal kernels.
        name: The name of the step in profiles.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, or `dtype` is not
            floating-point.

    Source: arXiv:1409.2329; `tf.contrib.rnn.LSTMBlockCell`.
    """

    num_units: int = fields.size()
    forget_bias: float = fields.number(1.0)
    cell_clip: float | None = fields.number(None)
    use_peephole: bool = fields.flag(False)
    dtype: DType | None = fields.dtype()
    reuse: object = fields.unused()
    name: str | None = fields.name("lstm_cell")

    library_kind = "lstm"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cell_clip is not None and self.cell_clip <= 0:
            object.__setattr__(self, "cell_clip", None)

    @property
    def library_cell(self) -> LSTMCell:
        """The `LSTMCell` with the same equations as this cell."""
        return core_lstm(self, use_peepholes=self.use_peephole)


@fields.dataclass
class WeightNormLSTMCell(_OfLSTMCell):
    """An `LSTMCell` whose kernel columns have learned norms.

    The cell is an `LSTMCell` with a normalized kernel. The rows that multiply x and the
    rows that multiply h are normalized separately:

        kernel = [norm_0 * kernel_x / |kernel_x|; norm_1 * kernel_h / |kernel_h|]

    Here, `|k| = sqrt(max(sum(k ** 2), 1e-12))` holds the norm of each column of k.
    `projection/kernel` is normalized in the same way, with its own `norm_0`. The
    kernels are normalized once per run.

    Shapes, for input size `I`, `H = num_units` and `P = num_proj` or `H`: inputs
    `[batch, I]`; c `[batch, H]`; h and output `[batch, P]`. Under `wn_lstm_cell`:
    `kernel` `[I + P, 4H]`, blocks i, j, f, o; `norm_0`, `norm_1` and `bias` `[4H]`;
    `w_f_diag`, `w_i_diag`, `w_o_diag` `[H]`; `projection/kernel` `[H, P]` and
    `projection/norm_0` `[P]`.

    Attributes:
        num_units: `H`, at least 0.
        norm: Whether to normalize the kernels; False for a plain `LSTMCell`.
        use_peepholes: Whether the gates read c through three diagonal kernels.
        cell_clip: The bound on the magnitude of c', at least 0; None for no bound.
        initializer: For kernels, norms and peepholes; None for Glorot uniform.
        num_proj: The size of the projected output, positive; None for no projection.
        proj_clip: The bound on the magnitude of h' after a projection, at least 0; None
            for no bound.
        forget_bias: Added to f at each step; not stored in the bias.
        activation: None for tanh, the name of a Keras activation, or a function.
        name: The name of the step in profiles, and of the scope in checkpoints.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1602.07868; `tf.contrib.rnn.WeightNormLSTMCell`.
    """

    num_units: int = fields.size()
    norm: bool = fields.flag(True)
    use_peepholes: bool = fields.flag(False)
    cell_clip: float | None = fields.number(None, low=0)
    initializer: Initializer | None = fields.initializer()
    num_proj: int | None = fields.count(default=None, fix=NO_PROJECTION)
    proj_clip: float | None = fields.number(None, low=0)
    forget_bias: float = fields.number(1.0)
    activation: fields.ActivationLike = fields.activation()
    reuse: object = fields.unused()
    name: str | None = fields.name("wn_lstm_cell")
    dtype: DType | None = fields.dtype()

    library_cell = property(core_lstm)

    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters for inputs of size `depth`, in creation order."""
        specs = self.library_cell.param_specs(depth)
        if self.norm:
            norm = ParamSpec((4 * self.num_units,), self.kernel_initializer)
            specs |= {"norm_0": norm, "norm_1": norm}
            if self.num_proj is not None:
                norm = ParamSpec((self.num_proj,), self.kernel_initializer)
                specs["projection"] |= {"norm_0": norm}
        return {"wn_lstm_cell": specs}

    def stage_params(self, params: Params) -> Params:
        """Normalizes the kernels; see `AffineCell.stage_params`."""
        params = dict(params["wn_lstm_cell"])
        if not self.norm:
            return params
        kernel = params["kernel"]
        from_x, from_h = jnp.split(kernel, [kernel.shape[0] - self.output_size])
        from_x = _normalized(from_x, params.pop("norm_0"))
        from_h = _normalized(from_h, params.pop("norm_1"))
        params["kernel"] = jnp.concatenate([from_x, from_h])
        if self.num_proj is not None:
            projection = params["projection"]
            kernel = _normalized(projection["kernel"], projection["norm_0"])
            params["projection"] = {"kernel": kernel}
        return params


def _normalized(kernel: Array, norm: Array) -> Array:
    """Scales each column of `kernel` to its norm in `norm`."""
    wide = kernel.astype(extend.at_least_float32(kernel.dtype))
    squares = jnp.sum(wide * wide, axis=0, keepdims=True)
    normal = wide * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))
    return normal.astype(kernel.dtype) * norm[None, :]


@final
@fields.dataclass
class GRUBlockCellV2(AffineCell):
    """A gated recurrent unit (GRU) that TensorFlow implements as one operation.

    The cell has the same equations, shapes and parameters as a `GRUCell`:

        r, u = split(sigmoid([x, h] gates/kernel + gates/bias))
        c    = tanh([x, r * h] candidate/kernel + candidate/bias)
        h'   = u * h + (1 - u) * c

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `gates/kernel` `[I + H, 2H]`, `gates/bias` `[2H]`, blocks r, u;
    `candidate/kernel` `[I + H, H]`, `candidate/bias` `[H]`.

    Attributes:
        num_units: `H`, at least 0.
        cell_size: The old name of `num_units`; None after construction.
        name: The name of the step in profiles.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If both or neither of `num_units` and `cell_size` are given, if the
            given number is negative, or if `dtype` is not floating-point.

    Source: arXiv:1406.1078; `tf.contrib.rnn.GRUBlockCellV2`.
    """

    num_units: int = fields.size(default=None)
    cell_size: int | None = fields.size(default=None)
    reuse: object = fields.unused()
    name: str | None = fields.name("gru_cell")
    dtype: DType | None = fields.dtype()

    library_kind = "gru"

    state_size = output_size = property(lambda self: self.num_units)

    def __post_init__(self) -> None:
        super().__post_init__()
        is_one = (self.num_units is None) != (self.cell_size is None)
        must = "be given"
        if self.num_units is not None:
            must = "be omitted if `cell_size` (the old name) is given"
        extend.expect(is_one, "num_units", must, self.num_units)
        if self.num_units is None:
            object.__setattr__(self, "num_units", self.cell_size)
            object.__setattr__(self, "cell_size", None)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stage of the gates, then the stage of the candidate."""
        return GRUCell(self.num_units).stages
