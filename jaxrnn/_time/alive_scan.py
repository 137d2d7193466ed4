"""A scan that ends with the longest row: chunks of steps after it are skipped.

It has a fixed number of iterations, so JAX can differentiate it in every mode.
"""

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
    body: Callable[[PyTree, tuple[Array, PyTree]], tuple[PyTree, PyTree]],
    carry: PyTree,
    xs: PyTree,
    longest: Array | None,
    save_inputs_only: bool = False,
    skipped: PyTree = None,
) -> tuple[PyTree, PyTree]:
    """`lax.scan(body, carry, (ts, xs))`, but for most steps from `longest` on.

    Args:
        body: A step, which from `longest` on returns the carry as it was; what it
            stacks there must not be read. It reads its number t, an int32 scalar, and
            step t of `xs`.
        carry: What the first step receives.
        xs: What each step reads, each leaf `[time, ...]`.
        longest: The number of steps that count, an int32 scalar; None for all.
        save_inputs_only: Whether derivatives save of each step what it reads, and
            compute again what the derivative needs; by default they save the latter.
        skipped: What a step that is skipped stacks, as the body would; None for zeros.
    """
    saved = in_scan if save_inputs_only else lambda body: body
    step = saved(body)
    time = jax.tree.leaves(xs)[0].shape[0]
    if longest is None or time <= LEAST:
        return jax.lax.scan(step, carry, (jnp.arange(time, dtype=jnp.int32), xs))
    size = chunk_size(time)
    first = jnp.int32(0), jax.tree.map(lambda x: x[0], xs)
    types = jax.eval_shape(step, carry, first)[1]

    def skip(carry: PyTree, scanned: Any) -> tuple[PyTree, PyTree]:
        if skipped is None:
            return carry, zeros_of(types, size, (carry, scanned))
        repeated = jax.tree.map(
            lambda y: jnp.broadcast_to(y, (size, *y.shape)), skipped
        )
        return carry, as_varying_as((carry, scanned), repeated)

    def chunk(carry: PyTree, scanned: Any) -> tuple[PyTree, PyTree]:
        ts, _ = scanned
        run = lambda carry, scanned: jax.lax.scan(step, carry, scanned)
        return jax.lax.cond(ts[0] < longest, run, skip, carry, scanned)

    count = -(-time // size)
    parts = jax.tree.map(lambda x: in_chunks(x, count, size), xs)
    ts = jnp.arange(count * size, dtype=jnp.int32).reshape(count, size)
    # Else what a chunk reads would be saved a second time, on its way into the branch.
    carry, ys = jax.lax.scan(saved(chunk), carry, (ts, parts))
    return carry, jax.tree.map(lambda y: jax.lax.collapse(y, 0, 2)[:time], ys)


def chunk_size(time: int) -> int:
    """The number of steps in a chunk, so that the last one lacks as few as possible."""
    return min(range(MOST, LEAST - 1, -1), key=lambda size: -time % size)


def in_chunks(x: Array, count: int, size: int) -> Array:
    """`[count, size, ...]`; the last step is repeated after the end.

    It is as finite as a step is. Zeros need not be, to the derivative of a cell.
    """
    last = x[-1:] if x.shape[0] else jnp.zeros((1, *x.shape[1:]), x.dtype)
    filled = jnp.concatenate([x] + [last] * (count * size - x.shape[0]))
    return filled.reshape(count, size, *x.shape[1:])
