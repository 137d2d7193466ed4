"""The gated recurrent unit."""

import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp

from .._base.typing import Array, DType, Initializer, Params
from .affine import Stage
from .initializers import bias_initializer, glorot_uniform, ones, zeros
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
        num_units: `H`.
        activation: None for tanh, the name of a Keras activation, or a function.
        reuse: Accepted for compatibility with TensorFlow; not used.
        kernel_initializer: For both kernels; None for Glorot uniform.
        bias_initializer: For both biases; None for 1 in the gates and 0 in the
            candidate.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `num_units` is negative, the activation is not known, or `dtype`
            is not floating.

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
        """The gates; then the candidate, from the reset state."""
        size, kernel = self.num_units, self.kernel_initializer or glorot_uniform
        gate_bias, bias = (
            self.bias_initializer or bias_initializer(kernel, default)
            for default in (ones, zeros)
        )
        return (
            Stage(self._gates, size, 2 * size, kernel, gate_bias, "gates", blocks=2),
            Stage(self._candidate, size, size, kernel, bias, "candidate", blocks=1),
        )

    def _gates(
        self, params: Params, z: Array, state: Array
    ) -> tuple[Array, tuple[Array, Array]]:
        r, u = jnp.split(jax.nn.sigmoid(z), 2, axis=-1)
        return r * state, (u, state)

    def _candidate(
        self, params: Params, z: Array, carry: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        u, state = carry
        new_state = u * state + (1 - u) * self.activation(z)
        return new_state, new_state
