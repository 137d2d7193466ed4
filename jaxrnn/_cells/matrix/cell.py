"""Cells whose state is a matrix for each head, and that run sequences in chunks.

A cell projects its inputs to the values of a *rule* (`rule.py`), which says what
a step reads and writes. Whole sequences run one chunk of steps at a time
(`_loops/memories/sequence.py`).
"""

import abc
import dataclasses
from typing import Any, ClassVar

from ..._base.arguments import check_instance
from ..._base.math import cast, widest_dtype
from ..._base.typing import Array, DType, Params, PyTree, State
from .. import fields
from ..base import SpecsCell
from .rule import MatrixRule, arithmetic_dtype


@fields.dataclass
class MatrixMemoryCell(SpecsCell[State]):
    """A cell that writes values at keys into a matrix, and reads them with queries.

    The queries, keys and values of a step depend only on the inputs of the step. Whole
    sequences are therefore run in chunks of consecutive steps. Attention connects the
    steps of a chunk, and only the state is passed from chunk to chunk.

    A subclass defines:

    - `rule`, the `MatrixRule` that reads and writes the memory in one step;
    - `project`, which computes the queries, keys and values;
    - `output`, `param_specs`, `state_size` and `output_size`.

    A cell without projections derives from `BareMemoryCell`, which defines everything
    in this list except `rule`.

    Arithmetic is done in at least float32. The state may have a wider dtype than
    the inputs; use a float32 state for bfloat16 inputs.
    """

    _: dataclasses.KW_ONLY
    chunk_size: int = fields.count(default=64)

    rule: ClassVar[Any]
    """The `MatrixRule`, which reads and changes the state in one step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name, rule = f"{type(self).__name__}.rule", getattr(self, "rule", None)
        check_instance(name, rule, MatrixRule, "a `MatrixRule`")

    @abc.abstractmethod
    def project(
        self, params: Params, inputs: Array, dtype: DType
    ) -> tuple[PyTree, PyTree]:
        """Computes the values of the rule from the inputs of one step.

        Args:
            params: The parameters.
            inputs: One step of inputs, `[batch, depth]` or a nest.
            dtype: The dtype of the results.

        Returns:
            `(rest, values)`. `rest` is passed to `output`, each leaf `[batch, ...]`.
            `values` are the values of the rule, each leaf `[batch, heads, ...]`.
        """

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
