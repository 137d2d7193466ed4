"""Cells whose state is a matrix for each head, and that run sequences in chunks.

A cell projects its inputs to the values of a *rule* (`rule.py`), which says what
a step reads and writes. Whole sequences run one chunk of steps at a time
(`sequence.py`).
"""

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..._base.arguments import check_instance
from ..._base.math import cast, widest_dtype
from ..._base.typing import Array, DType, Params, PyTree, State
from ..._run import masking
from ..._run.run import Choice, Run
from .. import fields
from ..base import SpecsCell, Transition, choose_many_steps
from .published_kernels import PACKAGES, choose_kernel
from .rule import Chunk, MatrixRule
from .sequence import MemoryLoop, arithmetic_dtype, finite_rows


@fields.dataclass
class MatrixMemoryCell(SpecsCell[State]):
    """A cell that writes values at keys into a matrix, and reads them with queries.

    The queries, keys and values of a step depend only on the inputs of the step. Whole
    sequences are therefore run in chunks of consecutive steps. Attention connects the
    steps of a chunk, and only the state is passed from chunk to chunk. A cell has a
    rule, which runs one step or all steps of a chunk, and projections of its inputs
    (`project`) and of what the steps read (`output`). A cell defines these three,
    `param_specs`, `state_size` and `output_size`. A cell without projections derives
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
    ) -> tuple[Array, State]:
        """Runs one step with checked arguments; see `SpecsCell.step`."""
        dtype = arithmetic_dtype(inputs, state)
        rest, values = self.project(params, inputs, dtype)
        h, new_state = self.rule.step(values, cast(state, dtype))
        output = self.output(params, h, rest).astype(widest_dtype(inputs))
        return output, self.rule.stored(state, new_state)

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses a loop over chunks of steps; see `RNNCell.choose_loop`."""
        rule = self.rule
        if run.implementation in PACKAGES:
            return choose_kernel(self, params, run)
        if rule.chunk is None:
            return Choice.scan(f"{type(rule).__name__} has no `chunk`")

        def loop(params: Params, run: Run) -> tuple[PyTree, PyTree]:
            outputs, state = self._memory_loop(run).run(params, run)
            return outputs, rule.stored(run.state, state)

        return choose_many_steps("chunks", self, loop, run)

    def _memory_loop(self, run: Run) -> MemoryLoop:
        """The loop of `run`; only types are read."""
        rule = self.rule
        return MemoryLoop(
            rule=rule,
            project=self.project,
            step=rule.step,
            chunk=rule.chunk,
            output=self.output,
            largest=self.steps_at_once(run),
        )

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
            loop = self._memory_loop(run)
            no_output = lambda params, h, rest: None
            loop = dataclasses.replace(loop, step=step, chunk=chunk, output=no_output)
            return loop.run(params, run)[1]

        def map_state(*given: PyTree) -> PyTree:
            # A row that is not finite has no derivative. It would spoil the gradients
            # of other parts, because 0 * NaN is NaN.
            found = jax.lax.stop_gradient(map_finite(*given))
            is_finite = finite_rows(found)
            mapped = map_finite(*masking.zero_unless(is_finite, given))
            return masking.select(is_finite, mapped, found)

        return Transition(map_of_steps, identity, constant, map_state, rule.stored)
