"""The cells that were single operations: an LSTM and a GRU."""

import dataclasses
from typing import Any, final

from .._base.typing import DType
from .._cells.affine import Stage
from .._cells.gru import GRUCell
from .._cells.hyperparameters import set_field
from .._cells.initializers import ParamSpec
from .._cells.lstm import LSTMCell
from .._cells.states import VectorStateCell
from ._contrib_lstm import ContribLSTM


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LSTMBlockCell(ContribLSTM):
    """The long short-term memory that was one operation of TensorFlow's.

    The equations, shapes and parameters of `LSTMCell` without a projection:

        i, j, f, o = split([x, h] kernel + bias)
        c' = sigmoid(f + forget_bias + w_f_diag c) * c
             + sigmoid(i + w_i_diag c) * tanh(j)
        c' = clip(c', -cell_clip, cell_clip)
        h' = sigmoid(o + w_o_diag c') * tanh(c')

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; c, h and output
    `[batch, H]`; `kernel` `[I + H, 4H]`, blocks i, j, f, o; `bias` `[4H]`; `w_i_diag`,
    `w_f_diag`, `w_o_diag` `[H]`.

    Attributes:
        num_units: `H`.
        forget_bias: Added to f at each step; not part of the stored bias.
        cell_clip: The bound on c'; None, 0 or a negative number for none. Gradients are
            those of the clip, which TensorFlow's operation leaves out.
        use_peephole: Whether the gates read c through the three diagonals.
        dtype: The required dtype of parameters and inputs; None for any.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `num_units` is negative, or `dtype` not floating.

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
    def _lstm(self) -> LSTMCell:
        clip, peepholes = self.cell_clip, self.use_peephole
        bias = self.forget_bias
        return LSTMCell(self.num_units, peepholes, clip, forget_bias=bias)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One product for the four blocks."""
        return self._lstm.stages

    def elementwise_specs(self) -> dict[str, ParamSpec]:
        """The peepholes, if any."""
        return self._lstm.elementwise_specs()

    def why_not_plain(self) -> str | None:
        """What it has beyond the LSTM of libraries, or None; see `AffineCell`."""
        return self._lstm.why_not_plain()


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class GRUBlockCellV2(VectorStateCell):
    """The gated recurrent unit that was one operation of TensorFlow's.

    The equations, shapes and parameters of `GRUCell`:

        r, u = split(sigmoid([x, h] gates/kernel + gates/bias))
        c    = tanh([x, r * h] candidate/kernel + candidate/bias)
        h'   = u * h + (1 - u) * c

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `gates/kernel` `[I + H, 2H]`, `gates/bias` `[2H]`, blocks r, u;
    `candidate/kernel` `[I + H, H]`, `candidate/bias` `[H]`.

    Attributes:
        num_units: `H`.
        cell_size: The old name of `num_units`; None afterwards.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If not exactly one of `num_units` and `cell_size` is given, it is
            negative, or `dtype` is not floating.

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
            raise ValueError(
                "GRUBlockCellV2: exactly one of `num_units` and its old name "
                f"`cell_size` must be given, got {self.num_units} and {self.cell_size}."
            )
        if self.num_units is None:
            set_field(self, num_units=self.cell_size, cell_size=None)
        super().__post_init__()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The gates; then the candidate, from the reset state."""
        return GRUCell(self.num_units).stages
