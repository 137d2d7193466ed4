"""Checks of a layer's cells, and the sizes of cells of other libraries."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from .._base.arguments import as_count
from .._base.errors import describe, noting
from .._base.tensor_shape import TensorShape
from .._base.typing import PyTree, Size
from .._cells.base import RNNCell
from .._cells.bound import BoundCell


def check_are_cells(where: str, **cells: Any) -> None:
    """Raises TypeError for what is not an `RNNCell`."""
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
        return " Give `cell.cell`; the module has its own parameters."
    if isinstance(cell, list | tuple):
        return " `MultiRNNCell` makes one of several."
    if isinstance(cell, int):
        return f" LSTMCell({cell}) is one."
    if hasattr(cell, "initialize_carry"):
        return " `as_cell` makes one of a cell of Flax."
    if hasattr(cell, "cell"):
        return " Give the cell itself, without an RNN around it."
    return ""


def check_count(where: str, count: int, cells: Any) -> Any:
    """The cells, if their number is `count`.

    Raises:
        ValueError: If it is not.
    """
    got = len(cells) if isinstance(cells, Sequence) else 1
    if got != count or not isinstance(cells, Sequence):
        raise ValueError(
            f"{where}: there must be as many cells as the module has, {count}, got "
            f"{got}."
        )
    return cells


def params_of_cell(where: str, own: RNNCell, cell: Any) -> Any:
    """The parameters of a bound cell that is equal to `own`, wrappers aside.

    Raises:
        TypeError: If it is not a bound cell.
        ValueError: If it is another cell.
    """
    if not isinstance(cell, BoundCell):
        raise TypeError(
            f"{where}: a cell must come with its parameters, `cell.bind(params)`, got "
            f"{describe(cell)}."
        )
    if not _are_equal(unwrapped(cell.cell), unwrapped(own)):
        raise ValueError(
            f"{where}: a cell must be the module's, {unwrapped(own)!r}, got "
            f"{unwrapped(cell.cell)!r}. Make the module with `cell.cell`, or with "
            "wrappers around it."
        )
    return cell.params


def unwrapped(cell: RNNCell) -> RNNCell:
    """The cell inside wrappers, which add neither parameters nor a scope."""
    while (inner := getattr(cell, "cell", None)) is not None:
        cell = inner
    return cell


def _are_equal(one: Any, other: Any) -> bool:
    """Whether two cells are equal, wrappers around the cells of a stack aside."""
    if not hasattr(one, "cells") or type(one) is not type(other):
        return one == other
    if one.owners != other.owners or one.state_is_tuple != other.state_is_tuple:
        return False
    pairs = zip(one.cells, other.cells, strict=True)
    return all(_are_equal(unwrapped(a), unwrapped(b)) for a, b in pairs)


def sizes_of_cell(
    step: Callable[[tuple[int, ...]], tuple[PyTree, PyTree]], in_features: Any
) -> tuple[Size, Size]:
    """`(state_size, output_size)` of a cell of another library, from an abstract step.

    Args:
        step: `step(shape) -> (carry, output)` for one row of inputs, `[1, ...]`.
        in_features: The size of the inputs or their shape, without the batch axis.

    Raises:
        TypeError: If `in_features` is neither an int nor a tuple of ints.
        ValueError: If one of them is below 1.
    """
    fix = "It is the size of the inputs or their shape, without the batch axis."
    sizes = in_features if isinstance(in_features, tuple) else (in_features,)
    shape = (1, *(as_count("as_cell", "in_features", n, fix=fix) for n in sizes))
    with noting(f"as_cell: in a step of inputs {list(shape)}, as `in_features` says."):
        state, output = jax.eval_shape(lambda: step(shape))
    size = lambda x: TensorShape(x.shape[1:])
    return jax.tree.map(size, state), jax.tree.map(size, output)
