"""What contrib's kinds of LSTM share."""

from .._cells.affine import AffineCell
from .._cells.states import LSTMFamily, LSTMStateTuple


class ContribLSTM(LSTMFamily):
    """A cell whose state is the tuple of c and h, and which no library has.

    Not a dataclass itself: each cell declares its fields in TensorFlow's order.
    """

    num_units: int
    num_proj: int | None = None
    state_is_tuple = True

    @property
    def sizes(self) -> LSTMStateTuple:
        """`num_units`, and `num_proj` if there is a projection."""
        h = self.num_units if self.num_proj is None else self.num_proj
        return LSTMStateTuple(self.num_units, h)

    def why_no_plain_lstm(self) -> str | None:
        """That the class is another; see `AffineCell`."""
        return AffineCell.why_no_plain_lstm(self)
