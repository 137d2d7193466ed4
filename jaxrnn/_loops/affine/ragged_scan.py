"""A scan that, on CPUs, skips groups of 8 to 16 steps after all rows have ended."""

import functools
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from ..._base.mesh import varying_like
from ..._base.sharding import zeros_of
from ..._base.typing import Array, PyTree
from ..._run.scans import checkpointed

Body: TypeAlias = Callable[[Array, PyTree, PyTree], tuple[PyTree, PyTree]]
"""`body(t, carry, x) -> (carry, y)` of step t, an int32 scalar."""

# The range of group sizes, in steps. On a CPU, the scan skips the groups after the end
# of the longest row.
MIN_GROUP = 8
MAX_GROUP = 16


def ragged_scan(
    body: Body,
    carry: PyTree,
    xs: PyTree,
    steps_to_run: Array | None,
    save_inputs_only: bool = False,
    skipped: PyTree = None,
) -> tuple[PyTree, PyTree]:
    """Applies `lax.scan` to steps; on CPUs, skips most steps past `steps_to_run`.

    The scan has a fixed number of iterations, so JAX can differentiate it in every
    mode.

    Args:
        body: The function of one step. The scan may run it for steps after the first
            `steps_to_run`, and even past the end of `xs`. Such a step must not change
            the carry, and no final result may depend on its stacked result.
        carry: The carry before the first step.
        xs: The inputs of each step, each leaf `[time, ...]`. The last group is padded
            with copies of the last step, except that bools are padded with False.
        steps_to_run: The number of valid steps, an int32 scalar; None if all are valid.
        save_inputs_only: Whether derivatives save only the inputs of each step and
            recompute the residuals. If False, derivatives save the residuals.
        skipped: The result to stack for a skipped step, with the structure of the
            results of `body`. Default: zeros.
    """
    body = checkpointed(body) if save_inputs_only else body

    # The index of the step is carried, not scanned. A TPU reads a scalar of the carry
    # for free, but reading an element of an array costs as much as an element-wise
    # operation.
    def step(carry: tuple[Array, PyTree], x: PyTree) -> tuple[PyTree, PyTree]:
        t, carry = carry
        carry, y = body(t, carry, x)
        return (t + 1, carry), y

    first, time = (jnp.int32(0), carry), jax.tree.leaves(xs)[0].shape[0]
    if steps_to_run is None or time <= MIN_GROUP:
        (_, carry), ys = jax.lax.scan(step, first, xs)
        return carry, ys
    size = group_size(time)
    types = jax.eval_shape(step, first, jax.tree.map(lambda x: x[0], xs))[1]

    def skip(carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        if skipped is None:
            return carry, zeros_of(types, size, (carry, xs))
        repeated = jax.tree.map(
            lambda y: jnp.broadcast_to(y, (size, *y.shape)), skipped
        )
        return carry, varying_like((carry, xs), repeated)

    # Skip groups on CPUs only. With `lax.cond`, the TPU compiler keeps no kernel in
    # fast memory, and estimates 1.8 times as many cycles for an LSTM with 512 units. On
    # a GPU, the host would wait for each condition before it starts a group.
    skips = jax.lax.platform_dependent(cpu=lambda: True, default=lambda: False)

    def group(carry: PyTree, scanned: PyTree) -> tuple[PyTree, PyTree]:
        start, xs = scanned
        run = functools.partial(jax.lax.scan, step)
        is_run = (start < steps_to_run) | ~skips
        return jax.lax.cond(is_run, run, skip, carry, xs)

    count = -(-time // size)
    groups = jax.tree.map(lambda x: in_groups(x, count, size), xs)
    starts = jnp.arange(count, dtype=jnp.int32) * size
    # Checkpoint the whole group too. If only the steps were checkpointed, JAX would
    # also save the inputs of `lax.cond`.
    group = checkpointed(group) if save_inputs_only else group
    (_, carry), ys = jax.lax.scan(group, first, (starts, groups))
    return carry, jax.tree.map(lambda y: jax.lax.collapse(y, 0, 2)[:time], ys)


def group_size(time: int) -> int:
    """Returns the group size for which the last group needs the least padding."""
    return min(range(MAX_GROUP, MIN_GROUP - 1, -1), key=lambda size: -time % size)


def in_groups(x: Array, count: int, size: int) -> Array:
    """Splits steps into groups `[count, size, ...]`, padded at the end.

    Padding repeats the last step, because the derivative of a cell may be infinite or
    NaN for inputs of zeros. Bools are padded with False, because all rows are finished
    at the added steps.
    """
    last = jnp.zeros_like(x[-1:]) if x.dtype == bool else x[-1:]
    filled = jnp.concatenate([x] + [last] * (count * size - x.shape[0]))
    return filled.reshape(count, size, *x.shape[1:])
