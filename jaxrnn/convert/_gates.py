"""LSTMs and GRUs whose gates need not use the sigmoid, as layers of other libraries.

The cells have the parameters of `LSTMCell`, `GRUCell` and `CudnnCompatibleGRUCell`, and
run in XLA's loop. In their equations, `recurrent_activation` replaces the sigmoid. It
is None for the sigmoid, the name of a Keras activation, or a function.
"""

from typing import final

import jax

from .._cells import fields
from .._cells.gru import CudnnCompatibleGRUCell, GRUCell
from .._cells.lstm import LSTMCell


@final
@fields.dataclass
class GatedLSTMCell(LSTMCell):
    """An `LSTMCell` whose gates are `recurrent_activation(...)`."""

    recurrent_activation: fields.ActivationLike = fields.activation(none=jax.nn.sigmoid)
    _gate_activation = property(lambda self: self.recurrent_activation)


@final
@fields.dataclass
class GatedGRUCell(GRUCell):  # pyright: ignore[reportGeneralTypeIssues]
    """A `GRUCell` whose gates are `recurrent_activation(...)`."""

    recurrent_activation: fields.ActivationLike = fields.activation(none=jax.nn.sigmoid)
    _gate_activation = property(lambda self: self.recurrent_activation)


@final
@fields.dataclass
class GatedCudnnGRUCell(
    CudnnCompatibleGRUCell  # pyright: ignore[reportGeneralTypeIssues]
):
    """A `CudnnCompatibleGRUCell` whose gates are `recurrent_activation(...)`."""

    recurrent_activation: fields.ActivationLike = fields.activation(none=jax.nn.sigmoid)
    _gate_activation = property(lambda self: self.recurrent_activation)
