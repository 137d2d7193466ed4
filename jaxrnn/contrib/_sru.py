"""The simple recurrent unit."""

import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp

from .._base.typing import Array, DType, Params
from .._cells.initializers import ParamSpec, glorot_uniform, zeros
from .._cells.linear_recurrence import VectorRecurrenceCell, gates


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class SRUCell(VectorRecurrenceCell):
    """A simple recurrent unit (SRU): all products are of the inputs alone.

        y, f, r, s = split(x kernel)
        f, r       = sigmoid([f, r] + bias)
        c'         = f * c + (1 - f) * y
        output     = r * activation(c') + (1 - r) * s

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state c and
    output `[batch, H]`; `kernel` `[I, 4H]`, blocks y, f, r, s; `bias` `[2H]`, blocks f,
    r.

    Attributes:
        num_units: `H`.
        activation: None for tanh, the name of a Keras activation, or a function.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `num_units` is negative, the activation is not known, or `dtype`
            is not floating.

    Source: arXiv:1709.02755; `tf.contrib.rnn.SRUCell`.
    """

    num_units: int
    activation: Any = None
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = None
    dtype: DType | None = None

    def param_specs(self, depth: int) -> dict[str, Any]:
        """`kernel`, then `bias`."""
        columns = 4 * self.num_units
        return {
            "kernel": ParamSpec((depth, columns), glorot_uniform, depth, blocks=4),
            "bias": ParamSpec((2 * self.num_units,), zeros, blocks=2),
        }

    def coefficients(
        self, params: Params, inputs: Array
    ) -> tuple[Array, Array, tuple[Array, Array]]:
        """f, `(1 - f) * y`, and of the output r and `(1 - r) * s`."""
        product = {"kernel": params["kernel"]}
        y, f, r, s = gates(product, inputs, blocks=4)
        bias_f, bias_r = jnp.split(params["bias"].astype(y.dtype), 2)
        f, r = f + bias_f[None, :], r + bias_r[None, :]
        sigmoid = jax.nn.sigmoid
        return sigmoid(f), sigmoid(-f) * y, (sigmoid(r), sigmoid(-r) * s)

    def output(self, params: Params, state: Array, rest: tuple[Array, Array]) -> Array:
        """`r * activation(c) + (1 - r) * s`."""
        r, skipped = rest
        return r * self.activation(state.astype(r.dtype)) + skipped
