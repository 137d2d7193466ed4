"""The base class of cells given by `param_specs` and a step: `init`, and checks."""

import abc
from typing import Any

import jax

from .._base import arguments, cell_keys, sharding, trees
from .._base.typing import Array, DType, Key, Params, PyTree, Shaped
from .._time.run import DeclinedError, Run
from . import step_checks
from .base import RNNCell, scope_name
from .hyperparameters import CommonFields
from .initializers import make_params


class SpecsCell(RNNCell):
    """A cell with `param_specs(depth)`, whose steps draw no random numbers."""

    param_specs: Any
    feature_axes = 1  # In the modules: further axes of the inputs are axes of rows.

    @property
    def is_random(self) -> bool | None:
        """Whether a step draws random numbers: it does not."""
        return False

    def check_depth(self, depth: int) -> None:
        """Raises ValueError for inputs of a size that the cell cannot take."""

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Fresh parameters for inputs `[batch, depth]`; see `RNNCell.init`.

        Raises:
            ValueError: If `inputs` are not of rank 2, the cell cannot take their size,
                or the dtype is not floating.
            TypeError: If `key` is not a random key, or an initializer does not return
                an array.
        """
        cell_keys.check_key(type(self).__name__, key)
        depth = self.step_inputs(inputs).shape[-1]
        self.check_depth(depth)
        dtype = param_dtype(self, inputs, dtype)
        return make_params(self.param_specs(depth), key, dtype)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step; see `RNNCell.apply`. No random numbers are drawn.

        Raises:
            ValueError: If a shape, or the set of parameters, is not what the cell and
                the inputs require.
            TypeError: If a dtype, or the kind of state, is not what they require.
        """
        inputs, state = self.checked_step(params, inputs, state, key)
        with jax.named_scope(scope_name(self)):
            return self._step(params, inputs, state)

    _step: Any
    """`_step(params, inputs, state) -> (output, new_state)`, of checked arguments."""

    def step_inputs(self, inputs: Any) -> Any:
        """The inputs of a step, checked: by default `[batch, depth]`."""
        return step_checks.check_step_inputs(type(self).__name__, inputs)

    def check_dtypes(self, inputs: Array, state: PyTree) -> None:
        """Raises TypeError for dtypes of a step that do not fit."""
        step_checks.check_state_dtypes(self, inputs, state)

    def checked_step(
        self, params: Params, inputs: Any, state: PyTree, key: Any
    ) -> tuple[Array, PyTree]:
        """The inputs and the state as arrays, in the nest of `state_size`.

        Raises:
            ValueError: If a shape, or the set of parameters, is not what the cell and
                the inputs require.
            TypeError: If a dtype or the kind of state is not, or `key` is not a random
                key.
        """
        name = type(self).__name__
        cell_keys.check_key_or_none(name, key)
        inputs = self.step_inputs(inputs)
        state = step_checks.check_state(name, state, self.state_size, inputs.shape[0])
        step_checks.check_params(name, params, self.param_specs, inputs)
        self.check_depth(inputs.shape[-1])
        state = trees.with_structure(self.state_size, state)
        self.check_dtypes(inputs, state)
        return inputs, state


class ParallelCell(SpecsCell):
    """A cell no product of which reads the state: many steps are computed at once.

    A subclass has `_step`, and `_all_steps` of a run whose number of steps is known.
    The state may be wider than the inputs.
    """

    def apply_sequence(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """All steps, many at once; see `RNNCell.apply_sequence`.

        Raises:
            DeclinedError: If an implementation is named, if the number of steps is
                symbolic, or if the cell cannot run packed sequences, which are given.
        """
        if run.implementation not in (None, "xla"):
            raise DeclinedError("no product reads the state")
        if not isinstance(run.steps.time, int):
            raise DeclinedError("the number of steps is symbolic")
        # Divided parameters may not fit the way that a cell divides its state.
        params = sharding.whole_on_explicit_mesh(params)
        run = run.replace(state=trees.with_structure(self.state_size, run.state))
        with jax.named_scope(scope_name(self)):
            return self._all_steps(params, run)

    @abc.abstractmethod
    def _step(self, params: Params, inputs: Any, state: Any) -> tuple[Any, Any]:
        """`(output, new_state)` of checked arguments."""

    @abc.abstractmethod
    def _all_steps(self, params: Params, run: Run) -> tuple[Any, Any]:
        """`(outputs, state)`; see `RNNCell.apply_sequence`."""


class VectorOutput(CommonFields):
    """The part of a cell whose output is one array `[batch, num_units]`."""

    num_units: int
    output_size = property(lambda self: self.num_units)


class VectorState(VectorOutput):
    """The part of a cell whose state is such an array, too."""

    state_size = VectorOutput.output_size


def param_dtype(cell: Any, inputs: Shaped, dtype: DType) -> DType:
    """The dtype of new parameters: `dtype`, else the cell's, else that of the inputs.

    Raises:
        ValueError: If it is not floating.
    """
    name = type(cell).__name__
    of_inputs = jax.dtypes.canonicalize_dtype(inputs.dtype)
    dtype = arguments.as_dtype(name, dtype or getattr(cell, "dtype", None) or of_inputs)
    step_checks.check_floating(name, "dtype", dtype)
    return dtype
