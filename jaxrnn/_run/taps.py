"""The last inputs at each step, the *taps*, as a causal convolution reads them.

The taps do not reach across a restart of a row, and do not read padding.
"""

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
    taps = [steps.zero_finished(inputs)]
    last = []
    # Each tap is the next newer tap, delayed by one step. At the first step, a tap is
    # a past input.
    for i in reversed(range(past.shape[1])):
        first = jnp.expand_dims(past[:, i], steps.axis)
        shifted = jnp.concatenate([first, taps[0]], axis=steps.axis)
        tap = jax.lax.slice_in_dim(shifted, 0, steps.time, axis=steps.axis)
        if steps.restarts is not None:
            other = jnp.expand_dims(steps.restart_states[:, i], steps.axis)
            tap = masking.select(~steps.restarts, tap, other)
        taps.insert(0, steps.zero_finished(tap))
        last.insert(0, _after_last_step(steps, shifted))
    return taps, jnp.stack(last, axis=1)


def _after_last_step(steps: Steps, shifted: Array) -> Array:
    """For each row of `shifted`, the entry at the row's length; `[batch, depth]`."""
    if steps.lengths is None:
        return jax.lax.index_in_dim(shifted, steps.time, steps.axis, keepdims=False)

    def read(row: Array, length: Array) -> Array:
        return row.at[length].get(mode="promise_in_bounds")

    return jax.vmap(read, (1 - steps.axis, 0))(shifted, steps.lengths)
