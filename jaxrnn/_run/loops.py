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
    """Runs the cells of a class, and of subclasses with its steps, in `loops`."""
    _LOOPS[kind] = loops


def loops_of(kind: type) -> Loops | None:
    """The loops of a class of cells; None if the class has a step of its own.

    A class that overrides both the step and `choose_loop` vouches for the loop.
    """
    found = of_kind(_LOOPS, kind, ("apply", "step"), "choose_loop")
    return found and found[1]


def of_kind(
    table: dict[type, Any], cls: type, steps: tuple[str, ...], vouches: str = ""
) -> tuple[type, Any] | None:
    """The first base class of `cls` in the table whose steps `cls` inherits."""
    for base in cls.__mro__:
        if base in table:
            return base, table[base]
        own = vars(base)
        if vouches not in own and any(name in own for name in steps):
            return None
    return None


def registered_choice(cell: Any, params: Params, run: Run) -> Choice:
    """The choice of the loops of the cell's kind; a scan if there are none."""
    loops = loops_of(type(cell))
    if loops is None:
        return Choice.scan(f"{type(cell).__name__} has no loop of its own")
    return loops.choose(cell, params, run)
