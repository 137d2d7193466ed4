"""Core cells under contrib's names, and an LSTM with normalized kernels."""

import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp

from jaxrnn import GRUCell, LSTMCell, ParamSpec, Stage

from .._base.errors import InvalidValue
from .._base.math import widened
from .._base.typing import Array, DType, Initializer, Params
from .._cells.hyperparameters import set_field
from .._cells.states import VectorStateCell
from ._contrib_lstm import ContribLSTM, core_lstm


class _OfLSTMCell(ContribLSTM):
    """A cell that computes the same products and updates as an `LSTMCell`."""

    library_cell: Any
    """The `LSTMCell` whose products and updates this cell uses."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the `LSTMCell`."""
        return self.library_cell.stages

    def elementwise_specs(self) -> dict[str, ParamSpec]:
        """Specs of the peepholes; empty without peepholes."""
        return self.library_cell.elementwise_specs()


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
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
        dtype: The required dtype of parameters and inputs; None for any dtype.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1409.2329; `tf.contrib.rnn.LSTMBlockCell`.
    """

    num_units: int
    forget_bias: float = 1.0
    cell_clip: float | None = None
    use_peephole: bool = False
    dtype: DType | None = None
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = "lstm_cell"

    library_kind = "lstm"

    def __post_init__(self) -> None:
        clip = self.cell_clip
        if isinstance(clip, int | float) and clip <= 0:
            set_field(self, cell_clip=None)
        super().__post_init__()

    @property
    def library_cell(self) -> LSTMCell:
        """The `LSTMCell` that has the same fields as this cell."""
        return core_lstm(self, use_peepholes=self.use_peephole)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class WeightNormLSTMCell(_OfLSTMCell):
    """An `LSTMCell` whose kernel columns have learned norms.

    The cell is an `LSTMCell` with a normalized kernel. The rows that multiply x and the
    rows that multiply h are normalized separately:

        kernel = [norm_0 * kernel_x / |kernel_x|; norm_1 * kernel_h / |kernel_h|]

    Here, `|k| = sqrt(max(sum(k ** 2), 1e-12))` is the norm of each column.
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
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles, and of the scope in checkpoints.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

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

    library_cell = property(core_lstm)

    def param_specs(self, depth: int) -> dict[str, Any]:
        """Specs of all parameters for inputs of size `depth`, in creation order."""
        (c, h), make = self.sizes, self.kernel_initializer
        specs = self.library_cell.param_specs(depth)
        if self.norm:
            specs |= dict.fromkeys(("norm_0", "norm_1"), ParamSpec((4 * c,), make))
            if self.num_proj is not None:
                specs["projection"] |= {"norm_0": ParamSpec((h,), make)}
        return {"wn_lstm_cell": specs}

    def stage_params(self, params: Params) -> Params:
        """Normalizes the kernels; see `AffineCell.stage_params`."""
        params = dict(params["wn_lstm_cell"])
        if not self.norm:
            return params
        kernel, norms = params["kernel"], (params.pop("norm_0"), params.pop("norm_1"))
        parts = jnp.split(kernel, [kernel.shape[0] - self.sizes.h])
        params["kernel"] = jnp.concatenate(list(map(_normalized, parts, norms)))
        if self.num_proj is not None:
            projection = params["projection"]
            kernel = _normalized(projection["kernel"], projection["norm_0"])
            params["projection"] = {"kernel": kernel}
        return params


def _normalized(kernel: Array, norm: Array) -> Array:
    """Scales each column of `kernel` to its norm in `norm`."""
    wide = widened(kernel)
    squares = jnp.sum(wide * wide, axis=0, keepdims=True)
    normal = wide * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))
    return normal.astype(kernel.dtype) * norm[None, :]


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class GRUBlockCellV2(VectorStateCell):
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
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If both or neither of `num_units` and `cell_size` are given, if the
            given number is negative, or if `dtype` is not floating-point.

    Source: arXiv:1406.1078; `tf.contrib.rnn.GRUBlockCellV2`.
    """

    num_units: int = None  # pyright: ignore[reportAssignmentType]
    cell_size: int | None = None
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = "gru_cell"
    dtype: DType | None = None

    library_kind = "gru"

    def __post_init__(self) -> None:
        if (self.num_units is None) == (self.cell_size is None):
            raise InvalidValue(
                "GRUBlockCellV2: exactly one of `num_units` and its old name "
                f"`cell_size` must be given, got {self.num_units} and {self.cell_size}."
            )
        if self.num_units is None:
            set_field(self, num_units=self.cell_size, cell_size=None)
        super().__post_init__()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stage of the gates, then the stage of the candidate."""
        return GRUCell(self.num_units).stages
