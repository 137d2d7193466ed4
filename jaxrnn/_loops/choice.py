"""The choice of the loop that runs a cell over whole sequences.

A choice is made once for a run, before a loop is traced: by `choose`, which asks the
cell's `choose_loop`. An affine cell (a subclass of `AffineCell`) has several loops, of
which `choose_affine` chooses one. Any cell can be scanned step by step.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
from jax.sharding import AxisType

from .._base.arguments import check_instance
from .._base.expect import expect
from .._base.sharding import meshes_of, platform_of
from .._base.trees import has_read_only
from .._base.typing import Params, PyTree
from .cudnn import cudnn_sequence, why_not_cudnn
from .native.sequence import native_sequence, why_not_native
from .steps import Run
from .xla_loop import AffineCellLike, affine_sequence

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


def choose_affine(cell: AffineCellLike, params: Params, run: Run) -> Choice:
    """Chooses the loop of an affine cell.

    By default, the native loops run all supported cells on a single CPU device, and in
    `shard_map` over CPU devices.
    """
    asked = run.implementation
    if asked is None:
        reason = _why_not_local(params, run) or why_not_native(cell, params, run)
        if reason:
            return Choice("xla", functools.partial(affine_sequence, cell), reason)
        loop = functools.partial(native_sequence, cell, is_default=True)
        return Choice("native", loop)
    if asked == "xla":
        reason = "`implementation` is 'xla'"
        return Choice("xla", functools.partial(affine_sequence, cell), reason)
    if asked == "native":
        reason = why_not_native(cell, params, run)
        loop = functools.partial(native_sequence, cell)
    else:
        reason = why_not_cudnn(cell, params, run)
        loop = functools.partial(cudnn_sequence, cell)
    return Choice.scan(reason) if reason else Choice(asked, loop)


def _why_not_local(params: Params, run: Run) -> str | None:
    """The reason why no native loop runs by default, or None.

    XLA cannot divide a native loop over devices, and would gather the rows on each
    device. In `shard_map`, each device runs a loop of its own. A program that is
    compiled for another platform uses XLA's loop instead (`native/operation.py`).
    """
    arrays = params, run.inputs, run.state
    if platform_of(arrays) != "cpu":
        return "native loops run only on CPUs"
    kinds = {kind for mesh in meshes_of(arrays) for kind in mesh.axis_types}
    is_one_of_many = kinds == {AxisType.Manual}
    is_alone = kinds <= {AxisType.Auto} and jax.device_count() == 1
    if not (is_one_of_many or is_alone):
        return "there are several devices, for which native loops need `jax.shard_map`"
    return None
