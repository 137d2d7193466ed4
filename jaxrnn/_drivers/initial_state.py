"""The state before the first step of a run, created by the cell."""

from typing import Any

from .._base.inputs import as_state
from .._base.read_only import has_read_only
from .._base.typing import DType, PyTree


def zero_state(cell: Any, batch_size: int, dtype: DType) -> PyTree:
    """Returns the cell's zero state, from `get_initial_state` or `zero_state`."""
    if hasattr(cell, "get_initial_state"):
        state = cell.get_initial_state(inputs=None, batch_size=batch_size, dtype=dtype)
    else:
        state = cell.zero_state(batch_size, dtype)
    return as_state("the cell's zero state", state)


def call_start(cell: Any, state: PyTree) -> PyTree:
    """Calls `cell.start` to prepare a state that has read-only parts."""
    return cell.start(state) if has_read_only(state) else state
