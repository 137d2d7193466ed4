"""The LSTM with normalized kernels."""

import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp

from .._base.math import widened
from .._base.typing import Array, DType, Initializer, Params
from .._cells.affine import Stage
from .._cells.initializers import ParamSpec, glorot_uniform
from .._cells.lstm import LSTMCell
from ._contrib_lstm import ContribLSTM

_EPSILON = 1e-12


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class WeightNormLSTMCell(ContribLSTM):
    """An `LSTMCell` whose kernels have columns of a learned norm.

    The kernel is that of an `LSTMCell`, after the rows that multiply x and those that
    multiply h were normalized apart:

        kernel = [norm_0 * kernel_x / |kernel_x|; norm_1 * kernel_h / |kernel_h|]

    with the norm of each column, `|k| = sqrt(max(sum(k ** 2), 1e-12))`; likewise
    `projection/kernel` with its own `norm_0`. This is computed once a run.

    Shapes, for input size `I`, `H = num_units` and `P = num_proj` or `H`: inputs
    `[batch, I]`; c `[batch, H]`; h and output `[batch, P]`. Below `wn_lstm_cell`:
    `kernel` `[I + P, 4H]`, blocks i, j, f, o; `norm_0`, `norm_1` and `bias` `[4H]`;
    `w_f_diag`, `w_i_diag`, `w_o_diag` `[H]`; `projection/kernel` `[H, P]` and
    `projection/norm_0` `[P]`.

    Attributes:
        num_units: `H`.
        norm: False for an `LSTMCell` with its kernels as they are.
        use_peepholes: Whether the gates read c through the three diagonals.
        cell_clip: The bound on c', or None.
        initializer: For kernels, norms and diagonals; None for Glorot uniform.
        num_proj: `P`, or None for no projection.
        proj_clip: The bound on h' after a projection, or None.
        forget_bias: Added to f at each step; not part of the stored bias.
        activation: None for tanh, the name of a Keras activation, or a function.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles, and of the scope in checkpoints.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `num_units` or a clip is negative, `num_proj` not positive, the
            activation not known, or `dtype` not floating.

    Source: arXiv:1602.07868; `tf.contrib.rnn.WeightNormLSTMCell`.
    """

    num_units: int
    norm: bool = True
    use_peepholes: bool = False
    cell_clip: float | None = None
    initializer: Initializer | None = None
    num_proj: int | None = None
    proj_clip: float | None = None
    forget_bias: float = 1.0
    activation: Any = None
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = "wn_lstm_cell"
    dtype: DType | None = None

    @property
    def _lstm(self) -> LSTMCell:
        """The cell that the normalized kernels are given to."""
        return LSTMCell(
            self.num_units,
            self.use_peepholes,
            self.cell_clip,
            self.initializer,
            self.num_proj,
            self.proj_clip,
            forget_bias=self.forget_bias,
            activation=self.activation,
        )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Those of the `LSTMCell`."""
        return self._lstm.stages

    def elementwise_specs(self) -> dict[str, ParamSpec]:
        """The peepholes, if any."""
        return self._lstm.elementwise_specs()

    def param_specs(self, depth: int) -> dict[str, Any]:
        """All parameters for inputs of size `depth`, in the order of their creation."""
        c, h = self.sizes
        make = self.initializer or glorot_uniform
        specs = self._lstm.param_specs(depth)
        if self.norm:
            specs |= dict.fromkeys(("norm_0", "norm_1"), ParamSpec((4 * c,), make))
            if self.num_proj is not None:
                specs["projection"] |= {"norm_0": ParamSpec((h,), make)}
        return {"wn_lstm_cell": specs}

    def stage_params(self, params: Params) -> Params:
        """The kernels, normalized; see `AffineCell.stage_params`."""
        (params,) = params.values()
        if not self.norm:
            return params
        kernel, h = params["kernel"], self.sizes.h
        parts = jnp.split(kernel, [kernel.shape[0] - h])
        norms = (params["norm_0"], params["norm_1"])
        staged = {k: v for k, v in params.items() if not k.startswith("norm_")}
        staged["kernel"] = jnp.concatenate(list(map(_normalized, parts, norms)))
        if self.num_proj is not None:
            projection = params["projection"]
            kernel = _normalized(projection["kernel"], projection["norm_0"])
            staged["projection"] = {"kernel": kernel}
        return staged


def _normalized(kernel: Array, norm: Array) -> Array:
    """`kernel` with columns of the norms `norm`."""
    wide = widened(kernel)
    squares = jnp.sum(wide * wide, axis=0, keepdims=True)
    normal = wide * jax.lax.rsqrt(jnp.maximum(squares, _EPSILON))
    return normal.astype(kernel.dtype) * norm[None, :]
