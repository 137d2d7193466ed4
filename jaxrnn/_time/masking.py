"""What a length means, written once for every driver.

Row b is alive at step t while `t < length[b]`. A dead row outputs 0 and keeps its
state. The cell is run on it all the same and the results are dropped; but a select
keeps NaN only out of the values, not out of the gradients, where it becomes 0 * NaN. So
in a dead row the cell is run on a stand-in: inputs and state of the first step of the
row, which are as finite as the row is, or zeros for a row of length 0.

A TensorArray in a state belongs to no row and is never masked, nor is a leaf without
axes; such states have a rule of their own in `step_inputs`, and `raw_rnn`, whose user's
function reads what a finished row computes, has `hide_nonfinite`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from .._base.errors import is_key
from .._base.math import concrete_or_none, expand_rows
from .._base.trees import is_tensor_array
from .._base.typing import Array, PyTree


def choose(mask: Array, tree: PyTree, other: PyTree) -> PyTree:
    """Leaves of `tree` where `mask` holds, else of `other`.

    Random keys are those of `tree`, and so are TensorArrays and leaves of lower rank
    than the mask: they hold no padding.

    Args:
        mask: bool, with the first axes of the leaves: `[batch]`, say, or a scalar.
        tree: A nest of arrays.
        other: Another, whose leaves may be scalars.
    """

    def select(leaf: Any, instead: Any) -> Any:
        if is_tensor_array(leaf):
            return leaf
        leaf = jnp.asarray(leaf)
        if leaf.ndim < mask.ndim or is_key(leaf):
            return leaf
        return jnp.where(expand_rows(mask, leaf), leaf, instead)

    return jax.tree.map(select, tree, other, is_leaf=is_tensor_array)


def zero_dead(alive: Array, tree: PyTree) -> PyTree:
    """The nest with zeros where its leaves are not `alive`, a mask as for `choose`."""

    def zero(leaf: Any) -> Any:
        if is_tensor_array(leaf) or is_key(leaf):
            return leaf
        return jnp.zeros((), jnp.asarray(leaf).dtype)

    return choose(alive, tree, jax.tree.map(zero, tree, is_leaf=is_tensor_array))


def step_inputs(
    alive: Array, running: Array, inputs: PyTree, state: PyTree, stand_in: PyTree
) -> tuple[PyTree, PyTree]:
    """The `(inputs, state)` on which the cell is run.

    Args:
        alive: bool `[batch]`, the rows that are alive.
        running: Whether TensorFlow's loop would still run, a bool scalar.
        inputs: One step of inputs, each leaf `[batch, ...]`.
        state: The state before the step, each leaf `[batch, ...]` or without axes.
        stand_in: `(inputs, state)` for dead rows, as `stand_in` returns them.
    """
    if is_of_rows(state):
        return choose(alive, (inputs, state), stand_in)
    # A leaf without axes, or a TensorArray, may be computed from all rows, dead ones
    # included, and changes as long as the loop runs: so dead rows have inputs of zeros
    # and the states that they kept. After that the first step is repeated, dropped.
    inputs = choose(running, zero_dead(alive, inputs), stand_in[0])
    return inputs, advance(running, running, state, stand_in[1])


def is_of_rows(state: PyTree) -> bool:
    """Whether each leaf has rows: none is without axes, and none a TensorArray."""
    leaves = jax.tree.leaves(state, is_leaf=is_tensor_array)
    return all(not is_tensor_array(leaf) and leaf.ndim for leaf in leaves)


def first_inputs(xs: PyTree, axis: int) -> PyTree:
    """The first step of `xs`; zeros if there is none, as a loop is traced all the same.

    Args:
        xs: All inputs, each leaf `[batch, time, ...]`, time along `axis`.
        axis: Their time axis, 0 or 1.
    """

    def first(x: Array) -> Array:
        if x.shape[axis]:
            return jax.lax.index_in_dim(x, 0, axis, keepdims=False)
        return jnp.zeros(x.shape[:axis] + x.shape[axis + 1 :], x.dtype)

    return jax.tree.map(first, xs)


def stand_in(lengths: Array, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
    """The `(inputs, state)` of dead rows: each row's first step, zeros if it has none.

    Args:
        lengths: `[batch]`.
        inputs: The first step of inputs, as `first_inputs` returns it.
        state: The initial state, each leaf `[batch, ...]`.
    """
    return zero_dead(lengths > 0, jax.lax.stop_gradient((inputs, state)))


def advance(alive: Array, running: Array | bool, new: PyTree, old: PyTree) -> PyTree:
    """The state after a step: `new` in rows that are alive, else `old`.

    A leaf without axes, or a TensorArray, belongs to no row. It advances as long as
    TensorFlow's loop runs, whichever rows are alive.
    """

    def select(new_leaf: Any, old_leaf: Any) -> Any:
        if is_tensor_array(new_leaf):
            known = concrete_or_none(running)
            if known is not None:  # The new one may have grown: no select fits.
                return new_leaf if known else old_leaf
            pick = lambda n, o: jnp.where(running, n, o)
            return jax.tree.map(pick, new_leaf, old_leaf)
        mask = expand_rows(alive, old_leaf) if old_leaf.ndim else running
        return jnp.where(mask, new_leaf, old_leaf)

    return jax.tree.map(select, new, old, is_leaf=is_tensor_array)


def hide_nonfinite(finished: Array, inputs: PyTree) -> PyTree:
    """The inputs with 0 for NaN and infinity in rows that are `finished`, `[batch]`.

    A user's loop function reads what the cell computes in a finished row, so finite
    inputs must stay as they are.
    """

    def hide(leaf: Array) -> Array:
        if not (jnp.issubdtype(leaf.dtype, jnp.inexact) and leaf.ndim >= finished.ndim):
            return leaf
        padding = expand_rows(finished, leaf) & ~jnp.isfinite(leaf)
        return jnp.where(padding, jnp.zeros((), leaf.dtype), leaf)

    return jax.tree.map(hide, inputs)


def reverse_resets(
    resets: Array | None, lengths: Array | None, mask: Array | None, time_major: bool
) -> Array | None:
    """Where a run over the reversed sequences is reset.

    It enters a segment at the segment's last step, the one before the next reset.

    Args:
        resets: Bool `[time, batch]` or `[batch, time]`, where forward runs are reset;
            None, which is returned, for nowhere.
        lengths: `[batch]`, at most the number of steps; None for all steps.
        mask: Bool, as `resets`, the steps that count; None for all before the lengths.
        time_major: Whether time is the first axis.
    """
    if resets is None:
        return None
    axis = 0 if time_major else 1
    if mask is not None:  # After the last step that counts it is as past a length.
        resets &= jax.lax.cumsum(mask.astype(jnp.int32), axis, reverse=True) > 0
    ts = jnp.expand_dims(jnp.arange(resets.shape[axis], dtype=jnp.int32), 1 - axis)
    ends = resets.shape[axis] if lengths is None else jnp.expand_dims(lengths, axis)
    next_resets = jnp.roll(resets, -1, axis) & (ts + 1 < ends)
    return reverse_sequence(next_resets, lengths, time_major)


def reverse_sequence(tree: PyTree, lengths: Array | None, time_major: bool) -> PyTree:
    """Each row's first `length` steps in reverse; the steps after them stay in place.

    Args:
        tree: A nest of `[time, batch, ...]` or `[batch, time, ...]`.
        lengths: `[batch]`, at most the number of steps; None for all steps.
        time_major: Whether time is the first axis.

    Source: `tf.reverse_sequence`.
    """
    axis = 0 if time_major else 1
    if lengths is None:
        return jax.tree.map(lambda x: jnp.flip(x, axis), tree)
    leaves = jax.tree.leaves(tree)
    if not leaves:
        return tree
    ts = jnp.arange(leaves[0].shape[axis], dtype=lengths.dtype)
    t, length = ts[None, :], lengths[:, None]
    return read_steps(tree, jnp.where(t < length, length - 1 - t, t), axis)


def read_steps(tree: PyTree, sources: Array, axis: int, unique: bool = True) -> PyTree:
    """Other steps of each row: step t of row b is step `sources[b, t]` of the nest.

    Args:
        tree: A nest of `[time, batch, ...]` or `[batch, time, ...]`.
        sources: Integers `[batch, time]`, each the number of a step.
        axis: The time axis of the nest, 0 or 1.
        unique: Whether no step is read twice in a row, so that derivatives add nothing.
    """

    def read_row(x: Array, source: Array) -> Array:
        # NaN padding must not come from a fill.
        return x.at[source].get(mode="promise_in_bounds", unique_indices=unique)

    read = jax.vmap(read_row, (1 - axis, 0), 1 - axis)
    return jax.tree.map(lambda x: read(x, sources), tree)
