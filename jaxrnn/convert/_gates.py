"""LSTMs and GRUs whose gates need not use the sigmoid, as layers of other libraries.

The cells have the parameters of `LSTMCell`, `GRUCell` and `CudnnCompatibleGRUCell`, and
run in XLA's loop. In their equations, `recurrent_activation` replaces the sigmoid. It
is None for the sigmoid, the name of a Keras activation, or a function.
"""

from typing import Any, final

import jax
import jax.numpy as jnp

from .._base.typing import Array
from .._cells import fields
from .._cells.gru import CudnnCompatibleGRUCell, GRUCell
from .._cells.lstm import LSTMCell


def each_gate(cell: Any, z: Array) -> Array:
    """The gates r and u, `[batch, 2H]`; some activations, as softmax, join units."""
    gates = jnp.split(z, 2, axis=-1)
    return jnp.concatenate(list(map(cell.recurrent_activation, gates)), axis=-1)


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
    _gate_activation = each_gate


@final
@fields.dataclass
class GatedCudnnGRUCell(
    CudnnCompatibleGRUCell  # pyright: ignore[reportGeneralTypeIssues]
):
    """A `CudnnCompatibleGRUCell` whose gates are `recurrent_activation(...)`."""

    recurrent_activation: fields.ActivationLike = fields.activation(none=jax.nn.sigmoid)
    _gate_activation = each_gate
