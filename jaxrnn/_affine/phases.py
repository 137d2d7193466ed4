"""Loops over a shrinking batch: finished sequences drop out of it.

With rows sorted by length, the longest first, the rows that are alive at a step are a
prefix of the batch that shrinks over time. So a loop over time is divided into phases,
each a loop over a shorter prefix than the one before: a phase ends as soon as the rows
that are still alive fit into the prefix of the next. Where it ends depends on the
lengths and is computed at run time; its number of rows is static, so that other lengths
need no compilation.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from .._autodiff.transposable import dense, transposable
from .._base.sharding import devices_of
from .._base.typing import Array, PyTree
from .._time.steps import Steps, batch_maximum

# The rows of each phase, in eighths of the batch. For LSTMs of 64 rows, 200 steps and
# 256 units on a CPU, gradients took 0.87 of the time that phases of 8 and 4 eighths
# take if lengths are spread evenly, and 0.56 if one row is long. Each phase is compiled
# separately, which is why there are few.
EIGHTHS = (8, 6, 4, 2, 1)
LEAST_ROWS = 16
# Multiplications over all rows and steps. Phases take three seconds more to compile
# than one loop. With lengths that are spread evenly, an LSTM's gradients on two cores
# make up for it in 560 steps at 3e8 multiplications, 160 at 1.3e9, 40 at 5e9.
LEAST_WORK = 1e9


@dataclass(frozen=True)
class Phase:
    """A loop over some of the steps and the first of the rows.

    Attributes:
        steps: All steps, of the rows of the phase.
        start: The first step, an int32 scalar.
        end: The step before which it ends, an int32 scalar; None if it runs to the end.
        rows: The number of rows; None for all.
    """

    steps: Steps
    start: Array
    end: Array | None
    rows: int | None = None

    @property
    def count(self) -> Array | None:
        """The number of steps; None for all."""
        return None if self.end is None else jnp.maximum(self.end - self.start, 0)

    def read(self, tree: PyTree, t: Array) -> PyTree:
        """Step t of each leaf `[batch, time, ...]`, of the rows of the phase."""
        return self.take(self.steps.read(tree, t))

    def read_slice(self, x: Array, start: Array, size: int) -> Array:
        """`size` steps from `start` on, of the rows of the phase."""
        axis, starts, sizes = self.steps.axis, [jnp.int32(0)] * x.ndim, list(x.shape)
        starts[axis], sizes[axis] = start, size
        sizes[1 - axis] = self.rows or sizes[1 - axis]
        return jax.lax.dynamic_slice(x, starts, sizes)

    def take(self, tree: PyTree) -> PyTree:
        """The rows of the phase, of leaves `[batch, ...]`."""
        return jax.tree.map(lambda x: x[: self.rows], tree)

    def put(self, tree: PyTree, rows: PyTree) -> PyTree:
        """The leaves `[batch, ...]` with `rows` in place of those of the phase."""
        if self.rows is None:
            return rows
        join = lambda x, first: jnp.concatenate([first, x[self.rows :]])
        return jax.tree.map(join, tree, rows)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Phases:
    """A loop over steps: one phase of all rows, or several, each of fewer rows.

    Attributes:
        steps: The steps of all rows; with `ends`, sorted by length.
        ends: int32 `[phases]`, the step before which each phase ends; None for one
            phase of all steps that any row has.
        sizes: The number of rows of each phase, descending.
    """

    steps: Steps
    ends: Any = None
    sizes: tuple[int, ...] = field(default=(), metadata={"static": True})

    def in_order(self) -> list[Phase]:
        """The phases in the order of time."""
        if self.ends is None:
            return [Phase(self.steps, jnp.int32(0), self.steps.longest)]
        starts = [jnp.int32(0), *self.ends]
        return [
            Phase(_first_rows(self.steps, rows), start, end, rows)
            for rows, start, end in zip(self.sizes, starts, self.ends, strict=False)
        ]


def _first_rows(steps: Steps, rows: int) -> Steps:
    stand_in = jax.tree.map(lambda x: x[:rows], steps.stand_in)
    return replace(steps, lengths=steps.lengths[:rows], stand_in=stand_in)


def sorting_pays(steps: Steps, xs: Array, multiplications: int) -> bool:
    """Whether rows can be sorted by length, and phases repay their compilation.

    On several devices rows may be sharded, and sorting would move them between devices.

    Args:
        steps: The steps of the rows.
        xs: Inputs, `[batch, time, depth]` or `[time, batch, depth]`; sizes may be
            symbolic.
        multiplications: Those of one row at one step.
    """
    if steps.lengths is None or steps.restarts is not None or devices_of(xs) > 1:
        return False
    rows = xs.shape[1 - steps.axis]
    if not isinstance(rows, int) or rows < LEAST_ROWS:
        return False
    return rows * steps.time * multiplications >= LEAST_WORK


def run_sorted(
    run: Callable[[PyTree, PyTree, Phases], tuple[PyTree, PyTree]],
    xs: PyTree,
    state: PyTree,
    steps: Steps,
) -> tuple[PyTree, PyTree]:
    """`run(xs, state, phases)` with rows sorted by length: finished ones drop out.

    Args:
        run: Returns `(outputs, state)`, outputs with the layout of `xs`.
        xs: Inputs, each leaf `[batch, time, ...]`, time along `steps.axis`.
        state: The initial state, each leaf `[batch, ...]`.
        steps: Their steps, with lengths.

    Returns:
        `(outputs, state)`, rows in their original order.
    """
    order = jnp.argsort(-steps.lengths)
    inverse = jnp.argsort(order)
    axis = 1 - steps.axis
    outputs, state = run(
        _take(xs, order, inverse, axis),
        _take(state, order, inverse, 0),
        _sorted_phases(steps, order),
    )
    return _take(outputs, inverse, order, axis), _take(state, inverse, order, 0)


def _sorted_phases(steps: Steps, order: Array) -> Phases:
    """The phases of the rows in `order`, int32 `[batch]`, by falling length."""
    lengths = steps.lengths[order]
    rows = lengths.shape[0]
    sizes = tuple(-(-rows * eighths // 8) for eighths in EIGHTHS)
    # A phase ends when the longest row that the next one leaves out is finished.
    ends = batch_maximum(jnp.clip(lengths[jnp.asarray(sizes[1:])], 0, steps.longest))
    stand_in = jax.tree.map(lambda x: x[order], steps.stand_in)
    steps = replace(steps, lengths=lengths, stand_in=stand_in)
    return Phases(steps, jnp.append(ends, steps.longest), sizes)


def _take(tree: PyTree, order: Array, inverse: Array, axis: int) -> PyTree:
    """The rows in another order along `axis`; the transpose reads in the inverse order.

    JAX's own transpose would be a scatter, which adds one row after another.
    """

    def take(indices: tuple[Array, Array], tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: _rows(x, indices[0], axis), tree)

    def put_back(indices: tuple[Array, Array], tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: _rows(x, indices[1], axis), dense(tree))

    return transposable(take, put_back, (order, inverse), tree)


def _rows(x: Array, order: Array, axis: int) -> Array:
    index = (slice(None),) * axis + (order,)
    return x.at[index].get(mode="promise_in_bounds", unique_indices=True)
