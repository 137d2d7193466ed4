"""A scan that on CPUs ends with the longest row: it skips chunks of steps after it.

It has a fixed number of iterations, so JAX can differentiate it in every mode.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.sharding import as_varying_as, zeros_of
from .._base.typing import Array, PyTree
from .segments import in_scan

# A chunk has about so many steps: of a ragged run at most one chunk is run in vain.
LEAST, MOST = 8, 16


def alive_scan(
    body: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    carry: PyTree,
    xs: PyTree,
    longest: Array | None,
    save_inputs_only: bool = False,
    skipped: PyTree = None,
) -> tuple[PyTree, PyTree]:
    """`lax.scan(body, carry, xs)`, but on CPUs for most steps from `longest` on.

    Args:
        body: A step, for which it makes no difference whether those from `longest` on
            are run; what they stack must not be read.
        carry: What the first step receives.
        xs: What each step reads, each leaf `[time, ...]`. A chunk that goes on after
            the last step repeats it, with False for bools.
        longest: The number of steps that count, an int32 scalar; None for all.
        save_inputs_only: Whether derivatives save of each step what it reads, and
            compute again what the derivative needs; by default they save the latter.
        skipped: What a step that is skipped stacks, as the body would; None for zeros.
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

    # With a condition the compiler of TPUs holds no kernel in fast memory: an LSTM of
    # 512 units took 1.8 times the estimated cycles. A GPU would wait for its value.
    skips = jax.lax.platform_dependent(cpu=lambda: True, default=lambda: False)

    def chunk(carry: PyTree, scanned: Any) -> tuple[PyTree, PyTree]:
        start, part = scanned
        run = functools.partial(jax.lax.scan, step)
        is_run = (start < longest) | ~skips
        return jax.lax.cond(is_run, run, skip, carry, part)

    count = -(-time // size)
    parts = jax.tree.map(lambda x: in_chunks(x, count, size), xs)
    starts = jnp.arange(count, dtype=jnp.int32) * size
    # Else what a chunk reads would be saved a second time, on its way into the branch.
    carry, ys = jax.lax.scan(checkpointed(chunk), carry, (starts, parts))
    return carry, jax.tree.map(lambda y: jax.lax.collapse(y, 0, 2)[:time], ys)


def chunk_size(time: int) -> int:
    """The number of steps in a chunk, so that the last one lacks as few as possible."""
    return min(range(MOST, LEAST - 1, -1), key=lambda size: -time % size)


def in_chunks(x: Array, count: int, size: int) -> Array:
    """`[count, size, ...]`; after the end the last step is repeated, False if bool.

    It is as finite as a step is. Zeros need not be, to the derivative of a cell. But no
    row is alive there.
    """
    repeats_last = x.shape[0] > 0 and x.dtype != bool
    last = x[-1:] if repeats_last else jnp.zeros((1, *x.shape[1:]), x.dtype)
    filled = jnp.concatenate([x] + [last] * (count * size - x.shape[0]))
    return filled.reshape(count, size, *x.shape[1:])
