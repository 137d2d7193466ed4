"""A run over sequences, segment by segment, that saves little for its backward pass.

JAX can do much of this by `jax.checkpoint` around the body of a scan over segments. But
such a scan requires inputs that are divided into segments, which copies them where they
are not time major or their length is no multiple of the segments'; and where the body
reads them itself, its transpose adds a gradient of all inputs once per segment. Here a
segment is read from the inputs as they are, and its gradient is written into that of
the inputs, at any depth of nesting.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._autodiff.differentiable import differentiable
from .._autodiff.jax_internals import SymbolicZero
from .._autodiff.leaves import (
    add,
    dense_tangent,
    is_float,
    is_zero_tangent,
    only_floats,
    split,
    with_zero_tangents,
)
from .._autodiff.transposable import dense, only_arrays, transposable
from .._base.sharding import as_varying_as, buffers_for
from .._base.typing import PyTree
from .._time.steps import Steps
from ._segment_programs import Run, SegmentPrograms, Values, trace_segments
from ._segments import Segment, visit_backward, visit_forward, visit_innermost
from ._strategy import CheckpointPlan


def segmented_run(
    plan: CheckpointPlan, run: Run, xs: PyTree, state: PyTree, steps: Steps
) -> tuple[PyTree, PyTree]:
    """`run(xs, state, steps)`, whose derivatives save what the plan says.

    Args:
        plan: What is saved.
        run: Returns `(outputs, state)`, outputs along the same axes as `xs`. It may
            close over arrays, and returns for a segment that part of the outputs.
        xs: Inputs, time along `steps.axis`.
        state: The initial state.
        steps: Their steps, at least one.
    """
    if not plan.segments:
        return run(xs, state, steps)
    # All segments restart from these states, so they are closed over like parameters.
    restart_states, steps = steps.restart_states, steps.with_restart_states(None)
    run_with_restarts = lambda xs, state, steps: run(
        xs, state, steps.with_restart_states(restart_states)
    )
    programs, consts = trace_segments(
        run_with_restarts, plan.segments, xs, state, steps
    )
    values = Values(consts, jax.tree.leaves(xs), jax.tree.leaves(state))
    fn = functools.partial(_run, programs, plan)
    rule = functools.partial(_push_forward, programs, plan)
    outs = differentiable(fn, rule, values, steps)
    outputs, state = map(jax.tree.unflatten, programs.out_trees, outs)
    return outputs, state


def run_in_segments(
    size: int, run: Run, xs: PyTree, state: PyTree, steps: Steps
) -> tuple[PyTree, PyTree]:
    """`run(xs, state, steps)`, `size` steps at a time; a shorter run at once.

    Of several segments the derivatives save the states before them, and run each again.
    The arguments are those of `segmented_run`.
    """
    plan = CheckpointPlan((size,) if size < steps.time else ())
    return segmented_run(plan, run, xs, state, steps)


def _run(
    programs: SegmentPrograms, plan: CheckpointPlan, values: Values, steps: Steps
) -> tuple[list, list]:
    """`(outputs, state)` of all steps."""

    def visit(segment: Segment, carry: Any) -> tuple[list, list]:
        state, buffers = carry
        outputs, state = programs.run(*values._replace(state=state).cut(steps, segment))
        return state, steps.write_slice(buffers, segment.start, outputs)

    carry = values.state, _buffers(programs, values, steps)
    state, outputs = visit_innermost(visit, carry, _whole(steps), plan.segments)
    return outputs, state


def _push_forward(
    programs: SegmentPrograms, plan: CheckpointPlan, primals: Any, tangents: Any
) -> tuple[Any, Any]:
    """The derivative rule: `(outputs, state)` and their tangents."""
    (values, steps), d_values = primals, tangents[0]
    perturbed = Values(*([not is_zero_tangent(d) for d in part] for part in d_values))
    # Even if the initial state is not perturbed, the state after a step may be.
    perturbed = perturbed._replace(state=[is_float(x) for x in values.state])
    linear = LinearRun(programs, plan, perturbed)
    outs, saved = linear.run_and_save(values, steps)
    dense_part = lambda part, d_part: list(map(dense_tangent, part, d_part))
    d_values = Values(*map(dense_part, values, d_values)).split(perturbed)[1]
    rules = linear.push_forward, linear.pull_back
    d_floats = transposable(*rules, (values, steps, saved), d_values)
    return outs, tuple(map(with_zero_tangents, outs, d_floats))


@dataclasses.dataclass(frozen=True)
class LinearRun:
    """The tangent of a run, a linear function; this object holds no arrays.

    Attributes:
        programs: The innermost segments.
        plan: What is saved of them.
        perturbed: Which values are perturbed.
    """

    programs: SegmentPrograms
    plan: CheckpointPlan
    perturbed: Values

    def segment(
        self, values: Values, steps: Steps, segment: Segment
    ) -> tuple[Callable, Values, list]:
        """An innermost segment: `(fn, perturbed, shared)`.

        `fn(perturbed)` returns a pair: the floating leaves of `(outputs, state)`, and
        all of its leaves. `shared` are the arrays that the segment reads besides the
        state before it, `values.state`; the backward pass has them anyway.
        """
        values, steps = values.cut(steps, segment)
        shared = jax.tree.leaves((values._replace(state=[]), steps))
        fn, perturbed = self.of_perturbed(self.programs.run, values, steps)
        return fn, perturbed, shared

    def of_perturbed(
        self, run: Callable, values: Values, steps: Steps
    ) -> tuple[Callable, Values]:
        """`run` as a function of the perturbed values, and these values.

        The function returns a pair: the floating leaves of `(outputs, state)`, and all
        of its leaves.
        """
        unperturbed, perturbed = values.split(self.perturbed)

        def fn(perturbed: Values) -> tuple[Any, Any]:
            outs = run(unperturbed.merge(perturbed, self.perturbed), steps)
            return tuple(map(only_floats, outs)), outs

        return fn, perturbed

    def run_and_save(self, values: Values, steps: Steps) -> tuple[tuple, Any]:
        """`(outputs, state)`, and what is saved for `pull_back`."""
        run = functools.partial(self.run_segment, values, steps)
        carry = values.state, _buffers(self.programs, values, steps)
        sizes, on_host = self.plan.segments, self.plan.on_host
        carry, saved = visit_forward(run, carry, _whole(steps), sizes, on_host)
        return carry[::-1], saved

    def run_segment(
        self, values: Values, steps: Steps, segment: Segment, carry: Any
    ) -> tuple[Any, Any]:
        """The carry `(state, buffers)` after an innermost segment, and its residuals.

        Without buffers, which are None, no outputs are collected.
        """
        state, buffers = carry
        values = values._replace(state=state)
        fn, perturbed, shared = self.segment(values, steps, segment)
        if self.plan.save_residuals:
            (outputs, new_state), residuals = _run_and_save(fn, perturbed, shared)
        else:
            (outputs, new_state), residuals = fn(perturbed)[1], state
        if buffers is not None:
            buffers = steps.write_slice(buffers, segment.start, outputs)
        return (new_state, buffers), residuals

    def push_forward(self, residuals: Any, tangents: Values) -> tuple[list, list]:
        """The tangents of the floating leaves of `(outputs, state)`."""
        values, steps, _ = residuals
        run = functools.partial(_run, self.programs, self.plan)
        fn, perturbed = self.of_perturbed(run, values, steps)
        return jax.jvp(fn, (perturbed,), (tangents,), has_aux=True)[1]

    def pull_back(self, residuals: Any, cotangents: Any) -> Values:
        """The transpose of `push_forward`."""
        values, steps, saved = residuals
        c_outputs, c_state = cotangents

        def visit(segment: Segment, carry: Values, residuals: Any) -> Values:
            saves_all = self.plan.save_residuals
            before = values if saves_all else values._replace(state=residuals)
            fn, perturbed, shared = self.segment(before, steps, segment)
            c_outs = _cut_cotangents(c_outputs, steps, segment), carry.state
            if saves_all:
                c_values = _fill_in(residuals, shared)(dense(c_outs))[0]
            else:
                c_values = _pull_back(fn, perturbed, c_outs)
            c_xs = steps.write_slice(carry.xs, segment.start, c_values.xs)
            return Values(add(carry.consts, c_values.consts), c_xs, c_values.state)

        zeros = jax.tree.map(jnp.zeros_like, values.split(self.perturbed)[1])
        carry = as_varying_as((residuals, only_arrays(cotangents)), zeros)
        carry = carry._replace(state=dense(c_state))
        run = functools.partial(self.run_segment, values, steps)
        sizes = self.plan.segments
        return visit_backward(run, visit, carry, saved, _whole(steps), sizes)


def _whole(steps: Steps) -> Segment:
    return Segment(jnp.int32(0), steps.time)


def _buffers(programs: SegmentPrograms, values: Values, steps: Steps) -> list:
    """Zeros for the outputs of all steps."""
    types = programs.output_types
    return buffers_for((values, steps), types, steps.time, steps.axis)


def _cut_cotangents(cotangents: list, steps: Steps, segment: Segment) -> list:
    """The cotangents of a segment's outputs; symbolic zeros stay symbolic."""

    def cut(c: Any) -> Any:
        if not isinstance(c, SymbolicZero):
            return steps.read_slice(c, *segment)
        aval: Any = c.aval
        shape = list(aval.shape)
        shape[steps.axis] = segment.size
        return SymbolicZero(aval.update(shape=tuple(shape)))

    return list(map(cut, cotangents))


def _pull_back(fn: Callable, perturbed: Values, cotangents: tuple) -> Values:
    """From cotangents of the floating results of `fn` to those of `perturbed`."""
    leaves = jax.tree.leaves(cotangents)
    # Outputs that nothing reads are left out, so that no arrays of zeros are added.
    is_read = [not isinstance(c, SymbolicZero) for c in leaves]
    read = lambda values: split(jax.tree.leaves(fn(values)[0]), is_read)[1]
    return jax.vjp(read, perturbed)[1](only_arrays(leaves))[0]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _SharedIndex:
    """In the place of a residual: its index among the shared arrays."""

    index: int


def _run_and_save(fn: Callable, perturbed: Values, shared: list) -> tuple[Any, Any]:
    """`(outputs, state)` of a segment, and its backward pass with all that it reads."""
    _, pull_back, outs = jax.vjp(fn, perturbed, has_aux=True)
    # Otherwise each segment would save a copy of the parameters and inputs.
    indices = {id(x): _SharedIndex(i) for i, x in enumerate(shared)}
    return outs, jax.tree.map(lambda x: indices.get(id(x), x), pull_back)


def _fill_in(pull_back: Any, shared: list) -> Callable:
    """The backward pass that `_run_and_save` returned, with the shared arrays."""
    is_index = lambda x: isinstance(x, _SharedIndex)
    fill_in = lambda x: shared[x.index] if is_index(x) else x
    return jax.tree.map(fill_in, pull_back, is_leaf=is_index)
