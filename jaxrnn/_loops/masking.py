"""The effect of sequence lengths and masks on a step, in one place.

Row b is finished at step t if `t >= length[b]`; otherwise, it is alive. A finished row
outputs 0 and keeps its state. The cell still runs on the finished row, but the results
are dropped. A select alone would keep NaN out of the values, but not out of the
gradients, because 0 * NaN is NaN. In a finished row, the cell therefore runs on other
values (the stand-in): the inputs and state of the row's first step, which are finite if
all values of the row are finite, or zeros if the row has length 0.

All rows share the TensorArrays and scalar leaves of a state, so the length of a row
does not apply to these leaves. These leaves, and the results of a cell whose rows
interact, may depend on finished rows; see `inputs_of_all_rows`. In `raw_rnn`, the
user's function reads the results of finished rows, so `raw_rnn` uses `hide_nonfinite`
instead.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._base.errors import is_key
from .._base.math import concrete_or_none, expand_rows
from .._base.sharding import as_rows_of
from .._base.trees import is_tensor_array
from .._base.typing import Array, PyTree


def select(mask: Array, tree: PyTree, other: PyTree) -> PyTree:
    """Selects values from `tree` where `mask` is true, otherwise from `other`.

    TensorArrays and leaves of lower rank than the mask are always taken from `tree`,
    because these leaves belong to no row. So are random keys for which `other` holds
    numbers, such as zeros, because keys hold no padding.

    Args:
        mask: Bool, a scalar or an array whose shape is the first axes of the leaves,
            for example `[batch]`.
        tree: A nest of arrays.
        other: A nest of the same structure, whose leaves may be scalars.
    """

    def of_leaf(leaf: Any, instead: Any) -> Any:
        if is_tensor_array(leaf):
            return leaf
        leaf = jnp.asarray(leaf)
        if leaf.ndim < mask.ndim or (is_key(leaf) and not is_key(instead)):
            return leaf
        return jnp.where(expand_rows(mask, leaf), leaf, instead)

    return jax.tree.map(of_leaf, tree, other, is_leaf=is_tensor_array)


def zero_unless(mask: Array, tree: PyTree) -> PyTree:
    """Replaces values with zeros where the mask is false; see `select`."""

    def zero(leaf: Any) -> Any:
        if is_tensor_array(leaf):
            return leaf
        dtype = bool if is_key(leaf) else jnp.asarray(leaf).dtype
        return jnp.zeros((), dtype)

    return select(mask, tree, jax.tree.map(zero, tree, is_leaf=is_tensor_array))


def inputs_of_all_rows(
    alive: Array, running: Array, inputs: PyTree, state: PyTree, stand_in: PyTree
) -> tuple[PyTree, PyTree]:
    """Returns the `(inputs, state)` for a step of a cell that may read other rows.

    The rows of a cell may interact, and a scalar leaf or a TensorArray may depend on
    all rows. While TensorFlow's loop would run, finished rows therefore have the states
    that they keep, as in TensorFlow, and zeros as inputs. At later steps, the cell runs
    on `stand_in`, and the results are dropped.

    Args:
        alive: Bool `[batch]`, true for rows that are not finished.
        running: Whether TensorFlow's loop would still run, a bool scalar.
        inputs: One step of inputs, each leaf `[batch, ...]`.
        state: The state before the step, each leaf `[batch, ...]` or a scalar.
        stand_in: `(inputs, state)` for finished rows, from `stand_in`.
    """
    inputs = select(running, zero_unless(alive, inputs), stand_in[0])
    return inputs, advance(running, running, state, stand_in[1])


def is_of_rows(state: PyTree) -> bool:
    """Whether every leaf has a batch axis; scalars and TensorArrays have none."""
    leaves = jax.tree.leaves(state, is_leaf=is_tensor_array)
    return all(not is_tensor_array(leaf) and leaf.ndim for leaf in leaves)


def first_inputs(xs: PyTree, axis: int) -> PyTree:
    """Returns the first step of `xs`; zeros if `xs` has no steps.

    JAX traces the body of a loop even if the loop runs no steps.

    Args:
        xs: All inputs, each leaf `[batch, time, ...]` or `[time, batch, ...]`.
        axis: The time axis of the inputs, 0 or 1.
    """

    def first(x: Array) -> Array:
        if x.shape[axis]:
            return jax.lax.index_in_dim(x, 0, axis, keepdims=False)
        return jnp.zeros(x.shape[:axis] + x.shape[axis + 1 :], x.dtype)

    return jax.tree.map(first, xs)


def stand_in(alive: Array, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
    """Returns `(inputs, state)` for finished rows: the row's first step, or zeros.

    Args:
        alive: Bool `[batch]`, true for rows whose first step is valid.
        inputs: The first step of inputs, from `first_inputs`.
        state: The initial state, each leaf `[batch, ...]`.
    """
    return zero_unless(alive, jax.lax.stop_gradient((inputs, state)))


def advance(alive: Array, running: Array | bool, new: PyTree, old: PyTree) -> PyTree:
    """Returns the state after a step: `old` in finished rows, otherwise `new`.

    Scalar leaves and TensorArrays are shared by all rows. These leaves are updated
    while TensorFlow's loop would run, even if some rows are finished.
    """

    def select(new_leaf: Any, old_leaf: Any) -> Any:
        if is_tensor_array(new_leaf):
            known = concrete_or_none(running)
            if known is not None:  # `jnp.where` fails if the TensorArray has grown.
                return new_leaf if known else old_leaf
            return jax.tree.map(
                lambda new, old: jnp.where(running, new, old), new_leaf, old_leaf
            )
        mask = expand_rows(alive, old_leaf) if old_leaf.ndim else running
        return jnp.where(mask, new_leaf, old_leaf)

    return jax.tree.map(select, new, old, is_leaf=is_tensor_array)


def hide_nonfinite(finished: Array, inputs: PyTree) -> PyTree:
    """Replaces NaN and infinity by 0 in rows that are `finished`, `[batch]`.

    Finite inputs do not change, because a user's loop function reads the results of
    finished rows.
    """

    def hide(leaf: Array) -> Array:
        if not (jnp.issubdtype(leaf.dtype, jnp.inexact) and leaf.ndim >= finished.ndim):
            return leaf
        padding = expand_rows(finished, leaf) & ~jnp.isfinite(leaf)
        return jnp.where(padding, jnp.zeros((), leaf.dtype), leaf)

    return jax.tree.map(hide, inputs)


def delay_resets(where: Array, mask: Array) -> Array:
    """Moves a reset at a masked step to the row's next valid step.

    Args:
        where: Bool `[batch, time]`, true where a row is reset before the step.
        mask: Bool `[batch, time]`, true at valid steps.
    """
    counts = jnp.cumsum(where, 1, dtype=jnp.int32)
    seen = jax.lax.cummax(jnp.where(mask, counts, 0), axis=1)
    seen_before = jnp.pad(seen, ((0, 0), (1, 0)))[:, :-1]
    return mask & (counts > seen_before)


def reverse_resets(
    resets: Array | None, lengths: Array | None, mask: Array | None, time_major: bool
) -> Array | None:
    """Returns the resets of a run over the reversed sequences.

    An episode consists of the steps from one reset to the next. A reversed run enters
    an episode at the episode's last step, which is the step before the next reset.

    Args:
        resets: The resets of forward runs, bool `[time, batch]` or `[batch, time]`; if
            None, the result is None.
        lengths: `[batch]`, at most the number of steps; None for all steps.
        mask: Bool, of the same shape as `resets`, true at valid steps; None for no
            mask.
        time_major: Whether time is the first axis.
    """
    if resets is None:
        return None
    axis = 0 if time_major else 1
    if mask is not None:  # Ignore resets after the last valid step.
        resets &= jax.lax.cumsum(mask.astype(jnp.int32), axis, reverse=True) > 0
    ts = jnp.expand_dims(jnp.arange(resets.shape[axis], dtype=jnp.int32), 1 - axis)
    ends = resets.shape[axis] if lengths is None else jnp.expand_dims(lengths, axis)
    next_resets = jnp.roll(resets, -1, axis) & (ts + 1 < ends)
    return reverse_sequence(next_resets, lengths, time_major)


def reverse_sequence(tree: PyTree, lengths: Array | None, time_major: bool) -> PyTree:
    """Reverses each row's first `length` steps; later steps stay in place.

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
    t = jnp.arange(leaves[0].shape[axis], dtype=lengths.dtype)[None, :]
    length = lengths[:, None]
    return read_steps(tree, jnp.where(t < length, length - 1 - t, t), axis)


def read_steps(tree: PyTree, sources: Array, axis: int, unique: bool = True) -> PyTree:
    """Reorders steps: step t of row b of the result is step `sources[b, t]` of `tree`.

    Args:
        tree: A nest of `[time, batch, ...]` or `[batch, time, ...]`.
        sources: Integers `[batch, time]`, the indices of steps.
        axis: The time axis of the nest, 0 or 1.
        unique: Whether each row reads each step at most once, so that derivatives need
            no sums.
    """

    def read_row(x: Array, source: Array) -> Array:
        # All sources are in range. In the default mode, JAX would add a check, to fill
        # steps that are out of range with NaN.
        return x.at[source].get(mode="promise_in_bounds", unique_indices=unique)

    def read(x: Array) -> Array:
        # Sources come from the caller's lengths or mask, whose sharding may differ from
        # the sharding of `x`.
        rows = as_rows_of(x, sources, 1 - axis)
        return jax.vmap(read_row, (1 - axis, 0), 1 - axis)(x, rows)

    return jax.tree.map(read, tree)


class ValidSteps(NamedTuple):
    """The positions of the valid steps of a mask, which may have gaps.

    The valid steps are moved to the front of each row, so that lengths describe these
    steps. Every loop supports lengths, and no loop needs to compute the masked steps.
    Below, *the run* consists of the moved steps; *the row* is the sequence that the
    user passed.

    Attributes:
        lengths: int32 `[batch]`, the number of valid steps of each row.
        sources: int32 `[batch, time]`, the index in the row of step t of the run. The
            masked steps follow the valid steps, in order.
        places: int32 `[batch, time]`, the inverse of `sources`.
        last: int32 `[batch, time]`, the index in the run of the last valid step up to
            step t of the row; -1 before the first valid step.
    """

    lengths: Array
    sources: Array
    places: Array
    last: Array

    @classmethod
    def of(cls, mask: Array) -> "ValidSteps":
        """Returns the positions for a mask, bool `[batch, time]`."""
        last = jnp.cumsum(mask, 1, dtype=jnp.int32) - 1
        lengths = jnp.sum(mask, 1, dtype=jnp.int32)
        masked = lengths[:, None] + jnp.cumsum(~mask, 1, dtype=jnp.int32) - 1
        places = jnp.where(mask, last, masked)
        ts = jnp.arange(mask.shape[1], dtype=jnp.int32)

        def inverse(places: Array) -> Array:
            at = jnp.zeros_like(places).at[places]
            return at.set(ts, mode="promise_in_bounds", unique_indices=True)

        return cls(lengths, jax.vmap(inverse)(places), places, last)

    def to_front(self, tree: PyTree, axis: int) -> PyTree:
        """Reorders sequences from the order of the row to the order of the run."""
        return read_steps(tree, self.sources, axis)

    def to_places(self, outputs: PyTree, axis: int) -> PyTree:
        """Moves the run's outputs to their steps in the row; masked steps get zeros."""
        return read_steps(outputs, self.places, axis)

    def states(self, states: PyTree, first: PyTree, axis: int) -> PyTree:
        """Returns the state after each step of the row; masked steps keep the state.

        Args:
            states: The states after the steps of the run.
            first: The state before the first step, each leaf `[batch, ...]`.
            axis: The time axis of `states`.
        """
        last = jnp.swapaxes(self.last, 1, axis)
        states = read_steps(states, jnp.maximum(self.last, 0), axis, unique=False)

        def select(states: Array, first: Array) -> Array:
            first = jnp.expand_dims(first, axis)
            return jnp.where(expand_rows(last >= 0, states), states, first)

        return jax.tree.map(select, states, first)
