"""The basic LSTM cell."""

import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp

from .._base.typing import Array, DType, Params
from .affine import Stage, Updated
from .initializers import glorot_uniform, zeros
from .states import LSTMFamily, LSTMStateTuple


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class BasicLSTMCell(LSTMFamily):
    """A long short-term memory (LSTM) without peepholes, clips or projection.

        i, j, f, o = split([x, h] kernel + bias)
        c' = c * sigmoid(f + forget_bias) + sigmoid(i) * activation(j)
        h' = activation(c') * sigmoid(o)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; c, h and output
    `[batch, H]`; `kernel` `[I + H, 4H]`, blocks i, j, f, o; `bias` `[4H]`. c may be
    float32 while h and the parameters are 16-bit; in that case, pass an `initial_state`
    with these dtypes.

    Attributes:
        num_units: `H`, at least 0.
        forget_bias: Added to f at each step; not stored in the bias.
        state_is_tuple: False for a state `[batch, 2H]` that holds `[c, h]`.
        activation: None for tanh, the name of a Keras activation, or a function.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1409.2329; `tf.compat.v1.nn.rnn_cell.BasicLSTMCell`.
    """

    num_units: int
    forget_bias: float = 1.0
    state_is_tuple: bool = True
    activation: Any = None
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = None
    dtype: DType | None = None

    library_kind = "lstm"

    @property
    def sizes(self) -> LSTMStateTuple:
        """The sizes of c and h, both `num_units`."""
        return LSTMStateTuple(self.num_units, self.num_units)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """A single stage: one product for all four blocks."""
        size = self.num_units
        return (Stage(self._update, size, 4 * size, glorot_uniform, zeros, blocks=4),)

    def _update(self, params: Params, z: Array, state: LSTMStateTuple) -> Updated:
        i, j, f, o = jnp.split(z, 4, axis=-1)
        c = state.c * jax.nn.sigmoid(f + self.forget_bias)
        c = c + jax.nn.sigmoid(i) * self.activation(j)
        h = self.activation(c) * jax.nn.sigmoid(o)
        return self.leave(c, h.astype(state.h.dtype))
