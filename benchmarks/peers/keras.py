"""Keras 3 on JAX: its recurrent layers, stateless, with a mask for lengths.

Arrays are batch-major, the only order that Keras supports.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"


import jax.numpy as jnp
import keras

import jaxrnn.convert

from ..built import LeftOutError, Variants
from ..cases import Case
from ..data import Data
from . import _jax
from .jaxrnn import bound

USES = ("keras", "jax", "jaxlib")

# The class and its arguments for each cell.
LAYERS = {
    "lstm": (keras.layers.LSTM, {}),
    "gru": (keras.layers.GRU, {"reset_after": False}),
    "gru_after": (keras.layers.GRU, {"reset_after": True}),
}


def build(case: Case, data: Data) -> Variants:
    """One layer after the other, each over the whole sequence."""
    if case.layer_cell not in LAYERS:
        raise LeftOutError("Keras has no such cell")
    layers = [_layer(case, depth) for depth in case.layer_depths]

    def run(number, params, inputs, state, lengths):
        mask = None if lengths is None else jnp.arange(case.time) < lengths[:, None]
        layer = layers[number]
        fixed = [variable.value for variable in layer.non_trainable_variables]
        (outputs, *state), _ = layer.stateless_call(
            params, fixed, inputs, initial_state=state, mask=mask
        )
        return outputs, state

    net = _jax.layered_net(
        data,
        run,
        lambda weights: jaxrnn.convert.to_keras(bound(case, weights))[0],
        _jax.carry(*reversed(case.state_names), kind=list),
        time_major=False,
    )
    return _jax.build(case, data, {"": net})


def _layer(case: Case, depth: int) -> keras.layers.Layer:
    kind, arguments = LAYERS[case.layer_cell]
    layer = kind(
        case.units,
        return_sequences=True,
        return_state=True,
        zero_output_for_mask=True,
        **arguments,
    )
    layer.build((case.batch, case.time, depth))
    return layer
