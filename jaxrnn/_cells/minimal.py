"""Minimal recurrent cells, whose gates do not depend on the state."""

import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp

from .._base.typing import Array, DType, Initializer, Params
from .hyperparameters import set_field
from .linear_recurrence import VectorRecurrenceCell, gate_specs, gates


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class _MinimalCell(VectorRecurrenceCell):
    """The fields that both minimal cells share.

    Attributes:
        activation: None for the paper's activation, which is `c + 1/2` where c is at
            least 0 and `sigmoid(c)` elsewhere; the name of a Keras activation ("linear"
            for the paper's simplest form); or a function.
    """

    num_units: int
    activation: Any = None
    kernel_initializer: Initializer | None = None
    bias_initializer: Initializer | None = None
    name: str | None = None
    dtype: DType | None = None

    def __post_init__(self) -> None:
        if self.activation is None:
            set_field(self, activation=positive)
        super().__post_init__()


@final
class MinGRUCell(_MinimalCell):
    """A minimal gated recurrent unit (minGRU); only the inputs determine its gate.

        z, c = split(x kernel + bias)
        h'   = sigmoid(-z) * h + sigmoid(z) * activation(c)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `kernel` `[I, 2H]` and `bias` `[2H]`, blocks z, c.

    Attributes:
        num_units: `H`, at least 0.
        activation: None for the paper's activation, which is `c + 1/2` where c is at
            least 0 and `sigmoid(c)` elsewhere; the name of a Keras activation ("linear"
            for the paper's simplest form); or a function.
        kernel_initializer: For the kernel; None for Glorot uniform.
        bias_initializer: For the bias; None for zeros.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:2410.01201, section 3.1 and appendix B.
    """

    def param_specs(self, depth: int) -> dict[str, Any]:
        """Specs of `kernel` and `bias`."""
        return gate_specs(self, depth, blocks=2)

    def coefficients(self, params: Params, inputs: Array) -> tuple[Array, Array, None]:
        """`1 - gate`, and the candidate times the gate."""
        z, c = gates(params, inputs, blocks=2)
        candidate = jax.nn.sigmoid(z) * self.activation(c)
        # 1 - sigmoid(z) would cancel to 0 where the gate is almost 1.
        return jax.nn.sigmoid(-z), candidate, None


@final
class MinLSTMCell(_MinimalCell):
    """A minimal long short-term memory (minLSTM); only the inputs determine its gates.

        f, i, c = split(x kernel + bias)
        f, i    = sigmoid(f), sigmoid(i)
        h'      = f / (f + i) * h + i / (f + i) * activation(c)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `kernel` `[I, 3H]` and `bias` `[3H]`, blocks f, i, c. As in the
    paper, the quotients are computed from logarithms, so they are accurate even where
    both gates are closed.

    Attributes:
        num_units: `H`, at least 0.
        activation: None for the paper's activation, which is `c + 1/2` where c is at
            least 0 and `sigmoid(c)` elsewhere; the name of a Keras activation ("linear"
            for the paper's simplest form); or a function.
        kernel_initializer: For the kernel; None for Glorot uniform.
        bias_initializer: For the bias; None for zeros.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:2410.01201, section 3.2 and appendix B.
    """

    def param_specs(self, depth: int) -> dict[str, Any]:
        """Specs of `kernel` and `bias`."""
        return gate_specs(self, depth, blocks=3)

    def coefficients(self, params: Params, inputs: Array) -> tuple[Array, Array, None]:
        """`f / (f + i)`, and `i / (f + i)` times the activated candidate."""
        f, i, c = gates(params, inputs, blocks=3)
        # This is log(sigmoid(i) / sigmoid(f)).
        ratio = jax.nn.softplus(-f) - jax.nn.softplus(-i)
        sigmoid = jax.nn.sigmoid
        return sigmoid(-ratio), sigmoid(ratio) * self.activation(c), None


def positive(x: Array) -> Array:
    """`x + 1/2` for x >= 0, otherwise `sigmoid(x)`; continuous and positive."""
    return jnp.where(x >= 0, x + 0.5, jax.nn.sigmoid(x))
