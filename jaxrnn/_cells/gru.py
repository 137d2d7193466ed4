"""Gated recurrent units that reset the state before or after the product."""

import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp

from .._base.typing import Array, DType, Initializer, Params
from .affine import Stage, Updated
from .initializers import kernel_and_bias, ones
from .states import VectorStateCell


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class GRUCell(VectorStateCell):
    """A gated recurrent unit (GRU) that resets the state before the product.

        r, u = split(sigmoid([x, h] gates/kernel + gates/bias))
        c    = activation([x, r * h] candidate/kernel + candidate/bias)
        h'   = u * h + (1 - u) * c

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `gates/kernel` `[I + H, 2H]`, `gates/bias` `[2H]`, blocks r, u;
    `candidate/kernel` `[I + H, H]`, `candidate/bias` `[H]`.

    Attributes:
        num_units: `H`, at least 0.
        activation: None for tanh, the name of a Keras activation, or a function.
        reuse: Accepted for compatibility with TensorFlow; not used.
        kernel_initializer: For both kernels; None for Glorot uniform.
        bias_initializer: For both biases; None for ones in the gates and zeros in the
            candidate.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1406.1078; `tf.compat.v1.nn.rnn_cell.GRUCell`.
    """

    num_units: int
    activation: Any = None
    reuse: Any = dataclasses.field(default=None, compare=False)
    kernel_initializer: Initializer | None = None
    bias_initializer: Initializer | None = None
    name: str | None = None
    dtype: DType | None = None

    library_kind = "gru"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages: the gates, then the candidate, which reads the reset state."""
        size, (kernel, bias) = self.num_units, kernel_and_bias(self)
        new = Stage(self._candidate, size, size, kernel, bias, "candidate", blocks=1)
        return _stage_of_gates(self), new

    def _gates(self, params: Params, z: Array, state: Array) -> Updated:
        r, u = map(jax.nn.sigmoid, jnp.split(z, 2, axis=-1))
        return r * state, (u, state)

    def _candidate(self, params: Params, z: Array, carry: Any) -> Updated:
        u, state = carry
        new_state = u * state + (1 - u) * self.activation(z)
        return new_state, new_state


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class CudnnCompatibleGRUCell(VectorStateCell):
    """A gated recurrent unit (GRU) that resets the state after the product.

        r, u = split(sigmoid([x, h] gates/kernel + gates/bias))
        c    = activation(x input_projection/kernel + input_projection/bias
                          + r * (h hidden_projection/kernel + hidden_projection/bias))
        h'   = u * h + (1 - u) * c

    This is the GRU of cuDNN, PyTorch and Flax, and the default in Keras. `GRUCell`
    resets the state before the product, so the two cells cannot exchange weights.

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `gates/kernel` `[I + H, 2H]`, `gates/bias` `[2H]`, blocks r, u;
    under `candidate`, `input_projection/kernel` `[I, H]` and `hidden_projection/kernel`
    `[H, H]`, each with a `bias` `[H]`.

    Attributes:
        num_units: `H`, at least 0.
        reuse: Accepted for compatibility with TensorFlow; not used.
        kernel_initializer: For all kernels; None for Glorot uniform.
        activation: None for tanh, the name of a Keras activation, or a function.
        bias_initializer: For all biases; None for ones in the gates and zeros in the
            candidate.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1406.1078v1; `tf.contrib.cudnn_rnn.CudnnCompatibleGRUCell`.
    """

    num_units: int
    reuse: Any = dataclasses.field(default=None, compare=False)
    kernel_initializer: Initializer | None = None
    _: dataclasses.KW_ONLY
    activation: Any = None
    bias_initializer: Initializer | None = None
    name: str | None = None
    dtype: DType | None = None

    library_kind = "cudnn_gru"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages: gates, then the candidate's products with inputs and state."""
        size, (kernel, bias) = self.num_units, kernel_and_bias(self)
        candidate = "candidate/input_projection", "candidate/hidden_projection"
        return (
            _stage_of_gates(self),
            Stage(self._project_inputs, 0, size, kernel, bias, candidate[0], blocks=1),
            Stage(self._candidate, size, size, kernel, bias, candidate[1], False, 1),
        )

    def _gates(self, params: Params, z: Array, state: Array) -> Updated:
        r, u = map(jax.nn.sigmoid, jnp.split(z, 2, axis=-1))
        no_operand = state[:, :0]  # The next product reads only the inputs.
        return no_operand, (r, u, state)

    def _project_inputs(self, params: Params, z: Array, carry: Any) -> Updated:
        _, _, state = carry
        return state, (*carry, z)

    def _candidate(self, params: Params, z: Array, carry: Any) -> Updated:
        r, u, state, z_inputs = carry
        new_state = u * state + (1 - u) * self.activation(z_inputs + r * z)
        return new_state, new_state


def _stage_of_gates(cell: Any) -> Stage:
    size, (kernel, bias) = cell.num_units, kernel_and_bias(cell, bias=ones)
    return Stage(cell._gates, size, 2 * size, kernel, bias, "gates", blocks=2)
