"""The state before the first step of a run, which only the cell can make."""

from typing import Any

from .._base.inputs import as_state
from .._base.read_only import has_read_only
from .._base.typing import DType, PyTree


def zero_state(caller: str, cell: Any, batch_size: int, dtype: DType) -> PyTree:
    """The zero state of `cell`, by whichever method it has."""
    if hasattr(cell, "get_initial_state"):
        state = cell.get_initial_state(inputs=None, batch_size=batch_size, dtype=dtype)
    else:
        state = cell.zero_state(batch_size, dtype)
    return as_state(caller, "the cell's zero state", state)


def call_start(cell: Any, state: PyTree) -> PyTree:
    """The state before the first step, which `cell.start` makes of the given one."""
    return cell.start(state) if has_read_only(state) else state
