"""The basic recurrent cell."""

import dataclasses
from typing import Any, final

from .._initializers import glorot_uniform, zeros
from .._typing import Array, DType, Params, Size
from ._affine import AffineCell, Stage
from ._checks import set_common_fields


@final
@dataclasses.dataclass(frozen=True, repr=False)
class BasicRNNCell(AffineCell):
    """The most basic cell: one product, one activation.

        h' = activation([x, h] kernel + bias)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `kernel` `[I + H, H]`; `bias` `[H]`.

    Attributes:
        num_units: `H`.
        activation: None for tanh, the name of a Keras activation, or a function of the
            module level (a fresh lambda makes a new cell and compiles anew).
        reuse: Taken for TensorFlow's sake; parameters are explicit here.
        name: The name of the step in profiles.
        dtype: The dtype that parameters and inputs must have; None for any.

    Source: `tf.compat.v1.nn.rnn_cell.BasicRNNCell`.
    """

    num_units: int
    activation: Any = None
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = None
    dtype: DType | None = None

    def __post_init__(self) -> None:
        set_common_fields(self)

    @property
    def state_size(self) -> Size:
        """`num_units`."""
        return self.num_units

    @property
    def output_size(self) -> Size:
        """`num_units`."""
        return self.num_units

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One product, then the activation."""
        size = self.num_units
        return (Stage(self._update, size, size, glorot_uniform, zeros),)

    def enter(self, state: Array) -> tuple[Array, Array]:
        """The state is multiplied whole."""
        return state, state

    def _update(self, params: Params, z: Array, state: Array) -> tuple[Array, Array]:
        del params, state
        new_state = self.activation(z)
        return new_state, new_state
