"""Cells whose arguments contrib named as Keras does."""

from typing import Any

from .._cells.hyperparameters import set_common_fields, set_field
from .._cells.states import VectorStateCell


class UnitsCell(VectorStateCell):
    """A cell whose size is `units`; no activation is the identity, as in Keras.

    Not a dataclass itself: each cell declares its fields in TensorFlow's order.
    """

    units: int
    activation: Any
    state_size = output_size = property(lambda self: self.units)

    def __post_init__(self) -> None:
        if self.activation is None:
            set_field(self, activation="linear")
        set_common_fields(self)
