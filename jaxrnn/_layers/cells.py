"""The cells of a layer: what they must be, and which belong to it."""

from collections.abc import Sequence
from typing import Any

from .._base.errors import describe
from .._cells.base import RNNCell
from .._cells.bound import BoundCell


def check_cells(where: str, **cells: Any) -> None:
    """Raises TypeError for what is no cell of jaxrnn."""
    for name, cell in cells.items():
        if not isinstance(cell, RNNCell):
            raise TypeError(
                f"{where}: `{name}` must be a cell of jaxrnn, got {describe(cell)}."
                f"{_remedy(cell)}"
            )


def _remedy(cell: Any) -> str:
    if isinstance(cell, type) and issubclass(cell, RNNCell):
        return f" Make one: {cell.__name__}(8)."
    if isinstance(cell, BoundCell):
        return " Give `cell.cell`; the module has parameters of its own."
    if isinstance(cell, list | tuple):
        return " `MultiRNNCell` makes one of several."
    if isinstance(cell, int):
        return f" LSTMCell({cell}) is one."
    if hasattr(cell, "initialize_carry"):
        return " `as_cell` makes one of a cell of Flax."
    if hasattr(cell, "cell"):
        return " Give the cell itself, without an RNN around it."
    return ""


def so_many(where: str, count: int, cells: Any) -> Any:
    """The cells, if there are so many.

    Raises:
        ValueError: If there are not.
    """
    got = len(cells) if isinstance(cells, Sequence) else 1
    if got != count or not isinstance(cells, Sequence):
        raise ValueError(
            f"{where}: there must be as many cells as the module has, {count}, got "
            f"{got}."
        )
    return cells


def params_of(where: str, own: RNNCell, cell: Any) -> Any:
    """The parameters of a bound cell that is the same but for wrappers.

    Raises:
        TypeError: If it is no cell with its parameters.
        ValueError: If it is another cell.
    """
    if not isinstance(cell, BoundCell):
        raise TypeError(
            f"{where}: a cell must come with its parameters, `cell.bind(params)`, got "
            f"{describe(cell)}."
        )
    if not _is_same(core(cell.cell), core(own)):
        raise ValueError(
            f"{where}: a cell must be the module's, {core(own)!r}, got "
            f"{core(cell.cell)!r}. Make the module with `cell.cell`, or with wrappers "
            "around it."
        )
    return cell.params


def core(cell: RNNCell) -> RNNCell:
    """The cell within wrappers, which have no parameters and no part in a name."""
    while (inner := getattr(cell, "cell", None)) is not None:
        cell = inner
    return cell


def _is_same(one: Any, other: Any) -> bool:
    """Whether two cells have the same parameters and do the same, but for wrappers."""
    if not hasattr(one, "cells") or type(one) is not type(other):
        return one == other
    if one.owners != other.owners or one.state_is_tuple != other.state_is_tuple:
        return False
    pairs = zip(one.cells, other.cells, strict=True)
    return all(_is_same(core(a), core(b)) for a, b in pairs)
