"""The base class of cells defined by `param_specs` and a step."""

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
    """A cell with `param_specs(depth)` and steps that draw no random numbers."""

    param_specs: Any
    feature_axes = 1  # Modules treat all other axes as batch and time axes.

    @property
    def is_random(self) -> bool | None:
        """False, because steps draw no random numbers."""
        return False

    def check_depth(self, depth: int) -> None:
        """Raises ValueError if the cell does not support inputs of this depth."""

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates parameters for inputs `[batch, depth]`; see `RNNCell.init`.

        Raises:
            ValueError: If `inputs` do not have rank 2, the cell does not support their
                depth, or the dtype is not floating-point.
            TypeError: If `key` is not a random key, `dtype` is an array, or an
                initializer does not return an array.
        """
        cell_keys.check_key(key)
        step_checks.check_no_carry(dtype)
        depth = self.step_inputs(inputs).shape[-1]
        self.check_depth(depth)
        dtype = param_dtype(self, inputs, dtype)
        return make_params(self.param_specs(depth), key, dtype)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step; see `RNNCell.apply`. The step draws no random numbers.

        Raises:
            ValueError: If a shape or a parameter name does not match the cell and the
                inputs.
            TypeError: If a dtype or the type of the state does not match the cell and
                the inputs.
        """
        inputs, state = self.checked_step(params, inputs, state, key)
        with jax.named_scope(scope_name(self)):
            return self._step(params, inputs, state)

    _step: Any
    """`_step(params, inputs, state) -> (output, new_state)` on checked arguments."""

    def step_inputs(self, inputs: Any) -> Any:
        """Checks and returns the inputs of a step, by default `[batch, depth]`."""
        return step_checks.check_step_inputs(inputs)

    def check_dtypes(self, inputs: Array, state: PyTree) -> None:
        """Raises TypeError if the dtypes of inputs and state are incompatible."""
        step_checks.check_state_dtypes(self, inputs, state)

    def checked_step(
        self, params: Params, inputs: Any, state: PyTree, key: Any
    ) -> tuple[Array, PyTree]:
        """Checks a step's arguments; returns its inputs and state as arrays.

        The state is returned in the structure of `state_size`.

        Raises:
            ValueError: If a shape or a parameter name does not match the cell and the
                inputs.
            TypeError: If a dtype or the type of the state does not match the cell and
                the inputs, or `key` is not a random key.
        """
        cell_keys.check_key_or_none(key)
        try:
            return self._checked_arrays(params, inputs, state)
        except (TypeError, ValueError):
            step_checks.check_order(self, params, inputs, state)
            raise

    def _checked_arrays(
        self, params: Params, inputs: Any, state: PyTree
    ) -> tuple[Array, PyTree]:
        inputs = self.step_inputs(inputs)
        state = step_checks.check_state(state, self.state_size, inputs.shape[0])
        step_checks.check_params(params, self.param_specs, inputs)
        self.check_depth(inputs.shape[-1])
        state = trees.with_structure(self.state_size, state)
        self.check_dtypes(inputs, state)
        return inputs, state


class ParallelCell(SpecsCell):
    """A cell without matrix products of the state, so many steps can run at once.

    A subclass defines `_step`, and `_all_steps` for runs with a known number of steps.
    The state may be wider than the inputs.
    """

    def apply_sequence(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Runs all steps, many at once; see `RNNCell.apply_sequence`.

        Raises:
            DeclinedError: If the "native" or "cudnn" implementation is requested, the
                number of steps is symbolic, or the cell cannot run these steps at once.
        """
        if run.implementation not in (None, "xla"):
            raise DeclinedError("no matrix product uses the state")
        if not isinstance(run.steps.time, int):
            raise DeclinedError("the number of steps is symbolic")
        # The shardings of the parameters and of the state might not be compatible.
        params = sharding.whole_on_explicit_mesh(params)
        run = run.replace(state=trees.with_structure(self.state_size, run.state))
        with jax.named_scope(scope_name(self)):
            return self._all_steps(params, run)

    @abc.abstractmethod
    def _step(self, params: Params, inputs: Any, state: Any) -> tuple[Any, Any]:
        """Runs a step on checked arguments; returns `(output, new_state)`."""

    @abc.abstractmethod
    def _all_steps(self, params: Params, run: Run) -> tuple[Any, Any]:
        """Runs all steps; see `RNNCell.apply_sequence`."""


class VectorOutput(CommonFields):
    """A mixin for cells with one output array `[batch, num_units]`."""

    num_units: int
    output_size = property(lambda self: self.num_units)


class VectorState(VectorOutput):
    """A mixin for cells with one output and one state array `[batch, num_units]`."""

    state_size = VectorOutput.output_size


def param_dtype(cell: Any, inputs: Shaped, dtype: DType) -> DType:
    """The dtype of new parameters: `dtype`, `cell.dtype` or `inputs.dtype`.

    The function uses the first of these three dtypes that is not None.

    Raises:
        ValueError: If the dtype is not floating-point.
    """
    of_inputs = jax.dtypes.canonicalize_dtype(inputs.dtype)
    dtype = arguments.as_dtype(dtype or getattr(cell, "dtype", None) or of_inputs)
    step_checks.check_floating("dtype", dtype)
    return dtype
