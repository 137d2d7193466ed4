"""What a length means, written once for every driver.

Row b is alive at step t while `t < length[b]`. A dead row puts out 0, keeps its state
and hands the cell zeros as inputs: padding may hold NaN, and a select alone would keep
that out of the values but not out of the gradients, where it becomes 0 * NaN.
"""

import jax
import jax.numpy as jnp

from ._typing import Array, PyTree


def steps_to_run(lengths: Array) -> Array:
    """How many steps TensorFlow's loop runs: to the longest row, and at least one."""
    return jnp.max(lengths, initial=1)


def rows(mask: Array, leaf: Array) -> Array:
    """The mask `[batch]` with axes of size 1 added to stand before `leaf`."""
    return mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim))


def zero_dead(alive: Array, tree: PyTree) -> PyTree:
    """The nest with the rows of all its leaves zeroed that are not alive.

    Leaves without axes and random keys are left as they are: they hold no padding.
    """

    def leaf_or_zero(leaf: Array) -> Array:
        leaf = jnp.asarray(leaf)
        if leaf.ndim == 0 or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            return leaf
        return jnp.where(rows(alive, leaf), leaf, jnp.zeros((), leaf.dtype))

    return jax.tree.map(leaf_or_zero, tree)


def advance(alive: Array, running: Array, new: PyTree, old: PyTree) -> PyTree:
    """The state after a step: `new` in rows that are alive, else `old`.

    A leaf without axes belongs to no row. It advances as long as the loop of TensorFlow
    runs, masked rows or not.
    """

    def select(new_leaf: Array, old_leaf: Array) -> Array:
        mask = rows(alive, old_leaf) if old_leaf.ndim else running
        return jnp.where(mask, new_leaf, old_leaf)

    return jax.tree.map(select, new, old)


def reverse_sequence(tree: PyTree, lengths: Array | None, time_major: bool) -> PyTree:
    """Each row's first `length` steps in reverse; what follows them stays in place.

    Args:
        tree: A nest of `[time, batch, ...]` or `[batch, time, ...]`.
        lengths: `[batch]`, at most the number of steps; None for all steps.
        time_major: Whether time is the first axis.

    Source: `tf.reverse_sequence`.
    """
    axis = 0 if time_major else 1
    if lengths is None:
        return jax.tree.map(lambda x: jnp.flip(x, axis), tree)

    def reverse_row(x: Array, length: Array) -> Array:
        t = jnp.arange(x.shape[0], dtype=length.dtype)
        # Indices are valid by construction; NaN padding must not come from a fill.
        return x.at[jnp.where(t < length, length - 1 - t, t)].get(
            mode="promise_in_bounds", unique_indices=True
        )

    batch_axis = 1 - axis
    return jax.tree.map(
        lambda x: jax.vmap(reverse_row, (batch_axis, 0), batch_axis)(x, lengths), tree
    )
