"""Residual connections around a cell."""

from collections.abc import Callable
from typing import final

import jax
import jax.numpy as jnp

from .._base.errors import InvalidValue, describe
from .._base.trees import check_structure, map_named, with_structure
from .._base.typing import Array, Key, Params, PyTree
from .._cells import fields
from .._loops.steps import DeclinedError, Run
from .base import WrapperCell


@final
@fields.dataclass
class ResidualWrapper(WrapperCell):
    """Adds the inputs of a cell to its output; the new state is unaffected.

    Attributes:
        cell: The wrapped cell.
        residual_fn: `residual_fn(inputs, outputs)`, which replaces the sum and returns
            arrays with the shapes of `output_size`; None for the sum.

    Raises:
        TypeError: If `cell` is not an RNNCell, or `residual_fn` is not a function.

    Source: arXiv:1609.08144; `tf.compat.v1.nn.rnn_cell.ResidualWrapper`.
    """

    residual_fn: Callable[[PyTree, PyTree], PyTree] | None = fields.function(
        default=None
    )

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step; see `RNNCell.apply`.

        Raises:
            ValueError: If there is no `residual_fn`, and inputs and output differ in
                structure or shape.
        """
        output, new_state = self.cell.apply(params, inputs, state, key)
        return (self.residual_fn or _add)(inputs, output), new_state

    def apply_sequence(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Runs all steps, then adds the inputs; see `RNNCell.apply_sequence`.

        Raises:
            DeclinedError: If there is a `residual_fn`, or the cell declines.
        """
        if self.residual_fn is not None:
            raise DeclinedError("`residual_fn` is a function of one step")
        outputs, state = self.cell.apply_sequence(params, run)

        def add(outputs: PyTree) -> PyTree:
            return run.steps.zero_dead(_add(run.inputs, outputs))

        return run.steps.map_outputs(add, outputs), state


def _add(inputs: PyTree, output: PyTree) -> PyTree:
    what = "`inputs`, to which the output is added,"
    check_structure(what, output, inputs, strict=False)
    leaves = iter(jax.tree.leaves(output))

    def add(name: str, x: Array) -> Array:
        y = next(leaves)
        if jnp.shape(x) != jnp.shape(y):
            raise InvalidValue(
                f"`{name}` must have the shape of the output "
                f"({describe(y)}), got {describe(x)}. Use a `residual_fn`."
            )
        return x + y

    return with_structure(output, map_named("inputs", add, inputs))
