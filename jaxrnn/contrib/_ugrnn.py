"""The update gate recurrent cell."""

import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp

from .._base.typing import Array, DType, Initializer, Params
from .._cells.affine import Stage
from .._cells.initializers import bias_initializer, glorot_uniform, zeros
from .._cells.states import VectorStateCell


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class UGRNNCell(VectorStateCell):
    """A recurrent cell with one gate, between keeping the state and renewing it.

        g, c = split([x, h] kernel + bias)
        g    = sigmoid(g + forget_bias)
        h'   = g * h + (1 - g) * activation(c)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `kernel` `[I + H, 2H]`, blocks g, c; `bias` `[2H]`.

    Attributes:
        num_units: `H`.
        initializer: For the kernel; None for Glorot uniform. The bias is zeros, unless
            this is an `initializers.by_part` with another.
        forget_bias: Added to g at each step; not part of the stored bias.
        activation: None for tanh, the name of a Keras activation, or a function.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `num_units` is negative, the activation is not known, or `dtype`
            is not floating.

    Source: arXiv:1611.09913; `tf.contrib.rnn.UGRNNCell`.
    """

    num_units: int
    initializer: Initializer | None = None
    forget_bias: float = 1.0
    activation: Any = None
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = None
    dtype: DType | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One product for the gate and the candidate."""
        size, kernel = self.num_units, self.initializer or glorot_uniform
        bias = bias_initializer(kernel, zeros)
        return (Stage(self._update, size, 2 * size, kernel, bias, blocks=2),)

    def _update(self, params: Params, z: Array, state: Array) -> tuple[Array, Array]:
        g, c = jnp.split(z, 2, axis=-1)
        g = jax.nn.sigmoid(g + self.forget_bias)
        new_state = g * state + (1 - g) * self.activation(c)
        return new_state, new_state
