"""What every wrapper around one cell has."""

import dataclasses
from typing import Any

from .._base.errors import describe
from .._base.typing import DType, Key, Params, PyTree, Shaped, Size
from .._cells.base import RNNCell
from .._cells.bound import BoundCell


def check_wrapped(where: str, name: str, cell: Any) -> None:
    """Raises TypeError for what is not a cell of hyper-parameters."""
    if isinstance(cell, RNNCell):
        return
    fix = (
        "Wrap the cell first and bind the whole."
        if isinstance(cell, BoundCell)
        else "A function becomes one by `FunctionCell`."
    )
    raise TypeError(
        f"{where}: `{name}` must be an RNNCell, got {describe(cell)}. {fix}"
    )


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class WrapperCell(RNNCell):
    """A cell around another: its sizes, parameters and zero states are the other's.

    Attributes:
        cell: The cell that is wrapped.
    """

    cell: RNNCell

    holds_cells = True

    def __post_init__(self) -> None:
        check_wrapped(type(self).__name__, "cell", self.cell)

    @property
    def wrapped_cell(self) -> RNNCell:
        """The cell that is wrapped."""
        return self.cell

    @property
    def state_size(self) -> Size:
        """That of the wrapped cell."""
        return self.cell.state_size

    @property
    def output_size(self) -> Size:
        """That of the wrapped cell."""
        return self.cell.output_size

    @property
    def is_random(self) -> bool | None:
        """That of the wrapped cell."""
        return self.cell.is_random

    def zero_state(self, batch_size: int, dtype: DType) -> PyTree:
        """That of the wrapped cell; see `RNNCell.zero_state`."""
        return self.cell.zero_state(batch_size, dtype)

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """The parameters of the wrapped cell; see `RNNCell.init`."""
        return self.cell.init(key, inputs, dtype)
