"""The innermost segments of a run as traced programs, free of the arrays they read."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._autodiff.jax_internals import eval_jaxpr
from .._autodiff.leaves import merge, split
from .._base.typing import PyTree
from .._time.steps import Steps
from ._segments import Segment, innermost_sizes

Run = Callable[[PyTree, PyTree, Steps], tuple[PyTree, PyTree]]


class Values(NamedTuple):
    """The leaves with respect to which a run is differentiated.

    Attributes:
        consts: Those that it closes over.
        xs: Its inputs.
        state: Its initial state.
    """

    consts: list
    xs: list
    state: list

    def split(self, marks: "Values") -> tuple["Values", "Values"]:
        """The unmarked and the marked."""
        pairs = [split(*pair) for pair in zip(self, marks, strict=True)]
        unmarked, marked = zip(*pairs, strict=True)
        return Values(*unmarked), Values(*marked)

    def merge(self, marked: "Values", marks: "Values") -> "Values":
        """The inverse of `split`; a method of the unmarked."""
        return Values(*map(merge, self, marked, marks))

    def cut(self, steps: Steps, segment: Segment) -> tuple["Values", Steps]:
        """The values with the inputs of a segment, and its steps."""
        xs = steps.read_slice(self.xs, *segment)
        return self._replace(xs=xs), steps.slice(*segment)


@dataclasses.dataclass(frozen=True)
class SegmentPrograms:
    """A program for each size of the innermost segments.

    Attributes:
        jaxprs: By size, the program: a function of the leaves of `(xs, state, steps)`.
        consts: By size, the indices of those `Values.consts` that the program reads.
        out_trees: The structures of outputs and state.
        output_types: The type of each output at one step.
    """

    jaxprs: dict[int, Any]
    consts: dict[int, list[int]]
    out_trees: tuple[Any, Any]
    output_types: list

    def run(self, values: Values, steps: Steps) -> tuple[list, list]:
        """`(outputs, state)` of the segment that `Values.cut` returned."""
        consts = [values.consts[i] for i in self.consts[steps.time]]
        leaves = *values.xs, *values.state, *jax.tree.leaves(steps)
        outs = eval_jaxpr(self.jaxprs[steps.time], consts, *leaves)
        count = self.out_trees[0].num_leaves
        return outs[:count], outs[count:]


def trace_segments(
    run: Run, sizes: tuple[int, ...], xs: PyTree, state: PyTree, steps: Steps
) -> tuple[SegmentPrograms, list]:
    """The programs, and the arrays that `run` closes over.

    Args:
        run: `run(xs, state, steps)` returns `(outputs, state)`.
        sizes: The sizes of segments, as in `CheckpointPlan.segments`.
        xs: Inputs of the whole run, time along `steps.axis`.
        state: The initial state.
        steps: The steps of the whole run, at least one.
    """

    def trace(size: int) -> tuple[Any, tuple[PyTree, PyTree]]:
        segment = Segment(jnp.int32(0), size)
        args = steps.read_slice(xs, *segment), state, steps.slice(*segment)
        # Not `closure_convert`, which leaves integers in the closure.
        return jax.make_jaxpr(run, return_shape=True)(*args)

    traced = {size: trace(size) for size in innermost_sizes(sizes, steps.time)}
    jaxprs = {size: closed for size, (closed, _) in traced.items()}
    consts = {id(x): x for closed in jaxprs.values() for x in closed.consts}
    indices = {key: i for i, key in enumerate(consts)}
    _, outs = traced[max(traced)]
    read_step = lambda outputs: steps.read(jax.tree.leaves(outputs), jnp.int32(0))
    programs = SegmentPrograms(
        {size: closed.jaxpr for size, closed in jaxprs.items()},
        {size: [indices[id(x)] for x in c.consts] for size, c in jaxprs.items()},
        (jax.tree.structure(outs[0]), jax.tree.structure(outs[1])),
        jax.eval_shape(read_step, outs[0]),
    )
    return programs, list(consts.values())
