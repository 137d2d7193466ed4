"""The kinds of layers, such as LSTM, with the cell and the arrays of each kind."""

import enum
from typing import Any, TypeAlias

from .._cells.basic_rnn import BasicRNNCell
from .._cells.gru import CudnnCompatibleGRUCell, GRUCell
from .._cells.lstm import BasicLSTMCell, LSTMCell
from ._gates import GatedCudnnGRUCell, GatedGRUCell, GatedLSTMCell

Place: TypeAlias = tuple[str, str]
"""What an array holds, such as `("x", "ifjo")`: a part, and its gates in order.

The parts, with the shapes of their arrays:

- "x": the kernel of the inputs, `[depth, gates * units]`.
- "h": the kernel of the state, `[output_size, gates * units]`.
- "xh": both kernels, `[depth + output_size, gates * units]`.
- "b": the bias, or the bias of the product with "x", `[gates * units]`.
- "s": the bias of the product with "h", `[gates * units]`.
- "p": the peephole weights, `[gates * units]`.
- "w": the kernel of the projection, `[units, output_size]`, without gates.

An upper-case gate stands for the gate's negative weights. They give one minus the gate,
because 1 - sigmoid(z) = sigmoid(-z).
"""
Table: TypeAlias = dict[Any, Place]
"""Maps the name of each array to its place."""


class Kind(enum.StrEnum):
    """The kind of a layer, and its name in messages."""

    RNN = "RNN"
    GRU = "GRU"
    GRU_AFTER = "GRU that resets after the product"
    LSTM = "LSTM"

    @property
    def family(self) -> str:
        """RNN, GRU or LSTM."""
        return "GRU" if self is Kind.GRU_AFTER else str(self)


CELLS = {
    Kind.RNN: BasicRNNCell,
    Kind.GRU: GRUCell,
    Kind.GRU_AFTER: CudnnCompatibleGRUCell,
    Kind.LSTM: LSTMCell,
}
# The cells whose gates may use another activation than the sigmoid.
GATED_CELLS = {
    Kind.GRU: GatedGRUCell,
    Kind.GRU_AFTER: GatedCudnnGRUCell,
    Kind.LSTM: GatedLSTMCell,
}
KINDS = {cell: kind for kind, cell in CELLS.items()} | {BasicLSTMCell: Kind.LSTM}
KINDS |= {cell: kind for kind, cell in GATED_CELLS.items()}
# The gates in TensorFlow's order, which every `LayerWeights` uses.
GATES = {Kind.RNN: "c", Kind.GRU: "ruc", Kind.GRU_AFTER: "ruc", Kind.LSTM: "ijfo"}
_GATES = {"gates/kernel": ("xh", "ru"), "gates/bias": ("b", "ru")}
CELL_TABLES: dict[Kind, Table] = {
    Kind.RNN: {"kernel": ("xh", "c"), "bias": ("b", "c")},
    Kind.GRU: _GATES | {"candidate/kernel": ("xh", "c"), "candidate/bias": ("b", "c")},
    Kind.GRU_AFTER: _GATES
    | {
        "candidate/input_projection/kernel": ("x", "c"),
        "candidate/input_projection/bias": ("b", "c"),
        "candidate/hidden_projection/kernel": ("h", "c"),
        "candidate/hidden_projection/bias": ("s", "c"),
    },
    Kind.LSTM: {
        "kernel": ("xh", "ijfo"),
        "bias": ("b", "ijfo"),
        "w_i_diag": ("p", "i"),
        "w_f_diag": ("p", "f"),
        "w_o_diag": ("p", "o"),
        "projection/kernel": ("w", ""),
    },
}
