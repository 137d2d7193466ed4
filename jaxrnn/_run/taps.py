"""The last inputs at each step, the *taps*, as a causal convolution reads them.

The taps do not reach across a restart of a row, and do not read padding.
"""

import functools

import jax
import jax.numpy as jnp

from .._base.typing import Array
from . import masking
from .masking import Steps


def taps_of(steps: Steps, inputs: Array, past: Array) -> tuple[list[Array], Array]:
    """The last inputs at every step.

    Args:
        steps: The time axis; its restart states are past inputs.
        inputs: `[batch, time, depth]`, or `[time, batch, depth]` if `steps.axis` is 0.
        past: The inputs before the first step, `[batch, width - 1, depth]`.

    Returns:
        The taps, oldest first, each with the shape of `inputs`; and the past inputs
        after each row's last step.
    """
    axis, count = steps.axis, past.shape[1]
    read = lambda x, start: jax.lax.slice_in_dim(
        x, start, start + steps.time, axis=axis
    )
    each_step = functools.partial(jnp.expand_dims, axis=axis)
    inputs = steps.zero_finished(inputs)
    extended = jnp.concatenate([jnp.moveaxis(past, 1, axis), inputs], axis=axis)
    taps = [read(extended, i) for i in range(count)]
    if steps.restarts is not None:
        edges = [(count, 0) if i == axis else (0, 0) for i in range(2)]
        restarts = jnp.pad(steps.restarts, edges)
        for i in range(count):
            # After a restart d steps ago, older inputs are those of the restart state.
            for d in reversed(range(count - i)):
                other = each_step(steps.restart_states[:, i + d])
                taps[i] = masking.select(~read(restarts, count - d), taps[i], other)
    taps = [*map(steps.zero_finished, taps), inputs]
    last = []
    for i, tap in enumerate(taps[1:]):
        states = jnp.concatenate([each_step(past[:, i]), tap], axis=axis)
        last.append(_after_last_step(steps, states))
    return taps, jnp.stack(last, axis=1)


def taps_of_step(inputs: Array, past: Array) -> tuple[list[Array], Array]:
    """The last inputs at one step, and the past inputs after it.

    Args:
        inputs: `[batch, depth]`.
        past: The inputs before the step, `[batch, width - 1, depth]`, in the dtype of
            the inputs or a wider one.

    Returns:
        The taps, oldest first, each like `inputs`; and the new past inputs.
    """
    newest = inputs[:, None].astype(past.dtype)
    last = jnp.concatenate([past, newest], axis=1)
    return list(jnp.unstack(last.astype(inputs.dtype), axis=1)), last[:, 1:]


def _after_last_step(steps: Steps, states: Array) -> Array:
    """For each row of `states`, the entry at the row's length; `[batch, depth]`."""
    if steps.lengths is None:
        return jax.lax.index_in_dim(states, steps.time, steps.axis, keepdims=False)

    def read(row: Array, length: Array) -> Array:
        return row.at[length].get(mode="promise_in_bounds")

    return jax.vmap(read, (1 - steps.axis, 0))(states, steps.lengths)
