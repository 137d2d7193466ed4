"""The choice of the loop that runs a cell over whole sequences.

A choice is made once for a run, before a loop is traced: by `choose`, which asks the
cell's `choose_loop`. Any cell can be scanned step by step.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any, TypeAlias

import jax

from .._base.arguments import check_instance
from .._base.expect import expect
from .._base.trees import has_read_only
from .._base.typing import Params, PyTree
from .steps import Run

_log = logging.getLogger("jaxrnn")

IMPLEMENTATIONS = "xla", "native", "cudnn"

Loop: TypeAlias = Callable[[Params, Run], tuple[PyTree, PyTree]]
"""`loop(params, run) -> (outputs, state)` of all steps."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """The loop that runs a cell over whole sequences, and why no faster loop does.

    Attributes:
        name: "native", "cudnn" or "xla" for an affine cell; "blocks" for a linear
            recurrence; "chunks" for a matrix memory; "own" for a cell with its own
            `apply_sequence`; "scan" for a scan of `apply`. The names of the cells in a
            stack are joined by "and".
        loop: `loop(params, run) -> (outputs, state)`; None for a scan.
        reason: Why no faster loop runs; empty if none is faster.
    """

    name: str
    loop: Loop | None = None
    reason: str = ""

    @classmethod
    def scan(cls, reason: str) -> "Choice":
        """The choice of a scan of `apply`, because of `reason`."""
        return cls("scan", reason=reason)

    def within(self, run: Callable[[Loop, Params, Run], PyTree]) -> "Choice":
        """The choice of a wrapper that calls `run(loop, params, run)` with this loop.

        If the wrapped cell is scanned, the wrapper is scanned too.
        """
        if self.loop is None:
            return self
        return dataclasses.replace(self, loop=functools.partial(run, self.loop))


def as_implementation(implementation: str | None) -> str | None:
    """Checks and returns the user's argument `implementation`: None or a known name.

    Raises:
        ValueError: If no implementation has this name.
        TypeError: If the argument is neither None nor a string.
    """
    known = (None, *IMPLEMENTATIONS)
    what = f"None or one of {', '.join(IMPLEMENTATIONS)}"
    check_instance("implementation", implementation, str | None, what)
    expect(implementation in known, "implementation", f"be {what}", implementation)
    return implementation


def choose(cell: Any, state: PyTree, run: Run) -> Choice:
    """Chooses the loop that runs a bound cell.

    Args:
        cell: The cell.
        state: The initial state, with its read-only parts.
        run: The sequences; only types are read.

    Raises:
        ValueError: If "native" or "cudnn" is requested, but cannot run the cell.
    """
    choice = _choose(cell, state, run)
    name = type(getattr(cell, "cell", cell)).__name__
    if choice.loop is None:
        _log.debug("the cell is run step by step, because %s", choice.reason)
    else:
        because = f", because {choice.reason}" if choice.reason else ""
        _log.debug("%s runs in the loop %r%s", name, choice.name, because)
    return choice


def _choose(cell: Any, state: PyTree, run: Run) -> Choice:
    sizes = jax.tree.leaves(run.inputs)[0].shape[:2]
    if any(isinstance(size, int) and not size for size in sizes):
        return Choice.scan("there are no rows or no steps")
    if not hasattr(cell, "choose_loop"):
        choice = Choice.scan("the cell has no `apply_sequence`")
    elif run.steps.rows_interact:
        choice = Choice.scan("the rows of the cell interact")
    elif has_read_only(state):
        choice = Choice.scan("the state of the cell has read-only parts")
    else:
        choice = cell.choose_loop(run)
    check_is_possible(choice, run)
    return choice


def check_is_possible(choice: Choice, run: Run) -> None:
    """Raises ValueError if the requested implementation cannot run the cell."""
    if choice.loop is None and run.implementation not in (None, "xla"):
        raise ValueError(
            f"`implementation` {run.implementation!r} cannot run this cell on these "
            f"sequences: {choice.reason}. Omit `implementation` to use XLA's loop."
        )


def choose_many_steps(name: str, cell: Any, run: Run) -> Choice:
    """The choice of a cell whose `apply_sequence` runs many steps at once."""
    if run.implementation not in (None, "xla"):
        return Choice.scan(f"{type(cell).__name__} is not an `AffineCell`")
    if not isinstance(run.steps.time, int):
        return Choice.scan("the number of steps is symbolic")
    return Choice(name, cell.apply_sequence)
