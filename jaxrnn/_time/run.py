"""Whole sequences of a cell at once: what it is given, and whether it may be asked."""

import dataclasses
from collections.abc import Callable
from typing import Any

from .._base.cell_keys import step_key
from .._base.typing import Array, Params, PyTree
from .steps import Steps


class DeclinedError(Exception):
    """Raised by a cell that cannot run these sequences at once, with the reason."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Whole sequences of a cell; the argument of `RNNCell.apply_sequence`.

    Attributes:
        inputs: All steps of inputs, each leaf `[batch, time, ...]`, or
            `[time, batch, ...]` if `steps.axis` is 0.
        state: The initial state, each leaf `[batch, ...]`.
        steps: Which steps there are, and which rows are alive in them.
        keys: `keys(t)` is the random key of step t; None for a deterministic run.
        implementation: What the driver's argument `implementation` names: "xla",
            "native", "cudnn" or None. A cell around others passes it on; cells that
            are not affine decline all but "xla" and None.
    """

    inputs: PyTree
    state: PyTree
    steps: Steps
    keys: Callable[[Array], Any] | None = None
    implementation: str | None = None

    def replace(self, **changes: Any) -> "Run":
        """The same run with other attributes."""
        return dataclasses.replace(self, **changes)

    def of_inner(self, inputs: PyTree, state: PyTree, **changes: Any) -> "Run":
        """The run of a cell inside, whose inputs and initial state these are."""
        run = self.replace(inputs=inputs, state=state, **changes)
        return run.replace(steps=run.steps.with_stand_in(inputs, state))


def apply_cell_sequence(cell: Any, params: Params, run: Run) -> tuple[PyTree, PyTree]:
    """`cell.apply_sequence`, with the keys that `apply_cell` would give the cell.

    Raises:
        DeclinedError: If the cell cannot run these sequences at once, or inherits the
            method from a class that does not know the cell's own `apply`.
    """
    mro = type(cell).__mro__
    first = lambda name: next(i for i, c in enumerate(mro) if name in vars(c))
    known = getattr(mro[first("apply_sequence")], "apply", None)
    is_abstract = getattr(known, "__isabstractmethod__", False)
    if first("apply") < first("apply_sequence") and not is_abstract:
        raise DeclinedError(f"{type(cell).__name__} has a custom `apply`")
    if (keys := run.keys) is not None and not getattr(cell, "holds_cells", False):
        run = run.replace(keys=lambda t: step_key(keys(t)))
    return cell.apply_sequence(params, run)
