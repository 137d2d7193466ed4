"""Cells whose state is one vector, which is also their output."""

from .._base.typing import Array, Size
from .affine import AffineCell


class VectorStateCell(AffineCell):
    """A cell whose state and output are one array `[batch, num_units]`.

    Not a dataclass itself: each cell declares its fields in TensorFlow's order.
    """

    num_units: int

    @property
    def state_size(self) -> Size:
        """`num_units`."""
        return self.num_units

    @property
    def output_size(self) -> Size:
        """`num_units`."""
        return self.num_units

    def enter(self, state: Array) -> tuple[Array, Array]:
        """The state, as the operand of the product and as the carry."""
        return state, state
