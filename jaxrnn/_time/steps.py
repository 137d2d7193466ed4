"""The steps of a batch of sequences: where they lie, and which rows are alive in them.

What every driver over a time axis needs to know, in one value. A loop reads step t,
asks what the cell is to be shown there, and settles what comes of it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.trees import with_structure
from .._base.typing import Array, PyTree
from . import masking


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Steps:
    """The time axis of some sequences.

    Attributes:
        lengths: `[batch]`, how many steps of each row count; None for all.
        longest: The longest row, one step at least, an int32 scalar; None for all.
        first: What a dead row repeats, as `first_step` gives it; None without lengths.
        starts: `[batch, time]` or `[time, batch]`, as the inputs lie: -1, or the number
            of the sequence that starts there; None where a row is one sequence.
        fresh: The state that each sequence starts from, each leaf `[sequences, ...]`;
            None without `starts`.
        ends: int32 `[phases]`, the step before which each phase of the loop ends; None
            for a loop without phases.
        sizes: The number of rows of each phase, from most to least.
        begin: The number of the first of these steps among those of the whole run, an
            int32 scalar; it tells random keys and nothing else.
        rows: Of how many rows, from the first, these steps are; None for all.
        kernel: What runs the loop of an affine cell; None for XLA.
        time: The number of steps.
        axis: The time axis of all that is read and written, 0 or 1.
    """

    lengths: Any = None
    longest: Any = None
    first: Any = None
    starts: Any = None
    fresh: Any = None
    ends: Any = None
    begin: Any = 0
    sizes: tuple = dataclasses.field(default=(), metadata={"static": True})
    rows: int | None = dataclasses.field(default=None, metadata={"static": True})
    kernel: Any = dataclasses.field(default=None, metadata={"static": True})
    time: Any = dataclasses.field(metadata={"static": True}, kw_only=True)
    axis: int = dataclasses.field(metadata={"static": True}, kw_only=True)

    def of(self, xs: PyTree, state: PyTree, fresh: PyTree = None) -> "Steps":
        """The same steps of other sequences, with another state to start from."""
        if self.lengths is None:
            return dataclasses.replace(self, fresh=fresh)
        inputs = masking.first_inputs(xs, self.axis)
        first = masking.first_step(self.lengths, inputs, state)
        return dataclasses.replace(self, first=first, fresh=fresh)

    def read(self, tree: PyTree, t: Array) -> PyTree:
        """Step t of each leaf, `[batch, ...]`."""
        at = functools.partial(
            jax.lax.dynamic_index_in_dim, keepdims=False, allow_negative_indices=False
        )
        return jax.tree.map(lambda x: at(x, t, self.axis)[: self.rows], tree)

    def phases(self) -> "list[Phase]":
        """The parts of a loop over these steps, one after another."""
        if self.ends is None:
            return [Phase(self, jnp.int32(0), self.longest)]
        begins = [jnp.int32(0), *self.ends]
        return [
            Phase(self._head(rows), begin, end)
            for rows, begin, end in zip(self.sizes, begins, self.ends, strict=False)
        ]

    def _head(self, rows: int) -> "Steps":
        first = jax.tree.map(lambda x: x[:rows], self.first)
        return dataclasses.replace(
            self, lengths=self.lengths[:rows], first=first, ends=None, rows=rows
        )

    def write(self, tree: PyTree, t: Array, step: PyTree) -> PyTree:
        """The same with `step` in the place of step t."""
        put = functools.partial(
            jax.lax.dynamic_update_index_in_dim, allow_negative_indices=False
        )
        return jax.tree.map(lambda x, s: put(x, s, t, self.axis), tree, step)

    def stack(self, make: Callable[[Array], PyTree]) -> PyTree:
        """Sequences of what `make(t)` gives for each step t, one after another."""
        made = jax.lax.map(make, jnp.arange(self.time, dtype=jnp.int32))
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, self.axis), made)

    def alive(self, t: Array) -> Array:
        """`[batch]`, the rows that are alive at step t."""
        return t < self.lengths

    def window(self, start: Array, size: int) -> "Steps":
        """The steps from `start` on, `size` of them, all of which exist."""
        steps = dataclasses.replace(self, begin=self.begin + start, time=size)
        if self.starts is not None:
            starts = self.read_window(self.starts, start, size)
            steps = dataclasses.replace(steps, starts=starts)
        if self.lengths is None:
            return steps
        lengths = jnp.clip(self.lengths - start, 0, size)
        longest = jnp.clip(self.longest - start, 0, size)
        return dataclasses.replace(steps, lengths=lengths, longest=longest)

    def read_window(self, tree: PyTree, start: Array, size: int) -> PyTree:
        """The steps from `start` on of each leaf, `size` of them."""
        read = functools.partial(
            jax.lax.dynamic_slice_in_dim, slice_size=size, axis=self.axis
        )
        return jax.tree.map(lambda x: read(x, start), tree)

    def write_window(self, tree: PyTree, start: Array, window: PyTree) -> PyTree:
        """The same with `window` in the place of the steps from `start` on."""
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=self.axis)
        return jax.tree.map(lambda x, w: put(x, w, start), tree, window)

    def zero_dead(self, tree: PyTree) -> PyTree:
        """Sequences with zeros in the rows that are not alive."""
        if self.lengths is None:
            return tree
        ts = jnp.expand_dims(jnp.arange(self.time, dtype=jnp.int32), 1 - self.axis)
        alive = ts < jnp.expand_dims(self.lengths, self.axis)
        return masking.zero_dead(alive, tree)

    def show(
        self, t: Array, inputs: PyTree, state: PyTree, fresh: PyTree = None
    ) -> tuple[PyTree, PyTree]:
        """The inputs and the state that the cell is run on at step t.

        Args:
            t: The step.
            inputs: Step t of the inputs.
            state: The state before the step.
            fresh: As the attribute; given apart where derivatives are taken by it.
        """
        if self.starts is not None:
            state = self._begin(t, state, self.fresh if fresh is None else fresh)
        if self.lengths is None:
            return inputs, state
        running = t < self.longest
        return masking.shown(self.alive(t), running, inputs, state, self.first)

    def settle(
        self, t: Array, state: PyTree, new_state: PyTree, output: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The state after step t, and what is put out."""
        if self.lengths is None:
            return with_structure(state, new_state), output
        alive = self.alive(t)
        new_state = masking.advance(alive, t < self.longest, new_state, state)
        return new_state, masking.zero_dead(alive, output)

    def _begin(self, t: Array, state: PyTree, fresh: PyTree) -> PyTree:
        which = self.read(self.starts, t)
        rows = jax.tree.map(lambda x: x[jnp.maximum(which, 0)], fresh)
        return masking.choose(which >= 0, rows, state)


@dataclasses.dataclass(frozen=True)
class Phase:
    """Some steps of some rows.

    Attributes:
        steps: The steps of the rows.
        begin: The first step, an int32 scalar.
        end: The step before which it ends, an int32 scalar; None for all steps.
    """

    steps: Steps
    begin: Array
    end: Array | None

    @property
    def count(self) -> Array | None:
        """The number of steps; None for all."""
        return None if self.end is None else jnp.maximum(self.end - self.begin, 0)

    def head(self, tree: PyTree) -> PyTree:
        """The rows, of leaves `[batch, ...]`."""
        return jax.tree.map(lambda x: x[: self.steps.rows], tree)

    def put(self, tree: PyTree, head: PyTree) -> PyTree:
        """The leaves with other rows in the place of these."""
        rows = self.steps.rows
        if rows is None:
            return head
        join = lambda x, h: jnp.concatenate([h, x[rows:]])
        return jax.tree.map(join, tree, head)


def longest(lengths: Array, time: int) -> Array:
    """How many steps a loop runs: to the longest row, and at least one."""
    return jnp.minimum(most(masking.steps_to_run(lengths)), max(time, 1))


@jax.custom_batching.custom_vmap
def most(x: Array) -> Array:
    """The same; under `vmap` the most of all, so that it stays one.

    A loop that ended for each by itself would have to select between old and new
    carries, buffers and all, at every step.
    """
    return x


@most.def_vmap
def _most_of_all(axis_size: int, in_batched: Any, x: Array) -> Any:
    del axis_size, in_batched
    return most(jnp.max(x, axis=0)), False
