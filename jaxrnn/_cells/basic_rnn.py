"""The basic recurrent cell."""

import dataclasses
from typing import Any

from .._base.typing import Array, DType, Params
from .affine import Stage, Updated
from .initializers import glorot_uniform, zeros
from .states import VectorStateCell


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class BasicRNNCell(VectorStateCell):
    """The basic (Elman) recurrent cell: one matrix product and one activation.

        h' = activation([x, h] kernel + bias)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `kernel` `[I + H, H]`; `bias` `[H]`.

    Attributes:
        num_units: `H`, at least 0.
        activation: None for tanh, the name of a Keras activation, or a function
            defined at module level (each new lambda is compiled again).
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: `tf.compat.v1.nn.rnn_cell.BasicRNNCell`.
    """

    num_units: int
    activation: Any = None
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = None
    dtype: DType | None = None

    library_kind = "rnn"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """A single stage: one product, then the activation."""
        size = self.num_units
        return (Stage(self._update, size, size, glorot_uniform, zeros, blocks=1),)

    def _update(self, params: Params, z: Array, state: Array) -> Updated:
        new_state = self.activation(z)
        return new_state, new_state
