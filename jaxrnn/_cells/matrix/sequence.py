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
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..._base.derivatives import (
    differentiated_as,
    summed_in_float32,
    with_tangent_of,
)
from ..._base.math import at_least_float32, batch_maximum, cast, move_axes, widest_dtype
from ..._base.typing import Array, DType, Params, PyTree
from ..._run import masking
from ..._run.masking import Steps
from ..._run.run import Run
from ..._run.scans import RunSteps, at_each_step, run_in_parts, scan_steps
from ..step_checks import as_chunk_results
from .rule import Chunk, MatrixRule


class Computed(NamedTuple):
    """The results of all steps, and what a derivative must know of them.

    Attributes:
        outputs: The outputs, or pairs `(output, new_state)` if the run returns states.
        last: The last state, in the dtype of the arithmetic.
        is_finite: For each step and row, whether the new state is finite, and whether
            what the step reads is; bools in the layout of the inputs.
        starts: The states before the chunks, each leaf `[chunks, batch, ...]`.
    """

    outputs: PyTree
    last: PyTree
    is_finite: tuple[Array, Array]
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
        largest: The largest number of steps in a chunk.
    """

    rule: MatrixRule
    project: Callable[..., tuple[PyTree, PyTree]]
    step: Callable[[PyTree, PyTree], tuple[Array, PyTree]]
    chunk: Callable[[Chunk], tuple[Array, PyTree]]
    output: Callable[[Params, Array, PyTree], PyTree]
    largest: int

    def run(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of all steps, as from a scan of single steps.

        Args:
            params: The cell's parameters.
            run: Inputs `[batch, time, ...]`, or `[time, batch, ...]` if `steps.axis` is
                0, with at least one step, and the initial state. If
                `steps.returns_states`, the outputs are pairs `(output, new_state)`.

        Returns:
            The outputs, and the last state in the dtype of the arithmetic.
        """

        def compute(params: Params, run: Run) -> Computed:
            made = self.in_chunks(params, run)
            _, reads = made.is_finite
            failed = ~(jnp.all(reads) & jnp.all(finite_rows(made.last)))
            again = functools.partial(self.in_steps, params, run)
            # One condition for the whole run: a device waits for it once.
            return jax.lax.cond(batch_maximum(failed), again, lambda: made)

        def derived(params: Params, run: Run) -> tuple[PyTree, PyTree]:
            known = compute(*jax.lax.stop_gradient((params, run)))
            same = self.in_chunks(params, run, known)
            last = masking.zero_unless(finite_rows(known.last), same.last)
            return jax.tree.map(with_tangent_of, known[:2], (same.outputs, last))

        alone = lambda *given: compute(*given)[:2]
        return differentiated_as(derived, alone)(params, run)

    def in_steps(self, params: Params, run: Run) -> Computed:
        """Runs all steps, one after another."""
        dtype = arithmetic_dtype(run.inputs, run.state)
        output_dtype = widest_dtype(run.inputs)

        def apply(t: Array, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
            rest, values = self.project(params, inputs, dtype)
            h, state = self.step(values, state)
            made = cast(self.output(params, h, rest), output_dtype)
            return (made, (finite_rows(state), finite_rows(h))), state

        return self._in_parts(functools.partial(scan_steps, apply), run.inputs, run)

    def in_chunks(
        self, params: Params, run: Run, known: Computed | None = None
    ) -> Computed:
        """Runs all steps in chunks.

        If the results are `known`, only the tangents of these results are used. They do
        not depend on what is not finite: a new state or, if only what a step reads is
        not finite, the query of this step and what `output` needs of its inputs.
        """
        dtype = arithmetic_dtype(run.inputs, run.state)
        output_dtype = widest_dtype(run.inputs)
        size = self._chunk_size(run)
        params_in_loop = summed_in_float32(params)

        def known_start(starts: PyTree, state: PyTree, steps: Steps) -> PyTree:
            """The known value of `state`, so that the first pass is not repeated."""
            first = jnp.int32(0)
            i = (steps.index_in_run(first) - run.steps.index_in_run(first)) // size
            at = functools.partial(jax.lax.dynamic_index_in_dim, keepdims=False)
            start = jax.tree.map(lambda x: at(x, i), starts)
            state = jax.tree.map(with_tangent_of, start, state)
            return masking.zero_unless(finite_rows(start), state)

        def run_steps(inputs: PyTree, state: PyTree, steps: Steps) -> tuple:
            params = params_in_loop()
            inputs, (keeps, reads) = inputs
            if known is not None:
                inputs = masking.zero_unless(keeps, inputs)
                state = known_start(known.starts, state, steps)
            project = functools.partial(self.project, params, dtype=dtype)
            rest, values = at_each_step(project, steps.fill_finished(inputs))
            alive = steps.alive_steps()
            if alive is not None:
                values = masking.select(alive, values, self.rule.idle)
            if known is not None:
                rest = masking.zero_unless(reads, rest)
                if "q" in values._fields:
                    values = values._replace(q=masking.zero_unless(reads, values.q))
            chunk = _chunk(move_axes(values, steps.axis, 2), state, steps)
            made = self.chunk(chunk)
            h, states = as_chunk_results(self.rule, made, chunk, self.step)
            last = jax.tree.map(lambda x: x[:, :, -1], states)
            h = jnp.moveaxis(h, 2, steps.axis)
            outputs = at_each_step(functools.partial(self.output, params), h, rest)
            outputs = steps.zero_finished(cast(outputs, output_dtype))
            states = move_axes(states, 2, steps.axis)
            if known is not None:
                outputs = masking.zero_unless(reads, outputs)
                states = masking.zero_unless(keeps, states)
            made = outputs, (jnp.all(jnp.isfinite(h), (2, 3)),) * 2
            return (made, states) if steps.returns_states else made, last

        is_finite = (None, None) if known is None else known.is_finite
        return self._in_parts(run_steps, (run.inputs, is_finite), run)

    def _in_parts(self, run_steps: RunSteps, inputs: PyTree, run: Run) -> Computed:
        """Calls `run_steps` for the steps of each chunk."""

        def run_one(inputs: PyTree, state: PyTree, steps: Steps) -> tuple:
            start = jax.tree.map(lambda x: jnp.expand_dims(x, steps.axis), state)
            made, last = run_steps(inputs, state, steps)
            if not steps.returns_states:
                return (*made, start), last
            (outputs, is_finite), states = made
            states = self.rule.stored(run.state, states)
            return ((outputs, states), is_finite, start), last

        wide = with_states_in(arithmetic_dtype(run.inputs, run.state), run)
        size = self._chunk_size(run)
        made, last = run_in_parts(size, run_one, inputs, wide.state, wide.steps)
        outputs, is_finite, starts = made
        return Computed(outputs, last, is_finite, run.steps.swap_time(starts))

    def _chunk_size(self, run: Run) -> int:
        """The number of steps in each chunk except the last, in chunks of like sizes.

        For an mLSTM with heads of size 64 and 128, 1 and 8 rows and up to 8192 steps on
        two CPU cores, training times with chunks of 32 to 128 steps differed by little
        more than noise. Longer chunks were slower, with larger rounding errors.
        """
        count = -(-run.steps.time // self.largest)
        return -(-run.steps.time // count)


def arithmetic_dtype(inputs: Array, state: PyTree) -> DType:
    """The widest dtype of inputs and state, at least float32."""
    return at_least_float32(widest_dtype((inputs, state)))


def with_states_in(dtype: DType, run: Run) -> Run:
    """The run with a dtype for its states, also of restarts and finished rows."""
    steps = run.steps
    state, restart_states = cast((run.state, steps.restart_states), dtype)
    steps = steps.with_restart_states(restart_states)
    if steps.stand_in is not None:
        inputs, of_finished = steps.stand_in
        stand_in = inputs, cast(of_finished, dtype)
        steps = dataclasses.replace(steps, stand_in=stand_in)
    return run.replace(state=state, steps=steps)


def _chunk(values: PyTree, state: PyTree, steps: Steps) -> Chunk:
    """The chunk of `steps`, with zeros in place of states that no step reads.

    Args:
        values: What the steps read and write, leaves `[batch, heads, steps, ...]`.
        state: The state before the chunk.
        steps: The steps.
    """
    size = steps.time
    reads = jnp.tril(jnp.ones((size, size), bool))[None, None]
    restart_states = is_carried = None
    if steps.restarts is not None:
        where = steps.swap_rows(steps.restarts)
        # XLA for CPUs would compute the parts of `cumsum` again for each pair of steps.
        spans = where.astype(jnp.float32) @ reads[0, 0].T.astype(jnp.float32)
        is_carried = (spans == 0)[:, None, :]
        reads &= spans[:, None, :, None] == spans[:, None, None, :]
        state = masking.zero_unless(~where[:, 0], state)
        if not steps.restarts_from_zeros:
            is_read = jnp.any(where, axis=1)
            restart_states = masking.zero_unless(is_read, steps.restart_states)
    state, restart_states = jax.tree.map(
        lambda x: x[:, :, None], (state, restart_states)
    )
    return Chunk(values, state, reads, restart_states, is_carried, steps.returns_states)


def finite_rows(state: PyTree) -> Array:
    """Whether each row of a state is finite; a scale `[rows, heads]` may be -inf."""
    each = [
        jnp.all(
            x < jnp.inf if x.ndim == 2 else jnp.isfinite(x), tuple(range(1, x.ndim))
        )
        for x in jax.tree.leaves(state)
    ]
    return functools.reduce(jnp.logical_and, each)
