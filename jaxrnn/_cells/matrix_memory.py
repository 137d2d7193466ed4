"""`MatrixMemoryCell`: cells whose state is a matrix for each head."""

import abc
import dataclasses
from typing import Any

import jax

from .._base.math import cast_like
from .._base.typing import Array, DType, Params, PyTree
from .._loops.choice import Choice
from .._loops.matrix_memory import Chunk, arithmetic_dtype, cast, memory_sequence
from .._loops.steps import Run
from . import fields
from .base import SpecsCell, scope_name
from .linear_recurrence import choose_many_steps, for_many_steps


@fields.dataclass
class MatrixMemoryCell(SpecsCell):
    """A cell that writes values at keys into a matrix, and reads them with queries.

    The queries, keys and values of a step depend only on the inputs of the step. Whole
    sequences are therefore run in chunks of consecutive steps. Attention connects the
    steps of a chunk, and only the state is passed from chunk to chunk. A subclass
    defines `update`, which runs one step, and `attend`, which runs all steps of a chunk
    at once.

    Arithmetic is done in at least float32. The state may be wider than the inputs; use
    a float32 state for bfloat16 inputs.
    """

    _: dataclasses.KW_ONLY
    chunk_size: int = fields.count(default=64)

    @abc.abstractmethod
    def idle(self) -> Any:
        """The values for a finished row, with which a step does not change the state.

        The leaves are scalars.
        """

    @abc.abstractmethod
    def project(
        self, params: Params, inputs: Array, dtype: DType
    ) -> tuple[PyTree, PyTree]:
        """Computes what depends only on the inputs of a step.

        Args:
            params: The parameters.
            inputs: One step of inputs, `[batch, depth]`.
            dtype: The dtype of the results.

        Returns:
            `(rest, values)`: what `output` needs, leaves `[batch, ...]`; and what the
            step reads and writes, leaves `[batch, heads, ...]`.
        """

    @abc.abstractmethod
    def update(self, values: Any, state: Any) -> tuple[Array, PyTree]:
        """Runs one step.

        Returns:
            `(h, state)`: what the step reads, `[batch, heads, size]`, and the new
            state.
        """

    @abc.abstractmethod
    def attend(self, chunk: Chunk) -> tuple[Array, PyTree]:
        """Runs all steps of a chunk.

        Returns:
            `(h, states)`: what the steps read, `[batch, heads, steps, size]`, and
            states with leaves `[batch, heads, n, ...]`. If `chunk.returns_states`,
            these are the states after each step, otherwise only the last state (n = 1).
        """

    @abc.abstractmethod
    def output(self, params: Params, h: Array, rest: PyTree) -> Array:
        """The output of one step, `[batch, units]`."""

    def stored(self, state: PyTree, like: PyTree) -> PyTree:
        """The state, cast to the dtypes of `like`."""
        return cast_like(like, state)

    def step(
        self, params: Params, inputs: Array, state: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Runs one step with checked arguments; see `SpecsCell.step`."""
        dtype = arithmetic_dtype(inputs, state)
        rest, values = self.project(params, inputs, dtype)
        h, new_state = self.update(values, cast(state, dtype))
        output = self.output(params, h, rest)
        return output.astype(inputs.dtype), self.stored(new_state, state)

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses a loop over chunks of steps; see `RNNCell.choose_loop`."""
        return choose_many_steps("chunks", self, run)

    def apply_sequence(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Runs all steps in chunks; see `RNNCell.apply_sequence`."""
        params, run = for_many_steps(self, params, run)
        with jax.named_scope(scope_name(self)):
            return memory_sequence(self, params, run)
