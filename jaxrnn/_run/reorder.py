"""Moves steps within rows: valid steps to the front and back, or all in reverse."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._base.math import concrete_or_none, expand_rows
from .._base.typing import Array, PyTree
from .masking import read_steps, select
from .run import Run


def lengths_of_mask(mask: Array | np.ndarray, axis: int) -> Array | np.ndarray | None:
    """Converts a mask to lengths `[batch]`; returns None if the mask may have gaps.

    Lengths are cheaper than a mask, because no step is moved. The function finds
    lengths if the values of the mask are known and have no gaps, or if the mask has a
    single step.

    Args:
        mask: Bool, true at valid steps.
        axis: The time axis of the mask.
    """
    if mask.shape[axis] == 1:
        return jnp.squeeze(mask, axis).astype(jnp.int32)
    known = concrete_or_none(mask)
    if known is None or (np.diff(known.astype(np.int8), axis=axis) > 0).any():
        return None
    return known.sum(axis)


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

        def of_leaf(states: Array, first: Array) -> Array:
            first = jnp.expand_dims(first, axis)
            return jnp.where(expand_rows(last >= 0, states), states, first)

        return jax.tree.map(of_leaf, states, first)


class Gaps(NamedTuple):
    """Converts the results of a run over valid steps to results for all steps.

    Attributes:
        moved: The positions to which valid steps were moved; None if no step was moved.
        pending: Bool, in the layout of the inputs, true at masked steps where a row has
            its reset state, because there was no valid step since its reset. None if
            there are no resets, or if the loop gets the mask and applies resets itself.
    """

    moved: ValidSteps | None = None
    pending: Array | None = None

    def outputs(self, outputs: PyTree, run: Run) -> PyTree:
        """Returns the outputs of all steps; masked steps get zeros."""
        if self.moved is None:
            return outputs
        return self.moved.to_places(outputs, run.steps.axis)

    def states(self, states: PyTree, last: PyTree, run: Run) -> PyTree:
        """Returns the state after each step of the rows.

        Args:
            states: The states after the steps of the run.
            last: The state after the last step of the run.
            run: The run.
        """
        axis = run.steps.axis
        if self.moved is None:
            states = run.steps.fill_finished(states, last)
        else:
            states = self.moved.states(states, run.state, axis)
        if self.pending is None:
            return states
        reset = jax.tree.map(lambda x: jnp.expand_dims(x, axis), run.reset_state)
        return select(~self.pending, states, reset)

    def last(self, last: PyTree, run: Run) -> PyTree:
        """Returns the state after the last step of the rows.

        `last` is the state after the last step of the run. A reset at a masked step
        after the last valid step is applied here.
        """
        pending = self.pending_at_end(run.steps.axis)
        return last if pending is None else select(~pending, last, run.reset_state)

    def pending_at_end(self, axis: int) -> Array | None:
        """Bool `[batch]`, true for rows that end with their reset state.

        Args:
            axis: The time axis of the inputs.
        """
        if self.pending is None:
            return None
        return jax.lax.index_in_dim(self.pending, -1, axis, keepdims=False)


def resets_of_valid_steps(resets: Array, mask: Array) -> tuple[Array, Array]:
    """Moves each reset at a masked step to the next valid step of the row.

    Args:
        resets: Bool `[batch, time]`, true where a row is reset before the step.
        mask: Bool `[batch, time]`, true at valid steps.

    Returns:
        Two bools `[batch, time]`. The first is true at valid steps before which the
        row is reset, at this step or at masked steps just before it. The second is true
        at masked steps where the row has its reset state, because the row had no valid
        step since its reset.
    """
    counts = jnp.cumsum(resets, 1, dtype=jnp.int32)
    seen = jax.lax.cummax(jnp.where(mask, counts, 0), axis=1)
    seen_before = jnp.pad(seen, ((0, 0), (1, 0)))[:, :-1]
    return mask & (counts > seen_before), counts > seen


def reverse_resets(
    resets: Array | None, lengths: Array | None, mask: Array | None, time_major: bool
) -> Array | None:
    """Returns the resets of a run over the reversed sequences.

    A span is the steps from one reset to the next. A reversed run enters a span at the
    span's last step, which is the step before the next reset. So the reversed run
    resets the row at this step.

    Args:
        resets: The resets of forward runs, bool `[time, batch]` or `[batch, time]`; if
            None, the result is None.
        lengths: The length of each row, `[batch]`, at most the number of steps. If
            None, all steps are valid.
        mask: Bool, of the same shape as `resets`, true at valid steps. If None, there
            is no mask.
        time_major: Whether time is the first axis.
    """
    if resets is None:
        return None
    axis = 0 if time_major else 1
    # Ignore a reset if no valid step precedes it, or if none follows it.
    if mask is not None:
        valid = mask.astype(jnp.int32)
        before = jax.lax.cumsum(valid, axis) - valid
        resets &= (before > 0) & (jax.lax.cumsum(valid, axis, reverse=True) > 0)
    ts = jnp.expand_dims(jnp.arange(resets.shape[axis], dtype=jnp.int32), 1 - axis)
    ends = resets.shape[axis] if lengths is None else jnp.expand_dims(lengths, axis)
    next_resets = jnp.roll(resets, -1, axis) & (ts + 1 < ends)
    return reverse_sequence(next_resets, lengths, time_major)


def reverse_sequence(tree: PyTree, lengths: Array | None, time_major: bool) -> PyTree:
    """Reverses each row's first `length` steps; later steps stay in place.

    Args:
        tree: A nest of `[time, batch, ...]` or `[batch, time, ...]`.
        lengths: The length of each row, `[batch]`, at most the number of steps. If
            None, all steps are valid.
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
