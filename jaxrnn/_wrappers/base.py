"""`WrapperCell`, the base class of wrappers around one cell."""

import dataclasses
from typing import Any

from .._base.errors import describe
from .._base.typing import DType, Key, Params, PyTree, Shaped
from .._cells.base import RNNCell
from .._cells.bound import BoundCell


def check_wrapped(where: str, name: str, cell: Any) -> None:
    """Raises TypeError for an object that is not an `RNNCell`."""
    if isinstance(cell, RNNCell):
        return
    fix = (
        "Pass the unbound cell, and bind the whole."
        if isinstance(cell, BoundCell)
        else "`FunctionCell` makes one of a function."
    )
    raise TypeError(
        f"{where}: `{name}` must be an RNNCell, got {describe(cell)}. {fix}"
    )


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class WrapperCell(RNNCell):
    """A cell around another, with the sizes, parameters and zero states of that one.

    Attributes:
        cell: The wrapped cell.
    """

    cell: RNNCell

    holds_cells = True

    def __post_init__(self) -> None:
        check_wrapped(type(self).__name__, "cell", self.cell)

    wrapped_cell = property(lambda self: self.cell, doc="The wrapped cell.")
    state_size = property(
        lambda self: self.cell.state_size,
        doc="The sizes of the wrapped cell's state, without the batch axis.",
    )
    output_size = property(
        lambda self: self.cell.output_size,
        doc="The sizes of the wrapped cell's output, without the batch axis.",
    )

    @property
    def is_random(self) -> bool | None:
        """Whether the wrapped cell draws random numbers; see `RNNCell.is_random`."""
        return self.cell.is_random

    def zero_state(self, batch_size: int, dtype: DType) -> PyTree:
        """The zero state of the wrapped cell; see `RNNCell.zero_state`."""
        return self.cell.zero_state(batch_size, dtype)

    def start(self, params: Params, state: PyTree) -> PyTree:
        """That of the wrapped cell; see `RNNCell.start`."""
        return self.cell.start(params, state)

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """The parameters of the wrapped cell; see `RNNCell.init`."""
        return self.cell.init(key, inputs, dtype)
