"""The minimal recurrent cell."""

import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp

from .._base.typing import Array, DType, Initializer, Params
from .._cells.affine import Stage
from .._cells.initializers import (
    ParamSpec,
    bias_initializer,
    glorot_uniform,
    ones,
)
from ._keras_like import UnitsCell


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class MinimalRNNCell(UnitsCell):
    """A recurrent cell that mixes its state with a feedforward layer of the inputs.

        z  = activation(x kernel[:I])
        u  = sigmoid([z, h] kernel[I:] + bias)
        h' = u * h + (1 - u) * z

    Shapes, for input size `I` and `H = units`: inputs `[batch, I]`; state and output
    `[batch, H]`; `kernel` `[I + 2H, H]`; `bias` `[H]`.

    Attributes:
        units: `H`.
        activation: The name of a Keras activation, or a function; None for the
            identity.
        kernel_initializer: For the kernel; None for Glorot uniform.
        bias_initializer: For the bias; None for ones.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `units` is negative, the activation is not known, or `dtype` is
            not floating.

    Source: arXiv:1711.06788; `tf.contrib.rnn.MinimalRNNCell`.
    """

    units: int
    activation: Any = jnp.tanh
    kernel_initializer: Initializer | None = None
    bias_initializer: Initializer | None = None
    name: str | None = None
    dtype: DType | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The layer of the inputs; then the gate."""
        size, kernel = self.units, self._kernel
        return (
            Stage(self._feed, 0, size, kernel, None, "layer", blocks=1),
            Stage(self._mix, 2 * size, size, kernel, ones, "gate", False, blocks=1),
        )

    @property
    def _kernel(self) -> Initializer:
        return self.kernel_initializer or glorot_uniform

    def param_specs(self, depth: int) -> dict[str, Any]:
        """`kernel`, which holds those of both stages, and `bias`."""
        bias = self.bias_initializer or bias_initializer(self._kernel, ones)
        shape = (depth + 2 * self.units, self.units)
        return {
            "kernel": ParamSpec(shape, self._kernel, depth, 1),
            "bias": ParamSpec((self.units,), bias, blocks=1),
        }

    def stage_params(self, params: Params) -> Params:
        """The kernel apart, by stage."""
        kernel = params["kernel"]
        layer, gate = jnp.split(kernel, [kernel.shape[0] - 2 * self.units])
        return {
            "layer": {"kernel": layer},
            "gate": {"kernel": gate, "bias": params["bias"]},
        }

    def _feed(
        self, params: Params, z: Array, state: Array
    ) -> tuple[Array, tuple[Array, Array]]:
        z = self.activation(z)
        return jnp.concatenate([z, state], axis=-1), (z, state)

    def _mix(
        self, params: Params, u: Array, carry: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        z, state = carry
        u = jax.nn.sigmoid(u)
        new_state = u * state + (1 - u) * z
        return new_state, new_state
