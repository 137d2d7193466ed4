"""The quasi-recurrent neural network's pooling, as a cell."""

import dataclasses
from typing import Any, final

import jax

from .._base.arguments import check_one_of
from .._base.typing import Array, DType, Initializer, Params
from .linear_recurrence import Coefficients, VectorRecurrenceCell, gate_specs, gates

_BLOCKS = {"f": 2, "fo": 3, "ifo": 4}


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class QRNNCell(VectorRecurrenceCell):
    """A cell of a quasi-recurrent neural network (QRNN).

        z, f, o, i = split(x kernel + bias)
        z          = activation(z)
        c'         = sigmoid(f) * c + (1 - sigmoid(f)) * z    # pooling "f" and "fo"
                   = sigmoid(f) * c + sigmoid(i) * z          # pooling "ifo"
        output     = sigmoid(o) * c'                          # c' for pooling "f"

    In the paper, convolutions over the last inputs replace the products. To use
    convolutions, wrap the cell in a `PastInputsWrapper` with the `width` of the
    convolution.

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state c and
    output `[batch, H]`; `kernel` `[I, GH]` and `bias` `[GH]`, with the first `G` of
    the blocks z, f, o, i; `G` is 2, 3 and 4 for pooling "f", "fo" and "ifo".

    Attributes:
        num_units: `H`, at least 0.
        pooling: "f", "fo" or "ifo".
        activation: None for tanh, the name of a Keras activation, or a function.
        kernel_initializer: For the kernel; None for Glorot uniform.
        bias_initializer: For the bias; None for zeros.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If `num_units` is negative, `pooling` or the activation is unknown,
            or `dtype` is not floating-point.

    Source: arXiv:1611.01576, section 2.
    """

    num_units: int
    pooling: str = "fo"
    activation: Any = None
    kernel_initializer: Initializer | None = None
    bias_initializer: Initializer | None = None
    name: str | None = None
    dtype: DType | None = None

    def __post_init__(self) -> None:
        what = '"f", "fo" or "ifo"'
        check_one_of("pooling", self.pooling, _BLOCKS, what)
        super().__post_init__()

    def param_specs(self, depth: int) -> dict[str, Any]:
        """Specs of `kernel` and `bias`."""
        return gate_specs(self, depth, _BLOCKS[self.pooling])

    def coefficients(self, params: Params, inputs: Array) -> Coefficients:
        """The forget gate, the addend of c, and the output gate if there is one."""
        z, f, *more = gates(params, inputs, _BLOCKS[self.pooling])
        o, i = (*more, None, None)[:2]
        added = jax.nn.sigmoid(-f if i is None else i) * self.activation(z)
        return jax.nn.sigmoid(f), added, None if o is None else jax.nn.sigmoid(o)

    def output(self, params: Params, state: Array, rest: Array | None) -> Array:
        """The state c, multiplied by the output gate if there is one."""
        return state if rest is None else rest * state.astype(rest.dtype)
