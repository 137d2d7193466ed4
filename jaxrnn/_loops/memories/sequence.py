"""Runs the steps of a matrix memory: in chunks, or one after another.

The products of a chunk also multiply steps that do not read each other, by 0. With
0 * NaN = NaN, a step that is not finite would therefore spoil earlier steps and other
spans, in values and in gradients. So if a number that a chunk computed is not finite,
all steps run again, one after another, which also tells after which steps the state is
not finite. A derivative reads zeros in place of these steps and states.

If there are several chunks, derivatives save only the inputs and the states before
chunks, and the backward pass computes each chunk again.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._base.derivatives import (
    straight_through,
    with_float32_gradients,
    with_forward_only,
)
from ..._base.math import batch_maximum, cast, move_axes, widest_dtype
from ..._base.typing import Array, DType, Params, PyTree
from ..._cells.matrix.rule import MatrixRule, arithmetic_dtype
from ..._run import masking
from ..._run.run import Run
from ..._run.scans import at_each_step, run_in_parts, scan_steps
from .chunk import Chunk
from .rules import as_chunk_results


class IsFinite(NamedTuple):
    """What is finite of each step and row, bools in the layout of the inputs.

    Attributes:
        state: Whether the new state is.
        read: Whether what the step reads is.
    """

    state: Array
    read: Array


class Computed(NamedTuple):
    """The results of all steps, and what a derivative must know of them.

    Attributes:
        outputs: The outputs, or pairs `(output, new_state)` if the run returns states.
        last: The last state, in the dtype of the arithmetic.
        is_finite: What is finite.
        starts: The states before the chunks, each leaf `[chunks, batch, ...]`.
    """

    outputs: PyTree
    last: PyTree
    is_finite: IsFinite
    starts: PyTree


@dataclasses.dataclass(frozen=True)
class MemoryLoop:
    """Runs the steps of a matrix memory in chunks, or one after another.

    Attributes:
        rule: The rule of the cell.
        project: Projects inputs to the values of the rule; see
            `MatrixMemoryCell.project`.
        step: Runs one step; see `MatrixRule.step`.
        chunk: Runs all steps of a chunk; see `MatrixRule.chunk`.
        output: The output of one step; see `MatrixMemoryCell.output`.
        largest: `largest(run)` is the largest number of steps in a chunk of a run.
    """

    rule: MatrixRule
    project: Callable[..., tuple[PyTree, PyTree]]
    step: Callable[[PyTree, PyTree], tuple[Array, PyTree]]
    chunk: Callable[[Chunk], tuple[Array, PyTree]]
    output: Callable[[Params, Array, PyTree], PyTree]
    largest: Callable[[Run], int]

    def run(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of all steps, as from a scan of single steps."""
        outputs, state = self.run_wide(params, run)
        return outputs, self.rule.stored(run.state, state)

    def scan(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """`run` step by step, without derivatives."""
        # The results of finished steps may be NaN.
        steps = dataclasses.replace(run.steps, stand_in=None)
        results = self.in_steps(params, run.replace(steps=steps))
        return results.outputs, self.rule.stored(run.state, results.last)

    def run_wide(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """The outputs, and the last state in the dtype of the arithmetic.

        Args:
            params: The cell's parameters.
            run: Inputs `[batch, time, ...]`, or `[time, batch, ...]` if `steps.axis` is
                0, with at least one step, and the initial state. If
                `steps.returns_states`, the outputs are pairs `(output, new_state)`.
        """

        def derived(params: Params, run: Run) -> tuple[PyTree, PyTree]:
            known = self.computed(*jax.lax.stop_gradient((params, run)))
            outputs, last = self.tangents(params, run, known)
            last = masking.zero_unless(finite_rows(known.last), last)
            return jax.tree.map(straight_through, known[:2], (outputs, last))

        alone = lambda *given: self.computed(*given)[:2]
        return with_forward_only(derived, alone)(params, run)

    def computed(self, params: Params, run: Run) -> Computed:
        """The results: of chunks or, if these are not finite, of single steps."""
        results = self.in_chunks(params, run)
        is_finite = jnp.all(results.is_finite.read) & jnp.all(finite_rows(results.last))
        again = functools.partial(self.in_steps, params, run)
        # One condition for the whole run: a device waits for it once.
        return jax.lax.cond(batch_maximum(~is_finite), again, lambda: results)

    def in_steps(self, params: Params, run: Run) -> Computed:
        """Runs all steps, one after another."""
        dtype = arithmetic_dtype(run.inputs, run.state)
        output_dtype = widest_dtype(run.inputs)

        def apply(t: Array, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
            rest, values = self.project(params, inputs, dtype)
            h, state = self.step(values, state)
            output = cast(self.output(params, h, rest), output_dtype)
            return (output, IsFinite(finite_rows(state), finite_rows(h))), state

        def run_part(part: Run) -> tuple[PyTree, PyTree]:
            results, last = scan_steps(apply, part)
            states = None
            if part.steps.returns_states:
                results, states = results
            return (*results, states), last

        return self._in_parts(run_part, run.inputs, run)

    def in_chunks(self, params: Params, run: Run) -> Computed:
        """Runs all steps in chunks."""

        def run_part(part: Run) -> tuple[PyTree, PyTree]:
            rest, values = projected(self, params, part)
            h, states, last = self._run_chunk(values, part)
            is_read = jnp.all(jnp.isfinite(h), (2, 3))
            # Of the states, only the last is checked; if a number is not finite, the
            # results are those of `in_steps`.
            is_finite = IsFinite(state=is_read, read=is_read)
            return (outputs_of(self, params, h, rest, part), is_finite, states), last

        return self._in_parts(run_part, run.inputs, run)

    def tangents(
        self, params: Params, run: Run, known: Computed
    ) -> tuple[PyTree, PyTree]:
        """Results in chunks of which only the tangents are used, because of `known`.

        They do not depend on what is not finite: a new state or, if only what a step
        reads is not finite, the query of this step and what `output` needs of its
        inputs.
        """
        params_in_loop = with_float32_gradients(params)

        def run_part(part: Run) -> tuple[PyTree, PyTree]:
            params = params_in_loop()
            inputs, is_finite = part.inputs  # A part of both, of the whole run.
            inputs = masking.zero_unless(is_finite.state, inputs)
            state = self._known_start(part, run, known)
            part = part.replace(inputs=inputs, state=state)
            rest, values = projected(self, params, part)
            read_only = rest, values.q if "q" in values._fields else None
            rest, q = masking.zero_unless(is_finite.read, read_only)
            values = values if q is None else values._replace(q=q)
            h, states, last = self._run_chunk(values, part)
            outputs = outputs_of(self, params, h, rest, part)
            outputs = masking.zero_unless(is_finite.read, outputs)
            if part.steps.returns_states:
                states = masking.zero_unless(is_finite.state, states)
            return (outputs, None, states), last

        return self._in_parts(run_part, (run.inputs, known.is_finite), run)[:2]

    def _known_start(self, part: Run, run: Run, known: Computed) -> PyTree:
        """The state before a chunk: a known value, with the tangent of `part.state`.

        So the first pass is not repeated.
        """
        first = jnp.int32(0)
        index = part.steps.index_in_run(first) - run.steps.index_in_run(first)
        at = functools.partial(jax.lax.dynamic_index_in_dim, keepdims=False)
        number = index // self._chunk_size(run)
        start = jax.tree.map(lambda x: at(x, number), known.starts)
        state = jax.tree.map(straight_through, start, part.state)
        return masking.zero_unless(finite_rows(start), state)

    def _run_chunk(self, values: PyTree, part: Run) -> tuple[Array, PyTree, PyTree]:
        """`(h, states, last)`: what the steps read, the states, and the last state."""
        axis = part.steps.axis
        chunk = _chunk(move_axes(values, axis, 2), part)
        h, states = as_chunk_results(self.rule, self.chunk(chunk), chunk, self.step)
        last = jax.tree.map(lambda x: x[:, :, -1], states)
        return jnp.moveaxis(h, 2, axis), move_axes(states, 2, axis), last

    def _in_parts(self, run_part: Callable, inputs: PyTree, run: Run) -> Computed:
        """Calls `run_part` for the steps of each chunk, with `inputs` in its run.

        It returns `((outputs, is_finite, states), last)`.
        """

        def run_one(part: Run) -> tuple[PyTree, PyTree]:
            start = jax.tree.map(
                lambda x: jnp.expand_dims(x, part.steps.axis), part.state
            )
            (outputs, is_finite, states), last = run_part(part)
            if part.steps.returns_states:
                outputs = outputs, self.rule.stored(run.state, states)
            return (outputs, is_finite, start), last

        wide = with_states_in(arithmetic_dtype(run.inputs, run.state), run)
        wide = wide.replace(inputs=inputs)
        results, last = run_in_parts(self._chunk_size(run), run_one, wide)
        outputs, is_finite, starts = results
        return Computed(outputs, last, is_finite, run.steps.from_time_major(starts))

    def _chunk_size(self, run: Run) -> int:
        """The number of steps in each chunk except the last, in chunks of like sizes.

        For an mLSTM with heads of size 64 and 128, 1 and 8 rows and up to 8192 steps on
        two CPU cores, training times with chunks of 32 to 128 steps differed by little
        more than noise. Longer chunks were slower, with larger rounding errors.
        """
        count = -(-run.steps.time // self.largest(run))
        return -(-run.steps.time // count)


def projected(memory: Any, params: Params, part: Run) -> tuple[PyTree, PyTree]:
    """`(rest, values)` of all steps; see `project` of `memory`, a cell or its loop."""
    dtype = arithmetic_dtype(part.inputs, part.state)
    project = functools.partial(memory.project, params, dtype=dtype)
    rest, values = at_each_step(project, part.steps.fill_finished(part.inputs))
    return rest, part.steps.select_unfinished(values, memory.rule.idle)


def outputs_of(
    memory: Any, params: Params, h: Array, rest: PyTree, part: Run
) -> PyTree:
    """The outputs of all steps; see `output` of `memory`, a cell or its loop."""
    outputs = at_each_step(functools.partial(memory.output, params), h, rest)
    return part.steps.zero_finished(cast(outputs, widest_dtype(part.inputs)))


def with_states_in(dtype: DType, run: Run) -> Run:
    """The run with a dtype for its states, also of resets and finished rows."""
    steps = run.steps
    state, reset_state = cast((run.state, run.reset_state), dtype)
    if steps.stand_in is not None:
        inputs, of_finished = steps.stand_in
        stand_in = inputs, cast(of_finished, dtype)
        steps = dataclasses.replace(steps, stand_in=stand_in)
    return run.replace(state=state, reset_state=reset_state, steps=steps)


def _chunk(values: PyTree, part: Run) -> Chunk:
    """The chunk of `part`, with zeros in place of states that no step reads.

    Args:
        values: What the steps read and write, leaves `[batch, heads, steps, ...]`.
        part: The steps, and the states before them.
    """
    steps, state = part.steps, part.state
    size = steps.time
    reads = jnp.tril(jnp.ones((size, size), bool))[None, None]
    reset_state = is_carried = None
    if steps.resets is not None:
        resets = steps.to_batch_major(steps.resets)
        # XLA for CPUs would compute the parts of `cumsum` again for each pair of steps.
        spans = resets.astype(jnp.float32) @ reads[0, 0].T.astype(jnp.float32)
        is_carried = (spans == 0)[:, None, :]
        reads &= spans[:, None, :, None] == spans[:, None, None, :]
        state = masking.zero_unless(~resets[:, 0], state)
        if not steps.resets_to_zeros:
            is_read = jnp.any(resets, axis=1)
            reset_state = masking.zero_unless(is_read, part.reset_state)
    state, reset_state = jax.tree.map(lambda x: x[:, :, None], (state, reset_state))
    return Chunk(values, state, reads, reset_state, is_carried, steps.returns_states)


def finite_rows(state: PyTree) -> Array:
    """Whether each row of a state is finite; a scale `[rows, heads]` may be -inf."""
    each = [
        jnp.all(
            x < jnp.inf if x.ndim == 2 else jnp.isfinite(x), tuple(range(1, x.ndim))
        )
        for x in jax.tree.leaves(state)
    ]
    return functools.reduce(jnp.logical_and, each)
