"""A table that maps a class of cells to loops over whole sequences.

The folder `_loops` fills the table when the package is imported, so cells do not import
loops. Cells of other classes are scanned, step by step, with the same results.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from .._base.typing import Params
from .run import Choice, Run

Choose: TypeAlias = Callable[[Any, Params, Run], Choice]
"""`choose(cell, params, run)`: the loop, or `Choice.scan(reason)`."""


class Loops(NamedTuple):
    """The loops of one class of cells.

    Attributes:
        choose: A function that chooses the loop of a run. The function reads only the
            types of arrays.
        divided_time: A `DividedTime` of `_loops/divided_time.py`, which runs sequences
            whose time axis is divided over devices; None if no loop can run them.
    """

    choose: Choose
    divided_time: Any = None


_LOOPS: dict[type, Loops] = {}


def register(kind: type, loops: Loops) -> None:
    """Registers loops for a class, and for subclasses that do not override its step."""
    _LOOPS[kind] = loops


def loops_of(kind: type) -> Loops | None:
    """Returns the loops of a class of cells, or None if a subclass overrides the step.

    A subclass that also overrides `choose_loop` keeps the loops, because its
    `choose_loop` decides which of them can run the new step.
    """
    return inherited_entry(_LOOPS, kind, ("apply", "step"), unless="choose_loop")


def inherited_entry(
    table: dict[type, Any], cls: type, methods: tuple[str, ...], unless: str = ""
) -> Any:
    """Returns the entry of a class in a table, or the entry of its nearest base class.

    Returns None if a class before this base class overrides one of `methods`, unless
    the class also overrides the method `unless`.
    """
    for base in cls.__mro__:
        if base in table:
            return table[base]
        own = vars(base)
        if unless not in own and any(name in own for name in methods):
            return None
    return None


def registered_choice(cell: Any, params: Params, run: Run) -> Choice:
    """Chooses a loop that is registered for the cell's class, or else a scan."""
    loops = loops_of(type(cell))
    if loops is None:
        return Choice.scan(f"{type(cell).__name__} has no loop of its own")
    return loops.choose(cell, params, run)
