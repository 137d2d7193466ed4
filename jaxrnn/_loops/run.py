"""Runs a cell over whole sequences, with its `apply_sequence` or with a scan."""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.errors import InvalidValue
from .._base.trees import with_structure
from .._base.typing import Array, PyTree
from .float32_sums import reader
from .steps import Steps

_log = logging.getLogger("jaxrnn")

Apply = Callable[[Array, PyTree, PyTree], tuple[PyTree, PyTree]]


class DeclinedError(Exception):
    """Raised by a cell that cannot run whole sequences at once; gives the reason."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Whole sequences for a cell; the argument of `RNNCell.apply_sequence`.

    Attributes:
        inputs: All steps of inputs, each leaf `[batch, time, ...]`, or
            `[time, batch, ...]` if `steps.axis` is 0.
        state: The initial state, each leaf `[batch, ...]`.
        steps: The time axis, and which rows are finished at each step.
        keys: A function that returns the random key of step t; None for a deterministic
            run.
        implementation: The driver's argument `implementation`: "xla", "native", "cudnn"
            or None. A wrapper passes the value on to its inner cell. Cells that are not
            affine accept only "xla" and None.
    """

    inputs: PyTree
    state: PyTree
    steps: Steps
    keys: Callable[[Array], Any] | None = None
    implementation: str | None = None

    def replace(self, **changes: Any) -> "Run":
        """Returns a copy of the run in which some attributes are replaced."""
        return dataclasses.replace(self, **changes)

    def of_inner(self, inputs: PyTree, state: PyTree, **changes: Any) -> "Run":
        """Returns the run of an inner cell on `inputs` from an initial state."""
        run = self.replace(inputs=inputs, state=state, **changes)
        return run.replace(steps=run.steps.with_stand_in(inputs, state))


def run_sequence(
    apply_sequence: Callable | None,
    apply: Apply,
    run: Run,
    unroll: int = 1,
) -> tuple[PyTree, PyTree]:
    """Runs a cell over all steps; returns `(outputs, state)`.

    Args:
        apply_sequence: A function of the run, which may raise `DeclinedError`; None for
            a cell without `apply_sequence`.
        apply: A function `apply(t, inputs, state)` that runs step t of the whole run.
        run: The sequences. If `steps.returns_states` is true, the outputs are pairs
            `(output, new_state)`. If the cell declines, it is run with a scan, unless
            `implementation` is "native" or "cudnn".
        unroll: The number of steps unrolled in each iteration of a scan.

    Raises:
        ValueError: If the cell declines and `implementation` is "native" or "cudnn".
    """
    args = apply, run.inputs, run.state, run.steps, unroll
    sizes = jax.tree.leaves(run.inputs)[0].shape[:2]
    if any(isinstance(size, int) and not size for size in sizes):
        return scan_steps(*args)  # There are no steps or no rows to run.
    try:
        if apply_sequence is None:
            raise DeclinedError("it has no `apply_sequence`")
        outputs, last = apply_sequence(run)
        return outputs, with_structure(run.state, last)
    except DeclinedError as reason:
        if run.implementation not in (None, "xla"):
            name = f"`implementation` {run.implementation!r}"
            raise InvalidValue(
                f"{name} cannot run this cell on these sequences: {reason}. Leave it "
                "out for XLA's loop, which runs them."
            ) from None
        _log.debug("the cell is run step by step: %s", reason)
    return scan_steps(*args)


def scan_steps(
    apply: Apply, xs: PyTree, state: PyTree, steps: Steps, unroll: int = 1
) -> tuple[PyTree, PyTree]:
    """Runs a cell step by step: the reference that faster paths must match."""
    read = reader(steps.restart_states)

    def step(state: PyTree, scanned: tuple[Array, PyTree]) -> tuple[PyTree, PyTree]:
        t, inputs = scanned
        restarted = steps.with_restart_states(read())
        inputs, before = restarted.step_inputs(t, inputs, state)
        output, new_state = apply(steps.offset + t, inputs, before)
        state, output = steps.mask_step(t, state, new_state, output)
        return state, (output, state) if steps.returns_states else output

    ts = jnp.arange(steps.time, dtype=jnp.int32)
    # A symbolic time cannot be unrolled.
    unroll = unroll if isinstance(steps.time, int) else 1
    state, outputs = jax.lax.scan(step, state, (ts, steps.swap_time(xs)), unroll=unroll)
    return steps.swap_time(outputs), state
