"""Runs whole sequences of a linear recurrence, one block of steps at a time.

For each block, all products and gates are computed at once, followed by the states and
then the outputs. On a CPU, a block is small enough for the cache, so little of its data
goes through main memory. The backward pass recomputes each block from the state before
the block. Therefore, except for outputs and gradients, only the states between blocks
take memory that grows with time.
"""

from typing import Any

import jax

from .._base.math import cast_like, widened
from .._base.sharding import platform_of
from .._base.typing import Array, Params, PyTree
from . import masking
from .float32_sums import reader
from .recurrence import Element, linear_recurrence, one_like, plus, times
from .segments import run_in_segments
from .steps import Steps, at_each_step


def linear_sequence(
    cell: Any, params: Params, xs: Array, state: Element, steps: Steps
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of `cell` over all steps, equal to a scan of `cell.apply`.

    Args:
        cell: A `LinearRecurrenceCell`.
        params: The cell's parameters.
        xs: Inputs, `[batch, time, depth]`, time along `steps.axis`.
        state: The initial state, `[batch, units]`.
        steps: The steps of the run, at least one. If `steps.returns_states` is true,
            the outputs are pairs `(output, new_state)`.
    """
    read = reader(params)

    def run(xs: Array, state: Element, steps: Steps) -> tuple[PyTree, PyTree]:
        block = steps.swap_time(xs), state, steps.time_first()
        outputs, last = _run_block(cell, read(), *block)
        return steps.swap_time(outputs), last

    size = steps_in_block(state, platform_of((params, xs, state)))
    return run_in_segments(size, run, xs, state, steps)


def steps_in_block(state: Element, platform: str) -> int:
    """The number of steps in a block, a power of two.

    On CPUs, the states of a block take about 2 MiB. With B = 8, H = 256 and T = 8192,
    in blocks of 128, 256, 512 and 1024 steps, the forward pass of MinGRU took 232, 175,
    192 and 210 ms, and a training step took 680, 722, 775 and 839 ms. With B = 1,
    blocks of 256 to 2048 steps are equally fast.

    On other platforms, a block has 1,024 steps. The TPU's compiler estimates 18 million
    cycles and 99 MiB for the gradient of 8192 steps of MinGRU with B = 4, H = 512. If
    all steps are in one block, the compiler estimates 13 million cycles and 829 MiB.
    """
    if not all(isinstance(n, int) for x in jax.tree.leaves(state) for n in x.shape):
        return 256  # A size is symbolic.
    if platform != "cpu":
        return 1024
    step_bytes = 4 * sum(leaf.size for leaf in jax.tree.leaves(state))
    steps = min(max(32, 2**21 // max(1, step_bytes)), 2**16)
    return 1 << (steps.bit_length() - 1)


def _run_block(
    cell: Any, params: Params, xs: Array, state: Element, steps: Steps
) -> tuple[PyTree, PyTree]:
    """Runs one block; see `linear_sequence`."""
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
    """The coefficients. They are 1 and 0 in finished rows, which keep their state."""
    alive = steps.alive_steps()
    if alive is None:
        return a, b
    return masking.choose(alive, a, one_like(a)), masking.zero_dead(alive, b)


def _with_restarts(steps: Steps, a: Element, b: Element) -> tuple[Element, Any]:
    """Adds `a` times the restart states to `b`; also returns the mask of restarts."""
    if steps.restarts is None:
        return b, None
    restarting = steps.restarts.state_numbers >= 0
    before = widened(steps.restarts.states_at_steps(steps.axis))
    # Otherwise, at a step without a restart, 0 * inf could put NaN in the gradient.
    before = masking.zero_dead(restarting, before)
    return plus(b, times(a, before)), restarting
