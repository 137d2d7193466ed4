"""Runs the steps of a matrix memory in chunks, such as 32 steps at once.

The matrix products of a chunk multiply values of steps that do not read each other by
0. Because 0 * NaN is NaN, an input or state that is not finite would therefore spoil
earlier steps and steps after resets, in values and in gradients. So a chunk replaces
such an input by values that do not change the state, and such a state by zeros. The
results are then replaced by NaN, from this step to the next reset. Finite inputs whose
products overflow may still spoil their whole chunk of the row.

If there are several chunks, derivatives save only the inputs and the states before
chunks, and the backward pass computes each chunk again.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..._base.derivatives import with_float32_gradients
from ..._base.errors import is_array
from ..._base.math import cast, expand_rows, move_axes, widest_dtype
from ..._base.typing import Array, DType, Params, PyTree
from ..._cells.matrix.rule import MatrixRule, arithmetic_dtype
from ..._run import masking
from ..._run.run import Run
from ..._run.scans import at_each_step, run_in_parts
from .chunk import Chunk
from .rules import as_chunk_results


@dataclasses.dataclass(frozen=True)
class MemoryLoop:
    """Runs the steps of a matrix memory in chunks.

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
        """Runs all steps; returns the same `(outputs, state)` as a scan."""
        outputs, state = self.run_wide(params, run)
        return outputs, self.rule.stored(run.state, state)

    def run_wide(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Runs all steps; returns the last state in the dtype of the arithmetic.

        Args:
            params: The cell's parameters.
            run: Inputs `[batch, time, ...]`, or `[time, batch, ...]` if `steps.axis` is
                0, with at least one step, and the initial state. If
                `steps.returns_states`, the outputs are pairs `(output, new_state)`.
        """
        params_in_loop = with_float32_gradients(params)

        def run_chunk(part: Run) -> tuple[PyTree, PyTree]:
            outputs, states, last = self._run_chunk(params_in_loop(), part)
            if part.steps.returns_states:
                outputs = outputs, self.rule.stored(run.state, states)
            return outputs, last

        wide = with_states_in(arithmetic_dtype(run.inputs, run.state), run)
        return run_in_parts(self._chunk_size(run), run_chunk, wide)

    def _run_chunk(self, params: Params, part: Run) -> tuple[PyTree, PyTree, PyTree]:
        """Returns the outputs, the state after each step, and the last state."""
        steps, axis = part.steps, part.steps.axis
        rest, values, is_finite = self._finite_values(params, part)
        state_is_finite = finite_rows(part.state)
        state = masking.zero_unless(state_is_finite, part.state)
        finite = part.replace(state=state)
        chunk = _chunk(move_axes(values, axis, 2), finite)
        h, states = as_chunk_results(self.rule, self.chunk(chunk), chunk, self.step)

        spoiled = _spoiled(chunk, steps.to_batch_major(is_finite), state_is_finite)
        last = _nan_where(spoiled[:, -1], jax.tree.map(lambda x: x[:, :, -1], states))
        spoiled = steps.from_batch_major(spoiled)
        outputs = outputs_of(self, params, jnp.moveaxis(h, 2, axis), rest, part)
        outputs = steps.zero_finished(_nan_where(spoiled, outputs))
        states = _nan_where(spoiled, move_axes(states, 2, axis))
        return outputs, states, last

    def _finite_values(self, params: Params, part: Run) -> tuple[PyTree, PyTree, Array]:
        """Returns `(rest, values, is_finite)` of all steps; see `project`.

        `is_finite` is bool, in the layout of the inputs. A step that is not finite gets
        the results of zero inputs, or idle `values` and zeros for `rest`.
        """
        if is_array(part.inputs):
            # The gradients of kernels multiply the inputs, also by 0.
            is_finite = _once(_finite_steps(part.inputs))
            part = part.replace(inputs=masking.zero_unless(is_finite, part.inputs))
            rest, values = projected(self, params, part)
        else:
            rest, values = projected(self, params, part)
            is_finite = _once(_finite_steps(values, self.rule.idle))
            rest = masking.zero_unless(is_finite, rest)
            values = masking.select(is_finite, values, self.rule.idle)
        return rest, values, part.steps.select_unfinished(is_finite, True)

    def _chunk_size(self, run: Run) -> int:
        """The number of steps in a chunk, such that the last chunk is not much shorter.

        For an mLSTM with heads of size 64 and 128, 1 and 8 rows and up to 8192 steps on
        two CPU cores, training times with chunks of 32 to 128 steps differed by little
        more than noise. Longer chunks were slower, with larger rounding errors.
        """
        count = -(-run.steps.time // self.largest(run))
        return -(-run.steps.time // count)


def projected(memory: Any, params: Params, part: Run) -> tuple[PyTree, PyTree]:
    """Applies `memory.project` to all steps; returns `(rest, values)`."""
    dtype = arithmetic_dtype(part.inputs, part.state)
    project = functools.partial(memory.project, params, dtype=dtype)
    rest, values = at_each_step(project, part.steps.fill_finished(part.inputs))
    return rest, part.steps.select_unfinished(values, memory.rule.idle)


def outputs_of(
    memory: Any, params: Params, h: Array, rest: PyTree, part: Run
) -> PyTree:
    """Applies `memory.output` to all steps; outputs of finished rows are arbitrary."""
    outputs = at_each_step(functools.partial(memory.output, params), h, rest)
    return cast(outputs, widest_dtype(part.inputs))


def with_states_in(dtype: DType, run: Run) -> Run:
    """Casts the states of a run to `dtype`, also the reset state and the stand-in."""
    steps = run.steps
    state, reset_state = cast((run.state, run.reset_state), dtype)
    if steps.stand_in is not None:
        inputs, of_finished = steps.stand_in
        stand_in = inputs, cast(of_finished, dtype)
        steps = dataclasses.replace(steps, stand_in=stand_in)
    return run.replace(state=state, reset_state=reset_state, steps=steps)


def _chunk(values: PyTree, part: Run) -> Chunk:
    """Makes the chunk of `part`, with zeros in place of states that no step reads.

    Args:
        values: The values of the rule, leaves `[batch, heads, steps, ...]`.
        part: The steps, and the states before them.
    """
    steps, state = part.steps, part.state
    size = steps.time
    reads = jnp.tril(jnp.ones((size, size), bool))[None, None]
    reset_state = is_carried = None
    if steps.resets is not None:
        resets = steps.to_batch_major(steps.resets)
        # XLA for CPUs would compute a `cumsum` again for each pair of steps.
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


def _finite_steps(tree: PyTree, idle: PyTree = None) -> Array:
    """Whether each step of each row is finite, bool in the layout of the inputs.

    Args:
        tree: Leaves `[batch, time, ...]` or `[time, batch, ...]`.
        idle: Numbers, one for each leaf, that count as finite.
    """
    leaves = jax.tree.leaves(tree)
    idles = [0.0] * len(leaves) if idle is None else jax.tree.leaves(idle)

    def of_leaf(x: Array, idle: float) -> Array:
        is_finite = jnp.isfinite(x)
        if math.isinf(idle):
            is_finite |= x == idle
        return jnp.all(is_finite, axis=tuple(range(2, x.ndim)))

    return functools.reduce(jnp.logical_and, map(of_leaf, leaves, idles))


def _spoiled(chunk: Chunk, steps: Array, state: Array) -> Array:
    """Finds steps that depend on values that are not finite.

    Args:
        chunk: The chunk.
        steps: Whether each step is finite, `[batch, steps]`.
        state: Whether the state before the chunk is finite, `[batch]`.

    Returns:
        Bool `[batch, steps]`: true if the step, an earlier step of its span, or the
        state from which the span starts is not finite.
    """
    starts = ~state[:, None]
    if chunk.is_carried is not None:
        starts &= chunk.is_carried[:, 0]
    return _once(jnp.any(chunk.reads[:, 0] & ~steps[:, None], axis=-1) | starts)


def _once(mask: Array) -> Array:
    """Makes XLA compute the mask once, not again for each number that it masks."""
    return jax.lax.optimization_barrier(mask)


def _nan_where(spoiled: Array, tree: PyTree) -> PyTree:
    """Replaces the leaves of `tree`, `[rows, ...]`, by NaN where `spoiled` is true."""
    nan_or = lambda x: jnp.where(expand_rows(spoiled, x), jnp.nan, x)
    return jax.tree.map(nan_or, tree)
