"""The chaos free network."""

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
class CFNCell(UnitsCell):
    """A recurrent cell whose state decays to zero where there are no inputs.

        a, b = split(sigmoid(x kernel[:, :2H] + h recurrent_kernel + bias))
        h'   = a * activation(h) + (1 - b) * activation(x kernel[:, 2H:])

    The paper has b where contrib, and this cell, have 1 - b.

    Shapes, for input size `I` and `H = units`: inputs `[batch, I]`; state and output
    `[batch, H]`; `kernel` `[I, 3H]`; `recurrent_kernel` `[H, 2H]` and `bias` `[2H]`,
    blocks a, b.

    Attributes:
        units: `H`.
        activation: The name of a Keras activation, or a function; None for the
            identity.
        kernel_initializer: For both kernels; None for Glorot uniform.
        bias_initializer: For the bias; None for ones.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `units` is negative, the activation is not known, or `dtype` is
            not floating.

    Source: arXiv:1612.06212; `tf.contrib.rnn.CFNCell`.
    """

    units: int
    activation: Any = jnp.tanh
    kernel_initializer: Initializer | None = None
    bias_initializer: Initializer | None = None
    name: str | None = None
    dtype: DType | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The product of the inputs alone; then the gates."""
        size, kernel = self.units, self.kernel_initializer or glorot_uniform
        return (
            Stage(self._project, 0, size, kernel, None, "inputs", blocks=1),
            Stage(self._update, size, 2 * size, kernel, ones, "gates", blocks=2),
        )

    def param_specs(self, depth: int) -> dict[str, Any]:
        """`kernel`, `recurrent_kernel` and `bias`."""
        size, kernel = self.units, self.kernel_initializer or glorot_uniform
        bias = self.bias_initializer or bias_initializer(kernel, ones)
        return {
            "kernel": ParamSpec((depth, 3 * size), kernel, depth, 3),
            "recurrent_kernel": ParamSpec((size, 2 * size), kernel, 0, 2),
            "bias": ParamSpec((2 * size,), bias, blocks=2),
        }

    def stage_params(self, params: Params) -> Params:
        """The kernel of the inputs apart, and one kernel for the gates."""
        gates, inputs = jnp.split(params["kernel"], [2 * self.units], axis=1)
        gates = jnp.concatenate([gates, params["recurrent_kernel"]])
        return {
            "inputs": {"kernel": inputs},
            "gates": {"kernel": gates, "bias": params["bias"]},
        }

    def _project(
        self, params: Params, z: Array, state: Array
    ) -> tuple[Array, tuple[Array, Array]]:
        return state, (self.activation(z), state)

    def _update(
        self, params: Params, z: Array, carry: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        renewed, state = carry
        a, b = jnp.split(jax.nn.sigmoid(z), 2, axis=-1)
        new_state = a * self.activation(state) + (1 - b) * renewed
        return new_state, new_state
