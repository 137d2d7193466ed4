"""A scan that, on CPUs, skips chunks of steps after the longest row has ended.

The scan has a fixed number of iterations, so JAX can differentiate it in every mode.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.sharding import as_varying_as, zeros_of
from .._base.typing import Array, PyTree
from .segments import in_scan

# The range of chunk sizes. A ragged run wastes at most one chunk.
LEAST, MOST = 8, 16


def alive_scan(
    body: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    carry: PyTree,
    xs: PyTree,
    longest: Array | None,
    save_inputs_only: bool = False,
    skipped: PyTree = None,
) -> tuple[PyTree, PyTree]:
    """Runs `lax.scan(body, carry, xs)`; on CPUs, skips most steps past `longest`.

    Args:
        body: The function of one step. Steps after the first `longest` must not change
            the carry, and their stacked results must not be read.
        carry: The carry before the first step.
        xs: The inputs of each step, each leaf `[time, ...]`. The last chunk is padded
            with copies of the last step, except that bools are padded with False.
        longest: The number of valid steps, an int32 scalar; None if all are valid.
        save_inputs_only: Whether derivatives save only the inputs of each step and
            recompute the residuals. If False, derivatives save the residuals.
        skipped: The result to stack for a skipped step, with the structure of the
            results of `body`; None for zeros.
    """
    checkpointed = in_scan if save_inputs_only else lambda body: body
    step = checkpointed(body)
    time = jax.tree.leaves(xs)[0].shape[0]
    if longest is None or time <= LEAST:
        return jax.lax.scan(step, carry, xs)
    size = chunk_size(time)
    types = jax.eval_shape(step, carry, jax.tree.map(lambda x: x[0], xs))[1]

    def skip(carry: PyTree, part: PyTree) -> tuple[PyTree, PyTree]:
        if skipped is None:
            return carry, zeros_of(types, size, (carry, part))
        repeated = jax.tree.map(
            lambda y: jnp.broadcast_to(y, (size, *y.shape)), skipped
        )
        return carry, as_varying_as((carry, part), repeated)

    # With a condition, the TPU compiler keeps no kernel in fast memory: the estimated
    # cycles of an LSTM with 512 units grew 1.8 times. A GPU would wait for the
    # condition.
    skips = jax.lax.platform_dependent(cpu=lambda: True, default=lambda: False)

    def chunk(carry: PyTree, scanned: Any) -> tuple[PyTree, PyTree]:
        start, part = scanned
        run = functools.partial(jax.lax.scan, step)
        is_run = (start < longest) | ~skips
        return jax.lax.cond(is_run, run, skip, carry, part)

    count = -(-time // size)
    parts = jax.tree.map(lambda x: in_chunks(x, count, size), xs)
    starts = jnp.arange(count, dtype=jnp.int32) * size
    # If only the steps were checkpointed, JAX would also save the branch's inputs.
    carry, ys = jax.lax.scan(checkpointed(chunk), carry, (starts, parts))
    return carry, jax.tree.map(lambda y: jax.lax.collapse(y, 0, 2)[:time], ys)


def chunk_size(time: int) -> int:
    """Returns the chunk size for which the last chunk needs the least padding."""
    return min(range(MOST, LEAST - 1, -1), key=lambda size: -time % size)


def in_chunks(x: Array, count: int, size: int) -> Array:
    """Splits steps into chunks `[count, size, ...]`, padded at the end.

    Padding repeats the last step, so the padding is finite if the inputs are finite.
    The derivative of a cell may not be finite at zeros. Bools are padded with False,
    because no row is alive at the added steps.
    """
    repeats_last = x.shape[0] > 0 and x.dtype != bool
    last = x[-1:] if repeats_last else jnp.zeros((1, *x.shape[1:]), x.dtype)
    filled = jnp.concatenate([x] + [last] * (count * size - x.shape[0]))
    return filled.reshape(count, size, *x.shape[1:])
