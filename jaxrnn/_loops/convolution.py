"""The loop of a `ShortConvCell`: a sum of shifted inputs, and its map over steps."""

import functools

import jax
import jax.numpy as jnp

from .._base.math import cast_like
from .._base.typing import Array, Params, PyTree
from .._cells.short_conv import ShortConvCell, convolved
from .._run import masking
from .._run.loops import Loops, register
from .._run.masking import Steps
from .._run.run import Choice, Run
from .divided_time import DividedTime, Transition
from .many_steps import choose_many_steps


def choose(cell: ShortConvCell, params: Params, run: Run) -> Choice:
    """Chooses a sum of shifted inputs."""
    return choose_many_steps("convolution", cell, _convolve_all, run)


def transition(cell: ShortConvCell) -> Transition:
    """The map from the state before several steps to the state after them.

    The last channel is 1 for inputs of these steps, and 0 for earlier inputs, which
    the map takes from the state.
    """

    def window(state: Array, is_known: float) -> Array:
        flag = jnp.full_like(state[..., :1], is_known)
        return jnp.concatenate([state, flag], axis=-1)

    constant = lambda state: window(state, 1.0)
    identity = lambda state: window(jnp.zeros_like(state), 0.0)

    def map_of_steps(params: Params, run: Run) -> Array:
        inputs = window(run.inputs.astype(run.state.dtype), 1.0)
        return taps_of(run.replace(inputs=inputs))[1]

    def map_state(state_map: Array, state: Array) -> Array:
        own, is_known = jnp.split(state_map, [cell.num_units], axis=-1)
        count = jnp.sum(is_known > 0, axis=1, keepdims=True)
        places = jnp.arange(cell.width - 1)[None, :, None] + count
        places = jnp.minimum(places, cell.width - 2)
        before = jnp.take_along_axis(state, places, axis=1)
        return jnp.where(is_known > 0, own, before)

    return Transition(map_of_steps, identity, constant, map_state, cast_like)


def _convolve_all(params: Params, run: Run) -> tuple[PyTree, Array]:
    """`(outputs, state)` of all steps; see `Choice.loop`."""
    steps, past = run.steps, run.state
    taps, last = taps_of(run.replace(inputs=run.inputs.astype(past.dtype)))
    narrow = [tap.astype(run.inputs.dtype) for tap in taps]
    outputs = steps.zero_finished(convolved(params, narrow))
    if steps.returns_states:
        return (outputs, jnp.stack(taps[1:], 2)), last
    return outputs, last


def taps_of(run: Run) -> tuple[list[Array], Array]:
    """The last inputs at every step.

    Args:
        run: Inputs `[batch, time, depth]`, or `[time, batch, depth]` if `steps.axis` is
            0; the state, `[batch, width - 1, depth]`, is the inputs before the first
            step, and the reset state those before a reset.

    Returns:
        The taps, oldest first, each with the shape of `inputs`; and the past inputs
        after each row's last step.
    """
    steps, past = run.steps, run.state
    axis, count = steps.axis, past.shape[1]
    read = lambda x, start: jax.lax.slice_in_dim(
        x, start, start + steps.time, axis=axis
    )
    each_step = functools.partial(jnp.expand_dims, axis=axis)
    inputs = steps.zero_finished(run.inputs)
    extended = jnp.concatenate([jnp.moveaxis(past, 1, axis), inputs], axis=axis)
    taps = [read(extended, i) for i in range(count)]
    if steps.resets is not None:
        edges = [(count, 0) if i == axis else (0, 0) for i in range(2)]
        resets = jnp.pad(steps.resets, edges)
        for i in range(count):
            # After a reset d steps ago, older inputs are those of the reset state.
            for d in reversed(range(count - i)):
                other = each_step(run.reset_state[:, i + d])
                taps[i] = masking.select(~read(resets, count - d), taps[i], other)
    taps = [*map(steps.zero_finished, taps), inputs]
    last = []
    for i, tap in enumerate(taps[1:]):
        states = jnp.concatenate([each_step(past[:, i]), tap], axis=axis)
        last.append(_after_last_step(steps, states))
    return taps, jnp.stack(last, axis=1)


def _after_last_step(steps: Steps, states: Array) -> Array:
    """For each row of `states`, the entry at the row's length; `[batch, depth]`."""
    if steps.lengths is None:
        return jax.lax.index_in_dim(states, steps.time, steps.axis, keepdims=False)

    def read(row: Array, length: Array) -> Array:
        return row.at[length].get(mode="promise_in_bounds")

    return jax.vmap(read, (1 - steps.axis, 0))(states, steps.lengths)


register(ShortConvCell, Loops(choose, DividedTime(transition)))
