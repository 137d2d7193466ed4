"""The time axis of a batch of sequences: which steps there are, which rows are alive.

All that a driver knows of time is one value, `Steps`. A loop reads step t of the
inputs, runs the cell on `steps.step_inputs(...)` and masks its results by
`steps.mask_step(...)`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.sharding import read_at
from .._base.trees import with_structure
from .._base.typing import Array, PyTree
from . import masking


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Restarts:
    """The steps before which rows take another state, and these states.

    A *restart* is one of two things:

    * A *reset*: the row goes back to a state that the user gives, one for each row
      (`resets` of `dynamic_rnn`). Row b takes state b.
    * The *first step* of a sequence in a packed row (`packed_rnn`), which holds several
      sequences: the row takes the initial state of the sequence.

    Attributes:
        state_numbers: int32 `[batch, time]`, or `[time, batch]`, with the axes of the
            inputs: the number of the state that a row takes before a step, which is
            that of the row or of the sequence; -1 where the row keeps its own.
        states: These states, each leaf `[batch, ...]` or `[sequences, ...]`; None where
            they are passed separately, as arguments to differentiate with respect to.
        are_resets: Whether all are resets, so that nothing is read by number; otherwise
            all are first steps.
    """

    state_numbers: Any
    states: Any
    are_resets: bool = dataclasses.field(default=False, metadata={"static": True})

    def restart(self, numbers: Array, state: PyTree) -> PyTree:
        """`state`, with a restart state in each row that restarts.

        Args:
            numbers: int32 `[batch]`, one step of `state_numbers`.
            state: The state before that step, each leaf `[batch, ...]`; leaves without
                axes belong to no row, and stay as they are.
        """
        states = self.states if self.are_resets else read_rows(self.states, numbers)
        return masking.choose(numbers < 0, state, states)

    def states_at_steps(self, axis: int) -> PyTree:
        """Those of all steps, time along `axis`, or of size 1 if it is always the same.

        Arbitrary where no row restarts.
        """
        if self.are_resets:
            return jax.tree.map(lambda x: jnp.expand_dims(x, axis), self.states)
        return read_rows(self.states, self.state_numbers)


def read_rows(tree: PyTree, indices: Array) -> PyTree:
    """Rows `indices` of each leaf `[rows, ...]`; an arbitrary row for -1."""

    def read(leaf: Any) -> Any:
        if not leaf.shape[0]:
            return jnp.zeros((*indices.shape, *leaf.shape[1:]), leaf.dtype)
        return read_at(leaf, jnp.maximum(indices, 0))

    return jax.tree.map(read, tree)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Steps:
    """The time axis of a batch of sequences.

    Attributes:
        lengths: int32 `[batch]`, the number of steps of each row; None for all steps.
        longest: The number of steps that TensorFlow's loop runs of these, an int32
            scalar: of a whole run the greatest length, at least 1; of a segment
            possibly 0. None without lengths.
        stand_in: `(inputs, state)` of one step, finite, on which the cell is run in
            rows that are not alive. None without lengths, and in a run that is not
            differentiated: there the cell runs on padding, and its results are dropped.
        restarts: Where rows take another state, as at resets; None for nowhere.
        offset: The number of steps of the whole run before these, an int32 scalar; step
            t draws from the random key of number `offset + t`.
        time: The number of steps, an int, or symbolic under `jax.export`.
        axis: The time axis of inputs and outputs, 0 or 1.
        returns_states: Whether the outputs of a run are pairs `(output, new_state)` of
            all steps. New states are arbitrary where a row is not alive; `keep_last`
            replaces them.
    """

    lengths: Any = None
    longest: Any = None
    stand_in: Any = None
    restarts: Restarts | None = None
    offset: Any = 0
    time: Any = dataclasses.field(metadata={"static": True}, kw_only=True)
    axis: int = dataclasses.field(metadata={"static": True}, kw_only=True)
    returns_states: bool = dataclasses.field(
        default=False, metadata={"static": True}, kw_only=True
    )

    def with_stand_in(self, xs: PyTree, state: PyTree) -> "Steps":
        """The same steps, with the stand-in that these inputs and this state give.

        Args:
            xs: All inputs, each leaf `[batch, time, ...]`, time along `axis`.
            state: The initial state, each leaf `[batch, ...]`.
        """
        if self.lengths is None:
            return self
        inputs, first = masking.first_inputs(xs, self.axis), jax.tree.leaves(xs)[0]
        are_resets = self.restarts is not None and self.restarts.are_resets
        if are_resets and first.shape[self.axis]:
            # A state that is reset at once need not be finite.
            state = self._restart(jnp.int32(0), state)
        stand_in = masking.stand_in(self.lengths, inputs, state)
        return dataclasses.replace(self, stand_in=stand_in)

    def without_stand_in(self) -> "Steps":
        """The same steps, for a run that is not differentiated."""
        return dataclasses.replace(self, stand_in=None)

    @property
    def restart_states(self) -> PyTree:
        """The states that rows take at restarts; None without restarts."""
        return None if self.restarts is None else self.restarts.states

    def with_restart_states(self, restart_states: PyTree) -> "Steps":
        """The same steps with other restart states; unchanged without restarts."""
        if self.restarts is None:
            return self
        restarts = dataclasses.replace(self.restarts, states=restart_states)
        return dataclasses.replace(self, restarts=restarts)

    def _map_state_numbers(self, fn: Callable[[Array], Array]) -> "Steps":
        if self.restarts is None:
            return self
        numbers = fn(self.restarts.state_numbers)
        restarts = dataclasses.replace(self.restarts, state_numbers=numbers)
        return dataclasses.replace(self, restarts=restarts)

    def _restart(self, t: Array, state: PyTree) -> PyTree:
        """The state before step t, after a restart there."""
        if self.restarts is None:
            return state
        return self.restarts.restart(self.read(self.restarts.state_numbers, t), state)

    def step_inputs(
        self, t: Array, inputs: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The `(inputs, state)` on which the cell is run at step t.

        Args:
            t: The step, an int32 scalar.
            inputs: Step t of the inputs, each leaf `[batch, ...]`.
            state: The state before the step, each leaf `[batch, ...]`.
        """
        state = self._restart(t, state)
        if self.stand_in is None:
            return inputs, state
        alive, running = t < self.lengths, t < self.longest
        return masking.step_inputs(alive, running, inputs, state, self.stand_in)

    def mask_step(
        self, t: Array, state: PyTree, new_state: PyTree, output: PyTree
    ) -> tuple[PyTree, PyTree]:
        """`(new_state, output)` of step t: rows that are not alive keep their `state`.

        Args:
            t: The step, an int32 scalar.
            state: The state before the step, each leaf `[batch, ...]`.
            new_state: What the cell returned, likewise.
            output: What the cell returned; zeros in rows that are not alive.
        """
        if self.lengths is None:
            return with_structure(state, new_state), output
        alive = t < self.lengths
        new_state = masking.advance(alive, t < self.longest, new_state, state)
        return new_state, masking.zero_dead(alive, output)

    def alive_steps(self) -> Array | None:
        """Bool `[batch, time]`, whether a row is alive at a step; None without lengths.

        Time is along `axis`, as in the inputs.
        """
        if self.lengths is None:
            return None
        ts = jnp.expand_dims(jnp.arange(self.time, dtype=jnp.int32), 1 - self.axis)
        return ts < jnp.expand_dims(self.lengths, self.axis)

    def fill_dead(self, xs: PyTree) -> PyTree:
        """The inputs with the stand-in at the steps at which a row is not alive."""
        return xs if self.lengths is None else self._or_of_row(xs, self.stand_in[0])

    def zero_dead(self, tree: PyTree) -> PyTree:
        """Sequences with zeros at the steps at which a row is not alive."""
        alive = self.alive_steps()
        return tree if alive is None else masking.zero_dead(alive, tree)

    def keep_last(self, new_states: PyTree, last: PyTree) -> PyTree:
        """The new states of all steps, from a row's length on its last state.

        Args:
            new_states: As a run returns them, each leaf `[batch, time, ...]`.
            last: The last state of each row, each leaf `[batch, ...]`.
        """
        return self._or_of_row(new_states, last)

    def _or_of_row(self, tree: PyTree, of_row: PyTree) -> PyTree:
        """Sequences with what belongs to a row where the row is not alive."""
        alive = self.alive_steps()
        if alive is None:
            return tree
        of_row = jax.tree.map(lambda x: jnp.expand_dims(x, self.axis), of_row)
        return masking.choose(alive, tree, of_row)

    def time_first(self) -> "Steps":
        """The same steps, of sequences `[time, batch, ...]`."""
        return dataclasses.replace(self, axis=0)._map_state_numbers(self.swap_time)

    def map_stand_in_inputs(self, fn: Callable[[PyTree], PyTree]) -> "Steps":
        """The same steps of other inputs, computed by `fn` from those of one step."""
        if self.stand_in is None:
            return self
        inputs, state = self.stand_in
        return dataclasses.replace(self, stand_in=(fn(inputs), state))

    def read(self, tree: PyTree, t: Array) -> PyTree:
        """Step t of each leaf, `[batch, ...]`."""
        options = {"keepdims": False, "allow_negative_indices": False}
        index = jax.lax.dynamic_index_in_dim
        return jax.tree.map(lambda x: index(x, t, self.axis, **options), tree)

    def map_outputs(self, fn: Callable[[PyTree], PyTree], outputs: PyTree) -> PyTree:
        """The outputs of a run with `fn` applied; new states stay as they are."""
        if not self.returns_states:
            return fn(outputs)
        outputs, new_states = outputs
        return fn(outputs), new_states

    def stack(self, make: Callable[[Array], PyTree]) -> PyTree:
        """The results of `make(t)` for each step t, stacked along the time axis."""
        return self.swap_time(jax.lax.map(make, jnp.arange(self.time, dtype=jnp.int32)))

    def swap_time(self, tree: PyTree) -> PyTree:
        """Swaps batch and time of the leaves; unchanged if `axis` is 0."""
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, self.axis), tree)

    def slice(self, start: Array, size: int) -> "Steps":
        """`size` steps from `start` on, as those of a shorter run; all must exist."""
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, self.axis)
        steps = dataclasses.replace(self, offset=self.offset + start, time=size)
        steps = steps._map_state_numbers(cut)
        if self.lengths is None:
            return steps
        lengths = jnp.clip(self.lengths - start, 0, size)
        longest = jnp.clip(self.longest - start, 0, size)
        return dataclasses.replace(steps, lengths=lengths, longest=longest)


def at_each_step(fn: Callable[..., PyTree], *sequences: Any) -> PyTree:
    """`fn` mapped over steps; a product in it becomes one product over all of them.

    Args:
        fn: A function of one step of each, leaves `[batch, ...]`, which treats
            each row separately. In rows that are not alive its arguments must be
            finite, or its derivatives are not.
        sequences: Each leaf `[batch, time, ...]`, or all `[time, batch, ...]`.

    Returns:
        What `fn` returns, with the same two axes.
    """
    # Always over the first axis, even if that is the batch: `fn` then takes the steps
    # of one row for rows. Mapped over the second axis, XLA would transpose every array.
    return jax.vmap(fn)(*sequences)


def steps_to_run(lengths: Array, time: int) -> Array:
    """The number of steps that a loop runs, as TensorFlow's does.

    That is the greatest length, at most `time` and at least 1.
    """
    return jnp.minimum(batch_maximum(jnp.max(lengths, initial=1)), max(time, 1))


@jax.custom_batching.custom_vmap
def batch_maximum(x: Array) -> Array:
    """`x`; under `vmap` its maximum over the mapped axis, a value without that axis.

    A loop whose end is mapped would have to select between old and new carries, buffers
    included, at every step.
    """
    return x


@batch_maximum.def_vmap
def _batch_maximum_of_all(axis_size: int, in_batched: Any, x: Array) -> Any:
    del axis_size, in_batched
    return batch_maximum(jnp.max(x, axis=0)), False
