"""LSTMs and GRUs whose gates use another activation than the sigmoid.

Layers of Keras and ONNX may have such gates, e.g. a hard sigmoid. The cells have the
parameters of `LSTMCell`, `GRUCell` and `CudnnCompatibleGRUCell`, and run in XLA's loop.
The field `recurrent_activation` is the activation of the gates: a function, the name of
a Keras activation, or None for the sigmoid.
"""

from typing import Any, final

import jax
import jax.numpy as jnp

from .._base.typing import Array
from .._cells import fields
from .._cells.gru import CudnnCompatibleGRUCell, GRUCell
from .._cells.lstm import LSTMCell


def each_gate(cell: Any, z: Array) -> Array:
    """Applies the activation to gate r and gate u of z, `[batch, 2H]`, separately.

    An activation such as softmax would otherwise mix the units of both gates.
    """
    gates = jnp.split(z, 2, axis=-1)
    return jnp.concatenate(list(map(cell.recurrent_activation, gates)), axis=-1)


@final
@fields.dataclass
class GatedLSTMCell(LSTMCell):
    """An `LSTMCell` with `recurrent_activation` in place of the sigmoid."""

    recurrent_activation: fields.ActivationLike = fields.activation(none=jax.nn.sigmoid)
    _gate_activation = property(lambda self: self.recurrent_activation)


@final
@fields.dataclass
class GatedGRUCell(GRUCell):  # pyright: ignore[reportGeneralTypeIssues]
    """A `GRUCell` with `recurrent_activation` in place of the sigmoid."""

    recurrent_activation: fields.ActivationLike = fields.activation(none=jax.nn.sigmoid)
    _gate_activation = each_gate


@final
@fields.dataclass
class GatedCudnnGRUCell(
    CudnnCompatibleGRUCell  # pyright: ignore[reportGeneralTypeIssues]
):
    """A `CudnnCompatibleGRUCell` with `recurrent_activation`, not the sigmoid."""

    recurrent_activation: fields.ActivationLike = fields.activation(none=jax.nn.sigmoid)
    _gate_activation = each_gate
