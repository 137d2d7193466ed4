"""`Steps`, the time axis of a run: masks padding, resets rows, and keeps old states.

Row b is finished at step t if `t >= length[b]`. A finished row outputs zeros and keeps
its state. The cell still runs on the finished row, but the results are dropped. A
select alone would keep NaN out of the values, but not out of the gradients, because
0 * NaN is NaN. In a finished row, the cell therefore runs on other values, the
*stand-in*: the inputs and state of one valid step of the row (see `Run.with_stand_in`),
which are finite if all values of the row are finite. If the row has length 0, the
stand-in is zeros.

All rows share the TensorArrays and scalar leaves of a state, so the length of a row
does not apply to these leaves. These leaves may depend on finished rows, and so may the
results of a cell whose rows interact; see `Steps.step_inputs`. In `raw_rnn`, the user's
function reads the results of finished rows, so `raw_rnn` uses `hide_nonfinite` instead.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.errors import is_key
from .._base.math import axis_size, concrete_or_none, expand_rows, where
from .._base.sharding import as_rows_of
from .._base.trees import is_tensor_array, with_structure
from .._base.typing import Array, AxisSize, PyTree

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps:
    """The time axis of a batch of sequences.

    A loop over single steps masks each step with `run_step`. A loop that computes many
    steps at once masks whole sequences: the inputs with `fill_finished`, the terms that
    steps add to the state with `select_unfinished`, and the outputs with
    `zero_finished`.

    Attributes:
        lengths: int32 `[batch]`, the number of steps of each row up to its last valid
            step; None if all steps are valid. With a mask, steps up to a later reset
            count too. XLA's loop may repeat each length: `[batch, size]`.
        steps_to_run: The number of steps that TensorFlow's loop would run, an int32
            scalar. For a whole run, this number is the maximum length, at least
            `Given.least_steps`; for a part, the number may be 0. None if there are no
            lengths.
        stand_in: Finite `(inputs, state)` of one step, on which the cell runs in
            finished rows. None if there are no lengths. If the run is not
            differentiated, XLA's loop and the scan of a small matrix memory use the
            padding instead of the stand-in, and drop the results.
        mask: Bool, in the layout of the inputs, false at masked steps before the end of
            a row; None if there are no such steps. Only the scan of a cell whose rows
            interact gets a mask: for other cells, the valid steps are moved to the
            front of each row, which leaves no gaps.
        resets: Bool, in the layout of the inputs, true where a row gets its reset
            state before the step; None if there are no resets. The reset state is a
            field of `Run`, because a loop differentiates it, but not `Steps`.
        resets_to_zeros: Whether the reset states are known to be zeros.
        offset: The index of the first step in the whole run, an int32 scalar; None
            for 0.
        time: The number of steps, an int, or symbolic under `jax.export`.
        axis: The time axis of inputs and outputs, 0 or 1.
        returns_states: Whether a run returns a pair `(output, new_state)` for every
            step instead of only the output. New states may be arbitrary in finished
            rows; `run_cell` replaces these states.
        rows_interact: See `RNNCell.rows_interact`.
    """

    lengths: Any = None
    steps_to_run: Any = None
    stand_in: PyTree = None
    mask: Array | None = None
    resets: Any = None
    offset: Array | None = None
    time: AxisSize = dataclasses.field(metadata=_STATIC)
    axis: int = dataclasses.field(metadata=_STATIC)
    resets_to_zeros: bool = dataclasses.field(metadata=_STATIC, default=False)
    returns_states: bool = dataclasses.field(metadata=_STATIC, default=False)
    rows_interact: bool = dataclasses.field(metadata=_STATIC, default=False)

    def prefix_tree(
        self, *, rows: object, sequences: object, shared: object
    ) -> "Steps":
        """Builds a prefix tree, for `in_specs` or `vmap`: one value for each array.

        Args:
            rows: The value for arrays whose first axis is the rows.
            sequences: The value for arrays in the layout of the inputs.
            shared: The value for scalars.
        """
        return dataclasses.replace(
            self,
            lengths=rows,
            steps_to_run=shared,
            stand_in=rows,
            mask=sequences,
            resets=sequences,
            offset=shared,
        )

    def _map_sequences(self, fn: Callable[[Array], Array]) -> "Steps":
        """Applies `fn` to the arrays that have a time axis."""
        mask, resets = jax.tree.map(fn, (self.mask, self.resets))
        return dataclasses.replace(self, mask=mask, resets=resets)

    def is_valid(self, t: Array) -> Array:
        """Bool, in the shape of `lengths`: false for finished or masked rows at `t`."""
        valid = t < self.lengths
        return valid if self.mask is None else valid & self.read(self.mask, t)

    def read(self, tree: PyTree, t: Array) -> PyTree:
        """Reads step `t` of each leaf of `tree`; returns leaves `[batch, ...]`."""
        options = {"keepdims": False, "allow_negative_indices": False}
        at = functools.partial(jax.lax.dynamic_index_in_dim, **options)
        return jax.tree.map(lambda x: at(x, t, self.axis), tree)

    def reset(self, t: Array, state: PyTree, reset_state: PyTree) -> PyTree:
        """Returns `state` or, in rows that are reset at step `t`, `reset_state`.

        A loop that runs a fixed number of steps at once may run steps after the end of
        the sequences. At these steps, no row is reset.
        """
        if self.resets is None:
            return state
        is_reset = self.read(self.resets, t) & (t < axis_size(self.time))
        return select(~is_reset, state, reset_state)

    def step_inputs(
        self, t: Array, inputs: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Returns the `(inputs, state)` on which the cell runs at step t.

        Args:
            t: The step, an int32 scalar.
            inputs: Step t of the inputs, each leaf `[batch, ...]`.
            state: The state before the step and after its resets, each leaf
                `[batch, ...]` or a scalar.
        """
        if self.stand_in is None:
            return inputs, state
        valid, (inputs_in, state_in) = self.is_valid(t), self.stand_in
        if not self.rows_interact and is_of_rows(state):
            return select(valid, (inputs, state), self.stand_in)
        # The rows of a cell may interact, and a scalar leaf or a TensorArray may depend
        # on all rows. While TensorFlow's loop would run, finished rows therefore have
        # the states that they keep, as in TensorFlow, and zeros as inputs. At later
        # steps, the cell runs on the stand-in, and the results are dropped.
        running = t < self.steps_to_run
        inputs = select(running, zero_unless(valid, inputs), inputs_in)
        return inputs, advance(running, running, state, state_in)

    def run_step(
        self,
        step: Callable[[PyTree, PyTree], tuple],
        t: Array,
        inputs: PyTree,
        state: PyTree,
        reset_state: PyTree,
    ) -> tuple[PyTree, PyTree, PyTree]:
        """Runs step t of a cell: resets rows, calls `step`, and masks its results.

        Args:
            step: `step(inputs, state)` returns the output, the new state, and any other
                results that the caller needs.
            t: The step, an int32 scalar.
            inputs: Step t of the inputs, each leaf `[batch, ...]`.
            state: The state before the step, each leaf `[batch, ...]` or a scalar.
            reset_state: The state to which rows are reset; see `Run`.

        Returns:
            `(new_state, output, others)`. With `returns_states`, the output is a pair
            `(output, new_state)`. `others` contains the other results of `step`,
            followed by the state on which `step` was called.
        """
        state = self.reset(t, state, reset_state)
        inputs, before = self.step_inputs(t, inputs, state)
        output, after, *others = step(inputs, before)
        state, output = self.mask_step(t, state, after, output)
        output = (output, state) if self.returns_states else output
        return state, output, (*others, before)

    def mask_step(
        self, t: Array, state: PyTree, new_state: PyTree, output: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Returns `(new_state, output)` of step t, masked in finished rows.

        A finished row keeps its `state` and outputs zeros.

        Args:
            t: The step, an int32 scalar.
            state: The state before the step and after its resets, each leaf
                `[batch, ...]` or a scalar.
            new_state: The new state from the cell, each leaf `[batch, ...]` or a
                scalar.
            output: The output from the cell.
        """
        if self.lengths is None:
            return with_structure(state, new_state), output
        valid = self.is_valid(t)
        new_state = advance(valid, t < self.steps_to_run, new_state, state)
        return new_state, zero_unless(valid, output)

    def index_in_run(self, t: Array) -> Array:
        """The index of step `t` in the whole run, which selects the random key."""
        return t if self.offset is None else self.offset + t

    def unfinished_steps(self) -> Array | None:
        """Bool `[batch, time]`, false where a row is finished; None without lengths.

        Time is along `axis`, as in the inputs, so the shape may also be
        `[time, batch]`.
        """
        if self.lengths is None:
            return None
        ts = jnp.expand_dims(jnp.arange(self.time, dtype=jnp.int32), 1 - self.axis)
        return ts < jnp.expand_dims(self.lengths, self.axis)

    def select_unfinished(self, xs: PyTree, others: PyTree) -> PyTree:
        """Takes `others` instead of `xs` at steps where a row is finished."""
        unfinished = self.unfinished_steps()
        return xs if unfinished is None else select(unfinished, xs, others)

    def fill_finished(self, xs: PyTree, rows: PyTree = None) -> PyTree:
        """Replaces steps of `xs` where a row is finished by `rows`, `[batch, ...]`.

        By default, `xs` are inputs, and `rows` are the inputs of the stand-in.
        """
        if self.lengths is None:
            return xs
        rows = self.stand_in[0] if rows is None else rows
        rows = jax.tree.map(lambda x: jnp.expand_dims(x, self.axis), rows)
        return self.select_unfinished(xs, rows)

    def zero_finished(self, tree: PyTree) -> PyTree:
        """Replaces the leaves of `tree` by zeros at steps where a row is finished."""
        unfinished = self.unfinished_steps()
        return tree if unfinished is None else zero_unless(unfinished, tree)

    def time_first(self) -> "Steps":
        """Returns a copy of the steps for sequences `[time, batch, ...]`."""
        return dataclasses.replace(self, axis=0)._map_sequences(self.to_time_major)

    def map_outputs(self, fn: Callable[[PyTree], PyTree], outputs: PyTree) -> PyTree:
        """Applies `fn` to the `outputs` of a run, but not to new states."""
        if not self.returns_states:
            return fn(outputs)
        outputs, new_states = outputs
        return fn(outputs), new_states

    def to_time_major(self, tree: PyTree) -> PyTree:
        """Converts `tree` from the layout of the inputs to `[time, batch, ...]`."""
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, self.axis), tree)

    def to_batch_major(self, tree: PyTree) -> PyTree:
        """Converts `tree` from the layout of the inputs to `[batch, time, ...]`."""
        return jax.tree.map(lambda x: jnp.swapaxes(x, 1, self.axis), tree)

    # A swap of two axes is its own inverse.
    from_time_major, from_batch_major = to_time_major, to_batch_major

    def slice(self, start: Array, size: int) -> "Steps":
        """Returns the `size` steps that begin at `start`, which must all exist."""
        steps = dataclasses.replace(self, offset=self.index_in_run(start), time=size)
        steps = steps._map_sequences(
            lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, self.axis)
        )
        if self.lengths is None:
            return steps
        lengths = jnp.clip(self.lengths - start, 0, size)
        steps_to_run = jnp.clip(self.steps_to_run - start, 0, size)
        return dataclasses.replace(steps, lengths=lengths, steps_to_run=steps_to_run)


def select(mask: Array, tree: PyTree, other: PyTree) -> PyTree:
    """Selects values from `tree` where `mask` is true, otherwise from `other`.

    Some leaves are always taken from `tree`: TensorArrays and leaves of lower rank than
    the mask, because they belong to no row, and random keys in whose place `other` has
    numbers, such as zeros.

    Args:
        mask: Bool, a scalar or an array whose shape is the first axes of the leaves,
            for example `[batch]`.
        tree: A nest of arrays.
        other: A nest of the same structure, whose leaves may be scalars.
    """

    def of_leaf(leaf: Array, instead: Array) -> Array:
        if is_tensor_array(leaf):
            return leaf
        leaf = jnp.asarray(leaf)
        if leaf.ndim < mask.ndim or (is_key(leaf) and not is_key(instead)):
            return leaf
        return jnp.where(expand_rows(mask, leaf), leaf, instead)

    return jax.tree.map(of_leaf, tree, other, is_leaf=is_tensor_array)


def zero_unless(mask: Array, tree: PyTree) -> PyTree:
    """Replaces values with zeros where the mask is false; see `select`."""

    def zero(leaf: Array) -> Array:
        if is_tensor_array(leaf):
            return leaf
        dtype = bool if is_key(leaf) else jnp.asarray(leaf).dtype
        return jnp.zeros((), dtype)

    return select(mask, tree, jax.tree.map(zero, tree, is_leaf=is_tensor_array))


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


def last_inputs(xs: PyTree, lengths: Array, axis: int) -> PyTree:
    """Returns the last valid step of each row, or the first step of an empty row.

    Args:
        xs: All inputs, each leaf `[batch, time, ...]` or `[time, batch, ...]`, with at
            least one step.
        lengths: `[batch]`, the number of valid steps; more than all steps counts as all
            steps.
        axis: The time axis of the inputs, 0 or 1.
    """
    time = jax.tree.leaves(xs)[0].shape[axis]
    last = jnp.clip(lengths - 1, 0, time - 1)[:, None]
    steps = read_steps(xs, last, axis, unique=False)
    return jax.tree.map(lambda x: jnp.squeeze(x, axis), steps)


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
        # All sources are in range. In the default mode, JAX would add a check that
        # fills steps out of range with NaN.
        return x.at[source].get(mode="promise_in_bounds", unique_indices=unique)

    def read(x: Array) -> Array:
        # Sources come from the caller's lengths or mask, whose sharding may differ from
        # the sharding of `x`.
        rows = as_rows_of(x, sources, 1 - axis)
        return jax.vmap(read_row, (1 - axis, 0), 1 - axis)(x, rows)

    return jax.tree.map(read, tree)


def advance(valid: Array, running: Array | bool, new: PyTree, old: PyTree) -> PyTree:
    """Returns the state after a step: `old` in finished rows, otherwise `new`.

    Scalar leaves and TensorArrays are shared by all rows. These leaves are updated
    while TensorFlow's loop would run, even if some rows are finished.
    """

    def select(new_leaf: Array, old_leaf: Array) -> Array:
        if is_tensor_array(new_leaf):
            known = concrete_or_none(running)
            if known is not None:  # `jnp.where` fails if the TensorArray has grown.
                return new_leaf if known else old_leaf
            return where(running, new_leaf, old_leaf)
        mask = expand_rows(valid, old_leaf) if old_leaf.ndim else running
        return jnp.where(mask, new_leaf, old_leaf)

    return jax.tree.map(select, new, old, is_leaf=is_tensor_array)


def hide_nonfinite(finished: Array, inputs: PyTree) -> PyTree:
    """Replaces NaN and infinity by 0 in finished rows.

    Finite inputs do not change, because a user's loop function reads the results of
    finished rows. `finished` is bool `[batch, ...]`, with equal entries in each row.
    """
    if finished.ndim > 1:
        finished = jnp.any(finished, axis=tuple(range(1, finished.ndim)))

    def hide(leaf: Array) -> Array:
        if not (jnp.issubdtype(leaf.dtype, jnp.inexact) and leaf.ndim >= finished.ndim):
            return leaf
        padding = expand_rows(finished, leaf) & ~jnp.isfinite(leaf)
        return jnp.where(padding, jnp.zeros((), leaf.dtype), leaf)

    return jax.tree.map(hide, inputs)
