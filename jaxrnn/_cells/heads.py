"""Cells whose units are divided into heads."""

from typing import Any

from .._base.arguments import as_count
from .hyperparameters import set_common_fields, set_field


def set_head_fields(cell: Any) -> None:
    """Checks and normalizes the fields of a cell with `num_units` and `num_heads`.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `num_heads` is not positive, or does not divide `num_units`.
    """
    set_common_fields(cell)
    name = type(cell).__name__
    heads = as_count(name, "num_heads", cell.num_heads)
    if cell.num_units % heads:
        raise ValueError(
            f"{name}: `num_heads` must divide `num_units`, {cell.num_units}, got "
            f"{heads}. Choose a multiple of {heads} units."
        )
    set_field(cell, num_heads=heads)


def head_size(cell: Any) -> int:
    """The number of units of each head."""
    return cell.num_units // cell.num_heads
