"""The initial state of a driver, and the dtype of its outputs."""

from typing import Any

from .._base.arguments import as_dtype
from .._base.errors import describe
from .._base.inputs import as_state
from .._base.trees import named_leaves
from .._base.typing import DType, PyTree


def output_dtype(where: str, initial_state: PyTree, dtype: DType | None) -> DType:
    """The dtype of the outputs: `dtype`, or that of the initial state if it is None.

    Raises:
        ValueError: If both are None, or the leaves of the state have several dtypes.
        TypeError: If `dtype` does not name a dtype.
    """
    if dtype is not None:
        return as_dtype(where, dtype)
    if initial_state is None:
        raise ValueError(
            f"{where}: dtype must be specified if there is no `initial_state`. Pass "
            "`dtype=jnp.float32` for a zero state of that dtype."
        )
    named = list(named_leaves("initial_state", initial_state))
    if len({leaf.dtype for _, leaf in named}) != 1:
        found = ", ".join(f"`{name}` {describe(leaf)}" for name, leaf in named)
        raise ValueError(
            f"{where}: dtype must be specified if the leaves of `initial_state` do not "
            f"share one, got {found or 'no leaves'}. Pass that of the outputs."
        )
    return named[0][1].dtype


def zero_state(where: str, cell: Any, batch_size: int, dtype: DType) -> PyTree:
    """The zero state of `cell`, by whichever method it has."""
    if hasattr(cell, "get_initial_state"):
        state = cell.get_initial_state(inputs=None, batch_size=batch_size, dtype=dtype)
    else:
        state = cell.zero_state(batch_size, dtype)
    return as_state(where, "the cell's zero state", state)


def check_states_of_both(
    where: str, fw: PyTree, bw: PyTree, dtype: DType | None
) -> None:
    """Raises ValueError if a zero state is needed and its dtype is not given."""
    missing = [n for n, s in (("fw", fw), ("bw", bw)) if s is None]
    if missing and dtype is None:
        names = " and ".join(f"`initial_state_{name}`" for name in missing)
        raise ValueError(
            f"{where}: dtype must be specified if there is no {names}. Pass "
            "`dtype=jnp.float32` for zero states of that dtype."
        )
