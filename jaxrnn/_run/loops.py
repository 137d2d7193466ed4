"""The table of the loops that run whole sequences of a kind of cells.

The folder `_loops` fills the table when the package is imported. A kind of cells that
is not in the table is scanned, step by step, with the same results. So a cell imports
no loop, and a loop imports the cells that it runs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from .._base.typing import Params, PyTree
from .run import Choice, Run


class Transition(NamedTuple):
    """Functions of the *map* of a cell: from a state to the state some steps later.

    A map is represented by arrays, such as the factors A and B of `A h + B`, which do
    not depend on the state. Devices that run later steps of a sequence therefore need
    not wait for the state.

    Attributes:
        map_of_steps: `map_of_steps(params, run)`: the map of all steps. In place of
            states, `run` has maps: a map that goes before the steps, and the maps that
            replace it where rows are reset.
        identity: `identity(state)`: the map to the same state, for states like `state`.
        constant: `constant(state)`: the map of all states to `state`.
        map: `map(transition, state)`: the state to which a map maps `state`.
        stored: `stored(like, state)`: the state, cast to the dtypes of `like`.
    """

    map_of_steps: Callable[[Params, Run], PyTree]
    identity: Callable[[PyTree], PyTree]
    constant: Callable[[PyTree], PyTree]
    map: Callable[[PyTree, PyTree], PyTree]
    stored: Callable[[PyTree, PyTree], PyTree]


Choose: TypeAlias = Callable[[Any, Params, Run], Choice]
"""`choose(cell, params, run)`: the loop, or `Choice.scan(reason)`."""


class Loops(NamedTuple):
    """The loops of a kind of cells.

    Attributes:
        choose: Chooses the loop of a run; only types are read.
        transition: `transition(cell)`: how the state after several steps depends on the
            state before them; None if time cannot be divided over devices.
    """

    choose: Choose
    transition: Callable[[Any], Transition | None] = lambda cell: None


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
