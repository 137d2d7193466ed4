"""The map of a state over several steps, as the state of another cell.

In linear recurrences and matrix memories, the state after several steps is a simple
function of the state before them, such as `a * h + b`. A `Transition` computes this
function without that state, so that devices which run later steps need not wait for it.
"""

import abc
from collections.abc import Callable
from typing import Any

from .._base.math import cast_like
from .._base.typing import Array, DType, Params, PyTree
from .matrix_memory import only_finite, with_nan
from .params import Specs


class Transition(abc.ABC):
    """A cell whose state is the function that maps a state of `cell` over the steps.

    The function begins as the identity. Where `cell` restarts, the function becomes the
    constant function of the restart state. The outputs have size 0.
    """

    cell: Any
    output_size = 0

    def param_specs(self, depth: int) -> Specs:
        """The specs of the cell."""
        return self.cell.param_specs(depth)

    @abc.abstractmethod
    def identity(self, state: PyTree) -> PyTree:
        """The function that returns its argument, for states like `state`."""

    @abc.abstractmethod
    def constant(self, state: PyTree) -> PyTree:
        """The function that returns `state`."""

    @abc.abstractmethod
    def map(self, transition: PyTree, state: PyTree) -> PyTree:
        """The state to which the function `transition` maps `state`."""

    def narrowed(self, state: PyTree, like: PyTree) -> PyTree:
        """The state of `cell`, cast to the dtypes of `like`."""
        return cast_like(like, state)


class MemoryTransition(Transition):
    """What the transitions of matrix memories share."""

    def safety_check(self, params: Params, dtype: DType) -> Callable[..., Array]:
        """The check of the cell; see `MatrixMemoryCell`."""
        return self.cell.safety_check(params, dtype)

    def project(self, params: Params, inputs: PyTree, dtype: DType) -> Any:
        """The values of the cell; see `MatrixMemoryCell`."""
        return self.cell.project(params, inputs, dtype)

    def output(self, params: Params, h: Array, rest: PyTree) -> Array:
        """No numbers."""
        return h[:, :0].reshape(h.shape[0], 0)

    def narrowed(self, state: PyTree, like: PyTree) -> PyTree:
        """The state, cast like the states of the cell."""
        return self.cell.stored(state, like)

    def map(self, transition: PyTree, state: PyTree) -> PyTree:
        """The mapped state; NaN where the map or the state is not finite.

        Products would spoil the gradients of other parts, because 0 * NaN is NaN.
        """
        (transition, state), is_finite = only_finite((transition, state))
        return with_nan(is_finite, self.map_finite(transition, state))

    @abc.abstractmethod
    def map_finite(self, transition: PyTree, state: PyTree) -> PyTree:
        """The mapped state, for finite arguments."""
