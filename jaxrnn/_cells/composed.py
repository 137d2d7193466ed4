"""`ComposedCell`, whose method `compose` computes one or all steps with inner cells."""

import abc
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from .._base.cell_keys import fold_in
from .._base.typing import Key, Params, PyTree, State
from .base import RNNCell


class ComposedCell(RNNCell[State]):
    """A cell that computes its outputs with the outputs of inner cells.

    The same method `compose` computes one step or all steps. In `apply`, `compose` runs
    the inner cells for one step. In `dynamic_rnn`, `compose` runs the inner cells' own
    loops over all steps, so the cell is as fast as its inner cells.
    """

    inner: Any
    """The cell that each call of `run_next` in `compose` runs."""

    checked_step: Callable[..., tuple[PyTree, PyTree]]
    """`checked_step(params, inputs, state, key)` returns the inputs and the state."""

    # Set `maps_inputs` to False if `compose` only slices and concatenates the inputs.
    # Set `maps_outputs` to False if `compose` only slices and concatenates the outputs
    # of the inner cells. If True, the loops set padding of the inputs, or of the
    # outputs, to zeros.
    maps_inputs = True
    maps_outputs = True

    @abc.abstractmethod
    def compose(self, run_next: Callable, params: Params, inputs: PyTree) -> PyTree:
        """Computes the outputs, separately for every row and every step.

        Args:
            run_next: `run_next(params, inputs) -> outputs` runs the next of
                `inner_cells`, with the next state that `split_state` returned. An
                optional third argument, an int, is folded into the random key.
            params: The parameters of this cell.
            inputs: One step `[batch, depth]`, or all steps, with one more leading axis.
        """

    @property
    def inner_cells(self) -> Iterable[RNNCell]:
        """The cells that the calls of `run_next` run, in order."""
        return itertools.repeat(self.inner)

    def split_state(self, state: PyTree) -> list[PyTree]:
        """The states of the inner cells in `state`, one for each call of `run_next`."""
        return [state]

    def join_states(self, states: list[PyTree]) -> PyTree:
        """Joins `states` of the inner cells to one state, as `split_state` split it."""
        return states[0]

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, State]:
        """Runs one step; see `RNNCell.apply`.

        Raises:
            ValueError: If a shape or a parameter name does not match the cell and the
                inputs.
            TypeError: If a dtype does not match the cell and the inputs.
        """
        inputs, state = self.checked_step(params, inputs, state, key)
        parts = zip(self.inner_cells, self.split_state(state), strict=False)
        new_states = []

        def run_next(params: Params, inputs: PyTree, number: int | None = None) -> Any:
            cell, state = next(parts)
            own_key = key if number is None else fold_in(key, number)
            output, new_state = cell.apply(params, inputs, state, own_key)
            new_states.append(new_state)
            return output

        output = self.compose(run_next, params, inputs)
        return output, self.join_states(new_states)
