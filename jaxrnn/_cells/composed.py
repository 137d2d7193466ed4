"""`ComposedCell`: one function computes a step, and all steps, with inner cells."""

import abc
import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.cell_keys import fold_in
from .._base.typing import Key, Params, PyTree, State
from .._run.run import Choice, Run
from .base import RNNCell


class ComposedCell(RNNCell[State]):
    """A cell that computes its outputs with the outputs of inner cells.

    `compose` describes one step and all steps alike. In `apply`, it runs the inner
    cells for one step. In a driver, it runs the inner cells' own loops over all steps,
    so the cell is as fast as the inner cells.
    """

    inner: Any
    """The cell that each call of `run_next` in `compose` runs."""

    checked_step: Callable[..., tuple[PyTree, PyTree]]
    """`checked_step(params, inputs, state, key)` returns the inputs and the state."""

    # Whether `compose` computes anything with the inputs, and with the inner cells'
    # outputs, other than slices and concatenations. If so, padding becomes zeros.
    maps_inputs = True
    maps_outputs = True

    @abc.abstractmethod
    def compose(self, run_next: Callable, params: Params, inputs: PyTree) -> PyTree:
        """Computes the outputs; every row and every step separately.

        Args:
            run_next: `run_next(params, inputs) -> outputs` runs the next of
                `inner_cells`, with the next part of the state. A third argument, an
                int, is folded into the random key.
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
        """The state that `split_state` divides into `states`."""
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

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses a loop for each inner cell; a scan if one of them is scanned."""
        choices: list[Choice] = []

        def choose(params: Params, inputs: PyTree, state: PyTree) -> PyTree:
            states, reset_states = self.split_state(state), self._split_reset_state(run)
            parts = itertools.zip_longest(self.inner_cells, states, reset_states)
            # Some cells refuse to run without a key.
            key = run.keys and run.keys(jnp.int32(0))

            def run_next(params: Params, inputs: PyTree, number: Any = None) -> PyTree:
                cell, state, reset_state = next(parts)
                inner = run.replace(inputs=inputs, state=state, reset_state=reset_state)
                choices.append(cell.choose_loop(params, inner))
                step = lambda x: cell.apply(params, x, state, key)[0]
                return jax.vmap(step, run.steps.axis, run.steps.axis)(inputs)

            return self.compose(run_next, params, inputs)

        jax.eval_shape(choose, params, run.inputs, run.state)
        loops = [choice.loop for choice in choices]
        if None in loops:
            return choices[loops.index(None)]
        names = dict.fromkeys(choice.name for choice in choices)
        reasons = dict.fromkeys(c.reason for c in choices if c.reason)
        run_all = functools.partial(self._run, loops)
        return Choice(" and ".join(names), run_all, "; ".join(reasons))

    def _split_reset_state(self, run: Run) -> list[PyTree]:
        return [] if run.reset_state is None else self.split_state(run.reset_state)

    def _run(self, loops: list[Any], params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Runs all steps of each inner cell in its loop."""
        steps = run.steps
        keys: Any = run.keys
        states, reset_states = self.split_state(run.state), self._split_reset_state(run)
        parts = itertools.zip_longest(loops, states, reset_states)
        last_states = []
        all_states = []

        def run_next(params: Params, inputs: PyTree, number: int | None = None) -> Any:
            loop, state, reset_state = next(parts)
            inner = run.of_inner(inputs, state, reset_state=reset_state)
            if keys is not None and number is not None:
                inner = inner.replace(keys=lambda t: fold_in(keys(t), number))
            outputs, last_state = loop(params, inner)
            if steps.returns_states:
                outputs, states = outputs
                all_states.append(states)
            last_states.append(last_state)
            return outputs

        inputs = steps.zero_finished(run.inputs) if self.maps_inputs else run.inputs
        outputs = self.compose(run_next, params, inputs)
        outputs = steps.zero_finished(outputs) if self.maps_outputs else outputs
        if steps.returns_states:
            outputs = outputs, self.join_states(all_states)
        return outputs, self.join_states(last_states)
