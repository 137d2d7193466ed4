"""A cell over whole sequences: in its own way if it has one, else step by step."""

import logging
from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._base.trees import with_structure
from .._base.typing import Array, PyTree
from .steps import Steps

_log = logging.getLogger("jaxrnn")


class DeclinedError(Exception):
    """A cell has no way of its own to run these sequences, for the reason given."""


def run_sequence(
    apply_sequence: Callable | None,
    apply: Callable[[Array, PyTree, PyTree], tuple[PyTree, PyTree]],
    xs: PyTree,
    state: PyTree,
    steps: Steps,
    history: bool = False,
    unroll: int = 1,
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of a cell over all steps.

    Args:
        apply_sequence: `apply_sequence(xs, state, steps, history)`, which may raise
            `DeclinedError`; None for a cell that has none.
        apply: `apply(t, inputs, state)`, one step.
        xs: Inputs, time along `steps.axis`.
        state: The initial state.
        steps: Which steps there are.
        history: Whether the outputs are pairs of output and new state.
        unroll: The steps in one turn of the loop, where it is one of steps.
    """
    is_empty = isinstance(steps.time, int) and steps.time == 0
    if is_empty:
        return scan_steps(apply, xs, state, steps, history, unroll)
    try:
        if apply_sequence is None:
            raise DeclinedError("it has no way of its own over sequences")
        outputs, last = apply_sequence(xs, state, steps, history)
        return outputs, with_structure(state, last)
    except DeclinedError as reason:
        if steps.kernel is not None:
            raise ValueError(
                f"`implementation` {steps.kernel} cannot run this cell on these "
                f"sequences: {reason}. Leave it out for XLA's loop, which runs them."
            ) from None
        _log.debug("the cell is run step by step: %s", reason)
    return scan_steps(apply, xs, state, steps, history, unroll)


def scan_steps(
    apply: Callable[[Array, PyTree, PyTree], tuple[PyTree, PyTree]],
    xs: PyTree,
    state: PyTree,
    steps: Steps,
    history: bool = False,
    unroll: int = 1,
) -> tuple[PyTree, PyTree]:
    """The same step by step: what every other way is held to."""

    def step(state: PyTree, scanned: tuple[Array, PyTree]) -> tuple[PyTree, PyTree]:
        t, inputs = scanned
        output, new_state = apply(t, *steps.show(t, inputs, state))
        state, output = steps.settle(t, state, new_state, output)
        return state, (output, state) if history else output

    to_time_major = lambda tree: jax.tree.map(
        lambda x: jnp.swapaxes(x, 0, steps.axis), tree
    )
    ts = jnp.arange(steps.time, dtype=jnp.int32)
    # A symbolic time cannot be split into turns of several steps.
    unroll = unroll if isinstance(steps.time, int) else 1
    state, outputs = jax.lax.scan(step, state, (ts, to_time_major(xs)), unroll=unroll)
    return to_time_major(outputs), state
