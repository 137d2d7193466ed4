"""The minimal gated recurrent unit whose gate does not read the state."""

import dataclasses
from typing import Any, final

import jax

from .._base.typing import Array, DType, Initializer, Params
from .hyperparameters import set_field
from .linear_recurrence import VectorRecurrenceCell, gate_specs, gates, positive


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class MinGRUCell(VectorRecurrenceCell):
    """A minimal gated recurrent unit (minGRU): gate and candidate read inputs alone.

        z, c = split(x kernel + bias)
        h'   = sigmoid(-z) * h + sigmoid(z) * activation(c)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `kernel` `[I, 2H]` and `bias` `[2H]`, blocks z, c.

    Attributes:
        num_units: `H`.
        activation: None for the paper's, `c + 1/2` where c is positive and else
            `sigmoid(c)`; the name of a Keras activation ("linear" for the paper's
            simplest form), or a function.
        kernel_initializer: For the kernel; None for Glorot uniform.
        bias_initializer: For the bias; None for zeros.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `num_units` is negative, the activation is not known, or `dtype`
            is not floating.

    Source: arXiv:2410.01201, section 3.1 and appendix B.
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

    def param_specs(self, depth: int) -> dict[str, Any]:
        """`kernel` and `bias`."""
        return gate_specs(self, depth, blocks=2)

    def coefficients(self, params: Params, inputs: Array) -> tuple[Array, Array, None]:
        """`1 - gate`, and the candidate times the gate."""
        z, c = gates(params, inputs, blocks=2)
        candidate = jax.nn.sigmoid(z) * self.activation(c)
        # Not 1 - sigmoid(z), of which nothing is left where the gate is almost 1.
        return jax.nn.sigmoid(-z), candidate, None
