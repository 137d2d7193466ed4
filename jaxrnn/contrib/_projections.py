"""Projections of the inputs and of the output of a cell."""

import dataclasses
from collections.abc import Callable
from typing import Any, final

import jax

from .._base.arguments import as_count
from .._base.cell_keys import apply_cell, apply_cell_sequence
from .._base.math import affine
from .._base.typing import Activation, Array, DType, Key, Params, PyTree, Shaped
from .._cells.activations import resolve_activation
from .._cells.hyperparameters import set_field
from .._cells.initializers import ParamSpec, glorot_uniform, zeros
from .._cells.step_checks import check_step_inputs
from .._time.each_step import at_each_step
from .._time.steps import Steps
from .._wrappers.own_params import ParamsWrapper, vector_size


def _identity_or(where: str, activation: Any) -> Activation:
    """The function that `activation` names; the identity for None."""
    return resolve_activation(where, "linear" if activation is None else activation)


def _project(params: Params, x: Array, activation: Activation) -> Array:
    return activation(affine(params, [x], x.dtype))


def _specs(rows: int, columns: int) -> dict[str, Any]:
    kernel = ParamSpec((rows, columns), glorot_uniform, rows)
    return {"kernel": kernel, "bias": ParamSpec((columns,), zeros)}


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class InputProjectionWrapper(ParamsWrapper):
    """Gives a cell a projection of the inputs: `cell(activation(x kernel + bias))`.

    Shapes, for input size `I` and `P = num_proj`: inputs `[batch, I]`; `kernel`
    `[I, P]`; `bias` `[P]`. State and output are those of the wrapped cell, whose
    parameters are under its scope, such as `gru_cell`.

    Attributes:
        cell: The wrapped cell.
        num_proj: `P`.
        activation: None for none, the name of a Keras activation, or a function.
        input_size: Accepted for compatibility with TensorFlow; not used.
        reuse: Accepted for compatibility with TensorFlow; not used.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field is of the wrong kind.
        ValueError: If `num_proj` is not positive, or the activation is not known.

    Source: `tf.contrib.rnn.InputProjectionWrapper`.
    """

    num_proj: int
    activation: Any = None
    input_size: Any = dataclasses.field(default=None, compare=False)
    reuse: Any = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        activation = _identity_or(name, self.activation)
        num_proj = as_count(name, "num_proj", self.num_proj, fix="")
        set_field(self, num_proj=num_proj, activation=activation)

    def own_specs(self, depth: int) -> dict[str, Any]:
        """The kernel and the bias."""
        return _specs(depth, self.num_proj)

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Fresh parameters for inputs `[batch, depth]`; see `RNNCell.init`.

        Raises:
            ValueError: If `inputs` are not floating, or not of rank 2.
            TypeError: If `key` is not a random key.
        """
        inputs = check_step_inputs("InputProjectionWrapper", inputs)
        shape = (inputs.shape[0], self.num_proj)
        projected = jax.ShapeDtypeStruct(shape, inputs.dtype)
        return self._init(key, inputs.shape[1], projected, dtype)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step; see `RNNCell.apply`.

        Raises:
            ValueError: If a parameter is not what the inputs require.
            TypeError: If a dtype is not.
        """
        inputs = check_step_inputs("InputProjectionWrapper", inputs)
        own, inner = self._checked(params, inputs, key)
        projected = _project(own, inputs, self.activation)
        return apply_cell(self.cell, inner, projected, state, key)

    def apply_sequence(
        self,
        params: Params,
        inputs: PyTree,
        state: PyTree,
        steps: Steps,
        keys: Callable[[Array], Any] | None = None,
        implementation: Any = None,
    ) -> tuple[PyTree, PyTree]:
        """All projections, then the cell's sequences; see `RNNCell.apply_sequence`.

        Raises:
            DeclinedError: If the cell declines.
        """
        own, inner = self.split_params(params)
        project = lambda x: _project(own, x, self.activation)
        inputs = at_each_step(project, steps.zero_dead(inputs))
        steps = steps.with_stand_in(inputs, state)
        return apply_cell_sequence(
            self.cell, inner, inputs, state, steps, keys, implementation
        )


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class OutputProjectionWrapper(ParamsWrapper):
    """Projects the output of a cell: `activation(cell(x) kernel + bias)`.

    Shapes, for a wrapped cell whose output is `[batch, H]`, and `P = output_size`:
    output `[batch, P]`; `kernel` `[H, P]`; `bias` `[P]`. Inputs and state are those of
    the wrapped cell, whose parameters are under its scope, such as `gru_cell`.

    Attributes:
        cell: The wrapped cell.
        output_size: `P`.
        activation: None for none, the name of a Keras activation, or a function.
        reuse: Accepted for compatibility with TensorFlow; not used.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field is of the wrong kind.
        ValueError: If `output_size` is not positive, the output of `cell` is not one
            vector, or the activation is not known.

    Source: `tf.contrib.rnn.OutputProjectionWrapper`.
    """

    # The default is refused; it hides the property of `WrapperCell`.
    output_size: int = 0
    activation: Any = None
    reuse: Any = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        activation = _identity_or(name, self.activation)
        size = as_count(name, "output_size", self.output_size, fix="")
        set_field(self, output_size=size, activation=activation)
        self.own_specs(0)

    def own_specs(self, depth: int) -> dict[str, Any]:
        """The kernel and the bias, whatever the size of the inputs."""
        del depth
        name = "OutputProjectionWrapper"
        return _specs(vector_size(name, self.cell.output_size), self.output_size)

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Fresh parameters; see `RNNCell.init`.

        Raises:
            TypeError: If `key` is not a random key.
        """
        return self._init(key, 0, inputs, dtype)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step; see `RNNCell.apply`.

        Raises:
            ValueError: If a parameter is not what the output requires.
            TypeError: If a dtype is not.
        """
        _, inner = self.split_params(params)
        output, state = apply_cell(self.cell, inner, inputs, state, key)
        own, _ = self._checked(params, output, key)
        return _project(own, output, self.activation), state

    def apply_sequence(
        self,
        params: Params,
        inputs: PyTree,
        state: PyTree,
        steps: Steps,
        keys: Callable[[Array], Any] | None = None,
        implementation: Any = None,
    ) -> tuple[PyTree, PyTree]:
        """The cell's sequences, then all projections; see `RNNCell.apply_sequence`.

        Raises:
            DeclinedError: If the cell declines.
        """
        own, inner = self.split_params(params)
        outputs, state = apply_cell_sequence(
            self.cell, inner, inputs, state, steps, keys, implementation
        )
        project = lambda y: _project(own, y, self.activation)
        projected = lambda y: steps.zero_dead(at_each_step(project, y))
        return steps.map_outputs(projected, outputs), state
