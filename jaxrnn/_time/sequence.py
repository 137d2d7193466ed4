"""A cell over whole sequences: by its `apply_sequence` if it has one, or by a scan."""

import logging
from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._base.trees import with_structure
from .._base.typing import Array, PyTree
from .steps import Steps

_log = logging.getLogger("jaxrnn")

Apply = Callable[[Array, PyTree, PyTree], tuple[PyTree, PyTree]]


class DeclinedError(Exception):
    """Raised by a cell that cannot run these sequences at once, with the reason."""


def run_sequence(
    apply_sequence: Callable | None,
    apply: Apply,
    xs: PyTree,
    state: PyTree,
    steps: Steps,
    implementation: str | None = None,
    unroll: int = 1,
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of a cell over all steps.

    Args:
        apply_sequence: `apply_sequence(xs, state, steps, implementation)`, which may
            raise `DeclinedError`; None for a cell without that method.
        apply: `apply(t, inputs, state)`, one step.
        xs: Inputs, each leaf `[batch, time, ...]`, time along `steps.axis`.
        state: The initial state, each leaf `[batch, ...]`.
        steps: Which steps there are. With restarts the outputs are pairs
            `(output, new_state)`.
        implementation: What must run the loop of an affine cell, "native" or "cudnn";
            else a cell that declines is scanned.
        unroll: The number of steps unrolled in each iteration of a scan.

    Raises:
        ValueError: If the cell declines and an implementation is required.
    """
    is_empty = isinstance(steps.time, int) and steps.time == 0
    if is_empty:
        return scan_steps(apply, xs, state, steps, unroll)
    try:
        if apply_sequence is None:
            raise DeclinedError("it has no `apply_sequence`")
        outputs, last = apply_sequence(xs, state, steps, implementation)
        return outputs, with_structure(state, last)
    except DeclinedError as reason:
        if implementation not in (None, "xla"):
            raise ValueError(
                f"`implementation` {implementation!r} cannot run this cell on these "
                f"sequences: {reason}. Leave it out for XLA's loop, which runs them."
            ) from None
        _log.debug("the cell is run step by step: %s", reason)
    return scan_steps(apply, xs, state, steps, unroll)


def scan_steps(
    apply: Apply, xs: PyTree, state: PyTree, steps: Steps, unroll: int = 1
) -> tuple[PyTree, PyTree]:
    """`run_sequence` step by step: the reference that faster paths must equal."""

    def step(state: PyTree, scanned: tuple[Array, PyTree]) -> tuple[PyTree, PyTree]:
        t, inputs = scanned
        output, new_state = apply(t, *steps.step_inputs(t, inputs, state))
        state, output = steps.mask_step(t, state, new_state, output)
        return state, output if steps.restarts is None else (output, state)

    ts = jnp.arange(steps.time, dtype=jnp.int32)
    # A symbolic time cannot be unrolled.
    unroll = unroll if isinstance(steps.time, int) else 1
    state, outputs = jax.lax.scan(step, state, (ts, steps.swap_time(xs)), unroll=unroll)
    return steps.swap_time(outputs), state
