"""Cells whose state is a matrix for each head, and that run sequences in chunks.

A cell projects its inputs to the values of a *rule* (`rule.py`), which says what
a step reads and writes. Whole sequences run one chunk of steps at a time.

The products of a chunk also multiply steps that do not read each other, by 0. With
0 * NaN = NaN, a step that is not finite would therefore spoil earlier steps and other
spans, in values and in gradients. So if a number that a chunk computed is not finite,
all steps run again, one after another, which also tells after which steps the state is
not finite. A derivative reads zeros in place of these steps and states.

If there are several chunks, derivatives save only the inputs and the states before
chunks, and the backward pass computes each chunk again.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..._base.arguments import check_instance
from ..._base.derivatives import (
    differentiated_as,
    summed_in_float32,
    with_tangent_of,
)
from ..._base.math import at_least_float32, batch_maximum, cast, move_axes, widest_dtype
from ..._base.typing import Array, DType, Params, PyTree
from ..._run import masking
from ..._run.masking import Steps
from ..._run.run import Choice, Run
from ..._run.scans import RunSteps, at_each_step, run_in_parts, scan_steps
from .. import fields
from ..base import SpecsCell, Transition, choose_many_steps
from ..step_checks import as_chunk_results
from .rule import Chunk, MatrixRule


@fields.dataclass
class MatrixMemoryCell(SpecsCell):
    """A cell that writes values at keys into a matrix, and reads them with queries.

    The queries, keys and values of a step depend only on the inputs of the step. Whole
    sequences are therefore run in chunks of consecutive steps. Attention connects the
    steps of a chunk, and only the state is passed from chunk to chunk. A cell has a
    rule, which runs one step or all steps of a chunk, and projections of its inputs
    (`project`) and of what the steps read (`output`). A cell defines these three,
    `param_specs`, `state_size` and `output_size`. A cell without parameters derives
    from `BareMemoryCell`, which defines all but the rule.

    Arithmetic is done in at least float32. The state may have a wider dtype than
    the inputs; use a float32 state for bfloat16 inputs.
    """

    _: dataclasses.KW_ONLY
    chunk_size: int = fields.count(default=64)

    rule: ClassVar[Any]
    """The `MatrixRule`: how a step changes the state, and what the step reads."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name, rule = f"{type(self).__name__}.rule", getattr(self, "rule", None)
        check_instance(name, rule, MatrixRule, "a `MatrixRule`")

    @abc.abstractmethod
    def project(
        self, params: Params, inputs: Array, dtype: DType
    ) -> tuple[PyTree, PyTree]:
        """Computes what depends only on the inputs of a step.

        Args:
            params: The parameters.
            inputs: One step of inputs, `[batch, depth]` or a nest.
            dtype: The dtype of the results.

        Returns:
            `(rest, values)`: what `output` needs, leaves `[batch, ...]`; and the values
            of the rule, leaves `[batch, heads, ...]`.
        """

    def steps_at_once(self, run: Run) -> int:
        """The largest number of steps in a chunk of `run`; only types are read."""
        return self.chunk_size

    @abc.abstractmethod
    def output(self, params: Params, h: Array, rest: PyTree) -> Array:
        """The output of one step, `[batch, units]` or `[batch, heads, size]`.

        Args:
            params: The parameters.
            h: What the step reads, `[batch, heads, size]`.
            rest: The first result of `project`, leaves `[batch, ...]`.
        """

    def step(
        self, params: Params, inputs: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Runs one step with checked arguments; see `SpecsCell.step`."""
        dtype = arithmetic_dtype(inputs, state)
        output, new_state = self.step_in(dtype, params, inputs, cast(state, dtype))
        return output, self.rule.stored(state, new_state)

    def step_in(
        self, dtype: DType, params: Params, inputs: PyTree, state: PyTree
    ) -> tuple[Array, PyTree]:
        """Runs one step; the state before it, and the new state, have this dtype."""
        rest, values = self.project(params, inputs, dtype)
        h, new_state = self.rule.step(values, state)
        output = self.output(params, h, rest)
        return output.astype(widest_dtype(inputs)), new_state

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses a loop over chunks of steps; see `RNNCell.choose_loop`."""
        rule = self.rule
        if rule.chunk is None:
            return Choice.scan(f"{type(rule).__name__} has no `chunk`")

        def loop(params: Params, run: Run) -> tuple[PyTree, PyTree]:
            made = memory_sequence(
                self, rule.step, rule.chunk, self.output, params, run
            )
            return made[0], rule.stored(run.state, made[1])

        return choose_many_steps("chunks", self, loop, run)

    def transition(self) -> Transition | None:
        """The functions of the rule; see `RNNCell.transition`."""
        rule = self.rule
        found = rule.transition()
        if found is None:
            return None
        chunk, identity, constant, map_finite = found

        def step(values: PyTree, state: PyTree) -> tuple[Array, PyTree]:
            add_time = lambda tree: jax.tree.map(lambda x: x[:, :, None], tree)
            reads = jnp.ones((1, 1, 1, 1), bool)
            results = chunk(Chunk(add_time(values), add_time(state), reads))
            return jax.tree.map(lambda x: x[:, :, 0], results)

        def map_of_steps(params: Params, run: Run) -> PyTree:
            output = lambda params, h, rest: None
            return memory_sequence(self, step, chunk, output, params, run)[1]

        def map_state(*given: PyTree) -> PyTree:
            # A row that is not finite has no derivative. It would spoil the gradients
            # of other parts, because 0 * NaN is NaN.
            found = jax.lax.stop_gradient(map_finite(*given))
            is_finite = finite_rows(found)
            mapped = map_finite(*masking.zero_unless(is_finite, given))
            return masking.select(is_finite, mapped, found)

        return Transition(map_of_steps, identity, constant, map_state, rule.stored)


def memory_sequence(
    cell: MatrixMemoryCell,
    step: Callable[[PyTree, PyTree], tuple[Array, PyTree]],
    run_chunk: Callable[[Chunk], tuple[Array, PyTree]],
    output: Callable[[Params, Array, PyTree], PyTree],
    params: Params,
    run: Run,
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of all steps, as from a scan of single steps.

    Args:
        cell: The cell, which projects the inputs to the values of its rule.
        step: Runs one step; see `MatrixRule.step`.
        run_chunk: Runs all steps of a chunk; see `MatrixRule.chunk`.
        output: The output of one step; see `MatrixMemoryCell.output`.
        params: The cell's parameters.
        run: Inputs `[batch, time, ...]`, or `[time, batch, ...]` if `steps.axis` is 0,
            with at least one step, and the initial state. If `steps.returns_states` is
            true, the outputs are pairs `(output, new_state)`.

    Returns:
        The outputs, and the last state in the dtype of the arithmetic.
    """
    dtype = arithmetic_dtype(run.inputs, run.state)
    output_dtype = widest_dtype(run.inputs)
    size = equal_chunk_size(run.steps.time, cell.steps_at_once(run))

    def in_parts(run_steps: RunSteps, inputs: PyTree, run: Run) -> tuple:
        """`(outputs, last, is_finite, states)`, with the states before the parts."""

        def run_one(inputs: PyTree, state: PyTree, steps: Steps) -> tuple:
            before = jax.tree.map(lambda x: jnp.expand_dims(x, steps.axis), state)
            made, last = run_steps(inputs, state, steps)
            if not steps.returns_states:
                return (*made, before), last
            (outputs, is_finite), states = made
            states = cell.rule.stored(run.state, states)
            return ((outputs, states), is_finite, before), last

        wide = with_states_in(dtype, run)
        made, last = run_in_parts(size, run_one, inputs, wide.state, wide.steps)
        outputs, is_finite, states = made
        return outputs, last, is_finite, run.steps.swap_time(states)

    def in_steps(params: Params, run: Run) -> tuple:
        """All steps, one after another."""

        def apply(t: Array, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
            rest, values = cell.project(params, inputs, dtype)
            h, state = step(values, state)
            made = cast(output(params, h, rest), output_dtype)
            return (made, (finite_rows(state), finite_rows(h))), state

        return in_parts(functools.partial(scan_steps, apply), run.inputs, run)

    def in_chunks(params: Params, run: Run, is_finite: Any, known: Any) -> tuple:
        """All steps in chunks.

        If the states before the chunks are `known`, only the tangents of the results
        are used. They do not depend on what is not finite: a new state or, if only what
        a step reads is not finite, the query of this step.
        """
        params_in_loop = summed_in_float32(params)

        def run_steps(inputs: PyTree, state: PyTree, steps: Steps) -> tuple:
            params = params_in_loop()
            inputs, (keeps, reads) = inputs
            if known is not None:
                # The state has the known value, so the first pass is not repeated.
                inputs = masking.zero_unless(keeps, inputs)
                first = jnp.int32(0)
                start = run.steps.index_in_run(first)
                i = (steps.index_in_run(first) - start) // size
                at = functools.partial(jax.lax.dynamic_index_in_dim, keepdims=False)
                before = jax.tree.map(lambda x: at(x, i), known)
                state = jax.tree.map(with_tangent_of, before, state)
                state = masking.zero_unless(finite_rows(before), state)
            project = functools.partial(cell.project, params, dtype=dtype)
            rest, values = at_each_step(project, steps.fill_finished(inputs))
            alive = steps.alive_steps()
            if alive is not None:
                values = masking.select(alive, values, cell.rule.idle)
            if known is not None and "q" in values._fields:
                values = values._replace(q=masking.zero_unless(reads, values.q))
            values = move_axes(values, steps.axis, 2)
            chunk = _chunk(values, state, steps)
            h, states = as_chunk_results(cell.rule, run_chunk(chunk), chunk, step)
            last = jax.tree.map(lambda x: x[:, :, -1], states)
            h = jnp.moveaxis(h, 2, steps.axis)
            made = at_each_step(functools.partial(output, params), h, rest)
            made = steps.zero_finished(cast(made, output_dtype))
            states = move_axes(states, 2, steps.axis)
            if known is not None:
                made = masking.zero_unless(reads, made)
                states = masking.zero_unless(keeps, states)
            made = made, (jnp.all(jnp.isfinite(h), (2, 3)),) * 2
            return (made, states) if steps.returns_states else made, last

        return in_parts(run_steps, (run.inputs, is_finite), run)

    def compute(params: Params, run: Run) -> tuple:
        # One condition for the whole run: a device waits for it once.
        made = in_chunks(params, run, (None, None), None)
        failed = ~(jnp.all(made[2][1]) & jnp.all(finite_rows(made[1])))
        again = functools.partial(in_steps, params, run)
        return jax.lax.cond(batch_maximum(failed), again, lambda: made)

    def derived(params: Params, run: Run) -> tuple[PyTree, PyTree]:
        found = compute(*jax.lax.stop_gradient((params, run)))
        outputs, last, is_finite, known = found
        same, same_last, *_ = in_chunks(params, run, is_finite, known)
        same = same, masking.zero_unless(finite_rows(last), same_last)
        return jax.tree.map(with_tangent_of, (outputs, last), same)

    return differentiated_as(derived, lambda *given: compute(*given)[:2])(params, run)


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


def equal_chunk_size(time: int, most: int) -> int:
    """The number of steps in each chunk except the last, at most `most`.

    For an mLSTM with heads of size 64 and 128, 1 and 8 rows and up to 8192 steps on two
    CPU cores, training times with chunks of 32 to 128 steps differed by little more
    than noise. Longer chunks were slower, with larger rounding errors.
    """
    return -(-time // -(-time // most))


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
        spans = jnp.cumsum(where, axis=1)
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
