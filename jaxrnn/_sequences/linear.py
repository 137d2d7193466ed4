"""Whole sequences of a cell that is a linear recurrence, a block of steps at a time.

Of a block the products and gates are computed at once, then the states, then the
outputs. On a CPU a block is small enough for a cache, so that little of it goes through
main memory. The backward pass computes it again from the state before it, so beside
outputs and gradients only the states between blocks take memory that grows with time.
"""

from typing import Any

import jax

from .._base.math import cast_like, widened
from .._base.sharding import platform_of
from .._base.typing import Array, Params, PyTree
from .._time import masking
from .._time.float32_sums import reader
from .._time.segments import run_in_segments
from .._time.steps import Steps, at_each_step
from .recurrence import Element, linear_recurrence, one_like, plus, times


def linear_sequence(
    cell: Any, params: Params, xs: Array, state: Element, steps: Steps
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of `cell` over all steps, equal to a scan of `cell.apply`.

    Args:
        cell: A `LinearRecurrenceCell`.
        params: Its parameters.
        xs: Inputs, `[batch, time, depth]`, time along `steps.axis`.
        state: The initial state, `[batch, units]`.
        steps: Which steps there are, at least one. If
            `steps.returns_states` the outputs are pairs `(output, new_state)`.
    """
    read = reader(params)

    def run(xs: Array, state: Element, steps: Steps) -> tuple[PyTree, PyTree]:
        block = steps.swap_time(xs), state, steps.time_first()
        outputs, last = _run_block(cell, read(), *block)
        return steps.swap_time(outputs), last

    size = steps_in_block(state, platform_of((params, xs, state)))
    return run_in_segments(size, run, xs, state, steps)


def steps_in_block(state: Element, platform: str) -> int:
    """How many steps are run at once: a power of two.

    On CPUs their states take about 2 MiB: with B = 8, H = 256 and T = 8192, MinGRU took
    232, 175, 192 and 210 ms forward in blocks of 128, 256, 512 and 1024 steps, and 680,
    722, 775 and 839 ms to train; with B = 1, 256 to 2048 steps are equally fast.

    Elsewhere a block has 1,024 steps. By the compiler of TPUs, the gradient of 8192
    steps of MinGRU with B = 4, H = 512 takes 18 million cycles and 99 MiB so, and 13
    million and 829 MiB with all steps at once.
    """
    if not all(isinstance(n, int) for x in jax.tree.leaves(state) for n in x.shape):
        return 256  # The number of rows is symbolic.
    if platform != "cpu":
        return 1024
    step_bytes = 4 * sum(leaf.size for leaf in jax.tree.leaves(state))
    steps = min(max(32, 2**21 // max(1, step_bytes)), 2**16)
    return 1 << (steps.bit_length() - 1)


def _run_block(
    cell: Any, params: Params, xs: Array, state: Element, steps: Steps
) -> tuple[PyTree, PyTree]:
    """`linear_sequence` of one block."""
    coefficients = lambda x: cell.wide_coefficients(params, x, state)
    a, b, rest = at_each_step(coefficients, steps.fill_dead(xs))
    a, b = _masked(steps, a, b)
    b, restarting = _with_restarts(steps, a, b)
    hs, last = linear_recurrence(a, b, widened(state), restarting)
    hs, last = (cast_like(state, x) for x in (hs, last))
    output = lambda h, rest: cell.narrow_output(params, h, rest, xs.dtype)
    outputs = steps.zero_dead(at_each_step(output, hs, rest))
    return (outputs, hs) if steps.returns_states else outputs, last


def _masked(steps: Steps, a: Element, b: Element) -> tuple[Element, Element]:
    """The coefficients; 1 and 0, which keep the state, where a row is not alive."""
    alive = steps.alive_steps()
    if alive is None:
        return a, b
    return masking.choose(alive, a, one_like(a)), masking.zero_dead(alive, b)


def _with_restarts(steps: Steps, a: Element, b: Element) -> tuple[Element, Any]:
    """`b` plus the restart states times a, and the steps at which rows restart."""
    if steps.restarts is None:
        return b, None
    restarting = steps.restarts.state_numbers >= 0
    before = widened(steps.restarts.states_at_steps(steps.axis))
    # Else 0 times infinity could reach the gradient of a step without a restart.
    before = masking.zero_dead(restarting, before)
    return plus(b, times(a, before)), restarting
