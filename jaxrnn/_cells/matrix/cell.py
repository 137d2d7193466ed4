"""Cells whose state is a matrix for each head, and that run sequences in chunks.

A cell projects its inputs to the values of a *rule* (`rule.py`), which says what
a step reads and writes. Whole sequences run one chunk of steps at a time.

The products of a chunk also multiply steps that do not read each other, by 0. With
0 * NaN = NaN, a step that is not finite would therefore spoil earlier steps and other
spans, in values and in gradients. So where a step might overflow (`safety_check`), the
chunk reads zeros instead of its inputs. Where rows restart, zeros also replace a state
that is not finite. The results are NaN from such a step or state to the end of its
span. Without restarts, all steps of a chunk read the state.

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

from ..._base.derivatives import summed_in_float32
from ..._base.math import at_least_float32, cast, widest_dtype
from ..._base.typing import Array, DType, Params, PyTree
from ..._run import masking
from ..._run.masking import Steps
from ..._run.run import Choice, Run
from ..._run.scans import at_each_step, run_in_segments
from .. import fields
from ..base import SpecsCell, Transition, choose_many_steps
from .rule import Chunk


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

    def safety_check(self, params: Params, dtype: DType) -> Callable[..., Array]:
        """A function that tells which steps a chunk may read.

        The function maps the inputs of a chunk, the state before it and its steps to
        bool, with the first two axes of the inputs. Where the result is False, steps
        read zeros, and their results are NaN. By default, the products of the step with
        the parameter `kernel` must not overflow; a cell without this parameter defines
        the method.
        """
        kernel = jax.lax.stop_gradient(params["kernel"].astype(dtype))
        largest = jnp.max(jnp.abs(kernel), axis=1, initial=0)
        return lambda inputs, state, steps: _may_multiply(inputs, largest)

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
        rest, values = self.project(params, inputs, dtype)
        h, new_state = self.rule.step(values, cast(state, dtype))
        output = self.output(params, h, rest)
        return output.astype(widest_dtype(inputs)), self.rule.stored(state, new_state)

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses a loop over chunks of steps; see `RNNCell.choose_loop`."""
        rule = self.rule
        if rule.chunk is None:
            return Choice.scan(f"{type(rule).__name__} has no `chunk`")

        def loop(params: Params, run: Run) -> tuple[PyTree, PyTree]:
            outputs, last = memory_sequence(self, rule.chunk, self.output, params, run)
            return outputs, rule.stored(run.state, last)

        return choose_many_steps("chunks", self, loop, run)

    def transition(self) -> Transition | None:
        """The functions of the rule; see `RNNCell.transition`."""
        rule = self.rule
        found = rule.transition()
        if found is None:
            return None
        chunk, identity, constant, map_finite = found

        def run_all(params: Params, run: Run) -> PyTree:
            output = lambda params, h, rest: None
            return memory_sequence(self, chunk, output, params, run)[1]

        def map_state(transition: PyTree, state: PyTree) -> PyTree:
            # If the map or the state is not finite, the result is NaN. Products would
            # spoil the gradients of other parts, because 0 * NaN is NaN.
            (transition, state), is_finite = only_finite((transition, state))
            return with_nan(is_finite, map_finite(transition, state))

        return Transition(run_all, identity, constant, map_state, rule.stored)


def memory_sequence(
    cell: MatrixMemoryCell,
    run_chunk: Callable[[Chunk], tuple[Array, PyTree]],
    output: Callable[[Params, Array, PyTree], PyTree],
    params: Params,
    run: Run,
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of all steps, as from a scan of single steps.

    Args:
        cell: The cell, which projects the inputs to the values of its rule.
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
    params_in_loop = summed_in_float32(params)
    are_finite = cell.safety_check(params, dtype)

    def run_steps(inputs: PyTree, state: PyTree, steps: Steps) -> tuple[PyTree, PyTree]:
        params = params_in_loop()
        inputs = steps.fill_finished(inputs)
        is_finite = are_finite(inputs, state, steps)
        project = functools.partial(cell.project, params, dtype=dtype)
        rest, values = at_each_step(project, masking.zero_unless(is_finite, inputs))
        alive = steps.alive_steps()
        if alive is not None:
            values = masking.select(alive, values, cell.rule.idle)
            is_finite |= ~alive
        chunk, starts_finite = _chunk(_move_axis(values, steps.axis, 2), state, steps)
        is_finite = jnp.swapaxes(is_finite, 1, steps.axis)
        is_finite = _reads_finite(chunk, starts_finite, is_finite)
        h, states = run_chunk(chunk)
        hs = _move_axis(h, 2, steps.axis)
        results = at_each_step(functools.partial(output, params), hs, rest)
        results = cast(results, widest_dtype(run.inputs))
        last = jax.tree.map(lambda x: x[:, :, -1], states)
        if steps.returns_states:
            states = cell.rule.stored(run.state, _move_axis(states, 2, steps.axis))
            results = results, states
        results = with_nan(jnp.swapaxes(is_finite, 1, steps.axis), results)
        results = steps.map_outputs(steps.zero_finished, results)
        return results, with_nan(is_finite[:, -1], last)

    steps = run.steps
    if steps.restarts is not None:
        restart_states = only_finite(cast(steps.restart_states, dtype))
        steps = steps.with_restart_states(restart_states)
    size = steps_in_chunk(steps.time, cell.steps_at_once(run))
    return run_in_segments(size, run_steps, run.inputs, cast(run.state, dtype), steps)


def _may_multiply(inputs: Array, largest: Array) -> Array:
    """Whether no product of a step with the kernel overflows, bool per row and step.

    A bound of the products decides, because to read all products would cost 6 % of a
    forward pass on a CPU. The bound is NaN, so the result is False, if an input is NaN.

    Args:
        inputs: The inputs, `[batch, steps, depth]` or `[steps, batch, depth]`.
        largest: The largest magnitude in each row of the kernel, `[depth]`.
    """
    inputs = jax.lax.stop_gradient(inputs).astype(largest.dtype)
    # A matrix product takes a third of the time of a reduction.
    bound = jnp.einsum("btd,d->bt", jnp.abs(inputs), largest)
    return bound < float(jnp.finfo(largest.dtype).max) / 2


def arithmetic_dtype(inputs: Array, state: PyTree) -> DType:
    """The widest dtype of inputs and state, at least float32."""
    return at_least_float32(widest_dtype((inputs, state)))


def steps_in_chunk(time: int, most: int) -> int:
    """The number of steps in each chunk except the last, at most `most`.

    For an mLSTM with heads of size 64 and 128, 1 and 8 rows and up to 8192 steps on two
    CPU cores, training times with chunks of 32 to 128 steps differed by little more
    than noise. Longer chunks were slower, with larger rounding errors.
    """
    return -(-time // -(-time // most))


def _move_axis(tree: PyTree, source: int, place: int) -> PyTree:
    return jax.tree.map(lambda x: jnp.moveaxis(x, source, place), tree)


def _chunk(values: PyTree, state: PyTree, steps: Steps) -> tuple[Chunk, Array]:
    """The chunk of `steps`, and which steps' spans start from a finite state.

    Args:
        values: What the steps read and write, leaves `[batch, heads, steps, ...]`.
        state: The state before the chunk.
        steps: The steps; the restart states are from `only_finite`.

    Returns:
        `(chunk, starts_finite)`: `starts_finite` is bool `[1 or batch, 1, 1 or steps]`.
    """
    size = steps.time
    causal = jnp.tril(jnp.ones((size, size), bool))[None, None]
    if steps.restarts is None:  # All steps read the state.
        state = jax.tree.map(lambda x: x[:, :, None], state)
        chunk = Chunk(values, state, causal, returns_states=steps.returns_states)
        return chunk, jnp.ones((1, 1, 1), bool)
    state, starts_finite = jax.tree.map(lambda x: x[:, :, None], only_finite(state))
    spans = jnp.cumsum(steps.swap_rows(steps.restarts), axis=1)
    is_carried = (spans == 0)[:, None, :]
    reads = causal & (spans[:, None, :, None] == spans[:, None, None, :])
    restart_states: Any = None
    is_restart_finite: Any = True
    if not steps.restarts_from_zeros:
        restart_states, is_restart_finite = jax.tree.map(
            lambda x: x[:, :, None], steps.restart_states
        )
    of_spans = restart_states, is_carried
    chunk = Chunk(values, state, reads, *of_spans, steps.returns_states)
    return chunk, jnp.where(is_carried, starts_finite, is_restart_finite)


def _reads_finite(chunk: Chunk, starts_finite: Array, is_finite: Array) -> Array:
    """Whether all that a step reads is finite, bool `[batch, steps]`.

    Args:
        chunk: The chunk.
        starts_finite: Bool `[1 or batch, 1, 1 or steps]`, from `_chunk`.
        is_finite: Bool `[batch, steps]`, whether the inputs of each step are finite.
    """
    # A matrix product counts the steps faster than a reduction.
    reads = chunk.reads[:, 0].astype(jnp.float32)
    reads = jnp.broadcast_to(reads, (is_finite.shape[0], *reads.shape[1:]))
    count = jnp.einsum("bts,bs->bt", reads, (~is_finite).astype(jnp.float32))
    return starts_finite[:, 0] & (count == 0)


def only_finite(state: PyTree) -> tuple[PyTree, Array]:
    """`(state, is_finite)`, with zeros in the rows of the state that are not finite.

    Args:
        state: Leaves `[rows, heads, ...]`. A scale `[rows, heads]` may also be -inf.

    Returns:
        The state, and bool `[rows, 1]`.
    """
    each = [
        jnp.all(
            x < jnp.inf if x.ndim == 2 else jnp.isfinite(x), tuple(range(1, x.ndim))
        )
        for x in jax.tree.leaves(state)
    ]
    is_finite = functools.reduce(jnp.logical_and, each)
    return masking.zero_unless(is_finite, state), is_finite[:, None]


def with_nan(is_finite: Array, tree: PyTree) -> PyTree:
    """Replaces values by NaN where `is_finite` is false."""
    return masking.select(is_finite, tree, jax.tree.map(lambda x: jnp.nan, tree))
