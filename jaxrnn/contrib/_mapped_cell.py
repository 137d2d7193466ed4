"""Cells around a cell that map its inputs or its output, many steps at once."""

import functools
from typing import Any

import jax

from jaxrnn import RNNCell, Run

from .._base.cell_keys import check_key_or_none
from .._base.typing import DType, Key, Params, PyTree, Shaped
from .._cells.step_checks import check_step_inputs
from .._time.run import apply_cell_sequence
from .._time.steps import at_each_step
from .._wrappers.base import ParamsWrapper


class MappedCell(RNNCell):
    """A cell around another, with functions of one step before and after that one.

        given   = before(own, inputs)
        y, s'   = inner(given, s)
        output  = after(own, given, y)

    Both functions treat each row separately; None for the identity. The state is that
    of the inner cell.
    """

    inner: Any
    before: Any = None
    after: Any = None
    split_params: Any
    """`split_params(params)`: those of the functions, and those of the inner cell."""
    checked_inputs: Any
    """`checked_inputs(params, inputs, state, key)`: the inputs of a step, checked."""

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step; see `RNNCell.apply`.

        Raises:
            ValueError: If a shape, or the set of parameters, is not what the cell and
                the inputs require.
            TypeError: If a dtype is not.
        """
        inputs = self.checked_inputs(params, inputs, state, key)
        own, inner = self.split_params(params)
        given = self.before(own, inputs) if self.before else inputs
        output, state = self.inner.apply(inner, given, state, key)
        return (self.after(own, given, output) if self.after else output), state

    def apply_sequence(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """All steps before, the cell's sequences, all steps after; see `RNNCell`.

        Raises:
            DeclinedError: If the inner cell declines.
        """
        own, inner = self.split_params(params)
        steps = run.steps
        if self.before:
            before = functools.partial(self.before, own)
            mapped = at_each_step(before, steps.zero_dead(run.inputs))
            run = run.of_inner(mapped, run.state)
        outputs, state = apply_cell_sequence(self.inner, inner, run)
        if not self.after:
            return outputs, state
        after = functools.partial(self.after, own)
        map_outputs = lambda y: steps.zero_dead(at_each_step(after, run.inputs, y))
        return steps.map_outputs(map_outputs, outputs), state


class MappedWrapper(ParamsWrapper, MappedCell):
    """A wrapper that maps the inputs of its cell or its output."""

    inner = property(lambda self: self.cell)

    def checked_inputs(self, params: Params, inputs: Any, state: Any, key: Any) -> Any:
        """The inputs of a step; the functions and the cell check the rest."""
        check_key_or_none(type(self).__name__, key)
        return self.step_inputs(inputs)

    def step_inputs(self, inputs: Any) -> Any:
        """One step of inputs, arrays or their shapes, after checks."""
        return check_step_inputs(type(self).__name__, inputs)

    def cell_inputs(self, inputs: Any, dtype: DType) -> PyTree:
        """The inputs of the cell for these, arrays or their shapes."""
        return inputs

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Fresh parameters, with those of the cell; see `RNNCell.init`.

        Raises:
            ValueError: If the shape or the kind of `inputs` is not what the wrapper and
                the cell require.
            TypeError: If a dtype is not, or `key` is not a random key.
        """
        inputs = self.step_inputs(inputs)
        depth = jax.tree.leaves(inputs)[0].shape[-1]
        return self._init(key, depth, self.cell_inputs(inputs, dtype), dtype)
