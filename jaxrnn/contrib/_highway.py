"""Highway connections around a cell."""

import dataclasses
from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp

from .._base.cell_keys import apply_cell, apply_cell_sequence
from .._base.errors import describe
from .._base.math import affine
from .._base.typing import Array, DType, Key, Params, PyTree, Shaped
from .._cells.hyperparameters import check_number, set_bools, set_field
from .._cells.initializers import ParamSpec, glorot_uniform
from .._cells.step_checks import check_step_inputs
from .._time.each_step import at_each_step
from .._time.steps import Steps
from .._wrappers.own_params import ParamsWrapper, vector_size


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class HighwayWrapper(ParamsWrapper):
    """Mixes the inputs of a cell with its output, by gates computed from the inputs.

        carry     = sigmoid(x carry_w + carry_b)
        transform = 1 - carry, or sigmoid(x transform_w + transform_b) if not coupled
        output    = x * carry + cell(x) * transform

    The state does not change. Shapes, for input size `I`, which must be that of the
    wrapped cell's output: inputs and output `[batch, I]`; `carry_w`, `transform_w`
    `[I, I]`; `carry_b`, `transform_b` `[I]`. The wrapped cell's parameters are under
    its scope, such as `gru_cell`.

    Attributes:
        cell: The wrapped cell.
        couple_carry_transform_gates: Whether the transform gate is `1 - carry`.
        carry_bias_init: The initial `carry_b`; that of `transform_b` is the negative.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field is of the wrong kind.

    Source: arXiv:1505.00387; `tf.contrib.rnn.HighwayWrapper`.
    """

    couple_carry_transform_gates: bool = True
    carry_bias_init: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        set_bools(self)
        bias = check_number("HighwayWrapper", "carry_bias_init", self.carry_bias_init)
        set_field(self, carry_bias_init=bias)

    def own_specs(self, depth: int) -> dict[str, Any]:
        """The kernel and the bias of each gate."""
        bias = self.carry_bias_init
        gates = {"carry": bias}
        if not self.couple_carry_transform_gates:
            gates["transform"] = -bias
        specs = {}
        for gate, value in gates.items():
            constant = jax.nn.initializers.constant(value)
            specs[f"{gate}_w"] = ParamSpec((depth, depth), glorot_uniform, depth)
            specs[f"{gate}_b"] = ParamSpec((depth,), constant)
        return specs

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Fresh parameters for inputs `[batch, depth]`; see `RNNCell.init`.

        Raises:
            ValueError: If `inputs` are not floating, not of rank 2, or not of the size
                of the cell's output.
            TypeError: If `key` is not a random key.
        """
        inputs = check_step_inputs("HighwayWrapper", inputs)
        size = vector_size("HighwayWrapper", self.cell.output_size)
        if inputs.shape[1] != size:
            raise ValueError(
                f"HighwayWrapper: `inputs` must be [batch, {size}], of the size of the "
                f"cell's output, got {describe(inputs)}. Make `InputProjectionWrapper("
                f"HighwayWrapper(cell), {size})`, which projects them."
            )
        return self._init(key, inputs.shape[1], inputs, dtype)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step; see `RNNCell.apply`.

        Raises:
            ValueError: If the output is not one array of the shape of the inputs, or a
                parameter is not what the inputs require.
            TypeError: If a dtype is not.
        """
        inputs = check_step_inputs("HighwayWrapper", inputs)
        own, inner = self._checked(params, inputs, key)
        output, state = apply_cell(self.cell, inner, inputs, state, key)
        if jnp.shape(output) != inputs.shape:
            raise ValueError(
                "HighwayWrapper: `inputs` must have the shape of the output, "
                f"{describe(output)}, got {describe(inputs)}."
            )
        return self._mix(own, inputs, output), state

    def apply_sequence(
        self,
        params: Params,
        inputs: PyTree,
        state: PyTree,
        steps: Steps,
        keys: Callable[[Array], Any] | None = None,
        implementation: Any = None,
    ) -> tuple[PyTree, PyTree]:
        """The cell's sequences, then all gates; see `RNNCell.apply_sequence`.

        Raises:
            DeclinedError: If the cell declines.
        """
        own, inner = self.split_params(params)
        inputs = steps.zero_dead(inputs)
        outputs, state = apply_cell_sequence(
            self.cell, inner, inputs, state, steps, keys, implementation
        )
        mix = lambda x, y: self._mix(own, x, y)
        mixed = lambda y: steps.zero_dead(at_each_step(mix, inputs, y))
        return steps.map_outputs(mixed, outputs), state

    def _mix(self, params: Params, inputs: Array, output: Array) -> Array:
        def gate(name: str) -> Array:
            weights = {"kernel": params[f"{name}_w"], "bias": params[f"{name}_b"]}
            return jax.nn.sigmoid(affine(weights, [inputs], inputs.dtype))

        carry = gate("carry")
        coupled = self.couple_carry_transform_gates
        transform = 1 - carry if coupled else gate("transform")
        return inputs * carry + output * transform
