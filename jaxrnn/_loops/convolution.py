"""Runs a `ShortConvCell` over whole sequences, as a sum of shifted inputs."""

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
    """Chooses a sum of shifted inputs, unless the user asks for another loop."""
    return choose_many_steps("convolution", cell, _convolve_all, run)


def transition(cell: ShortConvCell) -> Transition:
    """Returns the functions of the cell's state map; see `Transition`.

    A state is the last `width - 1` inputs. The map of several steps is such a state
    with one more channel, a flag: 1 marks an input of these steps, and 0 an earlier
    input, which is read from the state before the steps.
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
    """Runs all steps; returns `(outputs, state)`. See `Choice.loop`."""
    steps, past = run.steps, run.state
    taps, last = taps_of(run.replace(inputs=run.inputs.astype(past.dtype)))
    narrow = [tap.astype(run.inputs.dtype) for tap in taps]
    outputs = steps.zero_finished(convolved(params, narrow))
    if steps.returns_states:
        return (outputs, jnp.stack(taps[1:], 2)), last
    return outputs, last


def taps_of(run: Run) -> tuple[list[Array], Array]:
    """Finds the *taps* of every step: the last `width` inputs, oldest first.

    Args:
        run: The inputs, `[batch, time, depth]`, or `[time, batch, depth]` if
            `steps.axis` is 0. The state, `[batch, width - 1, depth]`, is the inputs
            before the first step. The reset state is the inputs before a reset.

    Returns:
        `(taps, last)`. `taps` is a list of `width` arrays like the inputs. `last` is
        the state after each row's last step.
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
            # After a reset d steps ago, older inputs come from the reset state.
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
    """Reads `states` at index `length` of each row; returns `[batch, depth]`."""
    if steps.lengths is None:
        return jax.lax.index_in_dim(states, steps.time, steps.axis, keepdims=False)

    def read(row: Array, length: Array) -> Array:
        return row.at[length].get(mode="promise_in_bounds")

    return jax.vmap(read, (1 - steps.axis, 0))(states, steps.lengths)


register(ShortConvCell, Loops(choose, DividedTime(transition)))
