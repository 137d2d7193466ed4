"""The table of the loops that run whole sequences of a kind of cells.

The folder `_loops` fills the table when the package is imported. A kind of cells that
is not in the table is scanned, step by step, with the same results. So a cell imports
no loop, and a loop imports the cells that it runs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from .._base.typing import Params
from .run import Choice, Run

Choose: TypeAlias = Callable[[Any, Params, Run], Choice]
"""`choose(cell, params, run)`: the loop, or `Choice.scan(reason)`."""


class Loops(NamedTuple):
    """The loops of a kind of cells.

    Attributes:
        choose: Chooses the loop of a run; only types are read.
        divided_time: Runs sequences whose time axis is divided over devices, a
            `DividedTime` of `_loops/divided_time.py`; None if no loop does.
    """

    choose: Choose
    divided_time: Any = None


_LOOPS: dict[type, Loops] = {}


def register(kind: type, loops: Loops) -> None:
    """Runs the cells of a class in `loops`, and those of subclasses with its step."""
    _LOOPS[kind] = loops


def loops_of(kind: type) -> Loops | None:
    """The loops of a class of cells; None if the class has a step of its own.

    A class that overrides both the step and `choose_loop` vouches for the loop.
    """
    return inherited_entry(_LOOPS, kind, ("apply", "step"), unless="choose_loop")


def inherited_entry(
    table: dict[type, Any], cls: type, methods: tuple[str, ...], unless: str = ""
) -> Any:
    """The entry of a class, or of the first base class that has one.

    None if a class on the way overrides one of `methods`, unless the class also
    overrides the method `unless`.
    """
    for base in cls.__mro__:
        if base in table:
            return table[base]
        own = vars(base)
        if unless not in own and any(name in own for name in methods):
            return None
    return None


def registered_choice(cell: Any, params: Params, run: Run) -> Choice:
    """The choice of the loops of the cell's kind; a scan if there are none."""
    loops = loops_of(type(cell))
    if loops is None:
        return Choice.scan(f"{type(cell).__name__} has no loop of its own")
    return loops.choose(cell, params, run)
