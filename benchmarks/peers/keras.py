"""Keras 3 on JAX: its recurrent layers, stateless, with a mask for lengths.

Batch-major, for that is all it takes. GRU with `reset_after` as the case has it.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"

from typing import Any

import jax.numpy as jnp
import keras
import numpy as np

from ..built import Built, LeftOutError
from ..cases import Case
from ..data import Data
from ..layouts import apart, from_gates, side_by_side, to_gates
from . import _jax

USES = ("keras", "jax", "jaxlib", "optax")

PyTree = Any

# Classes, their arguments, and the order of their blocks.
LAYERS = {
    "lstm": (keras.layers.LSTM, {}, "ifgo"),
    "gru": (keras.layers.GRU, {"reset_after": False}, "urc"),
    "gru_after": (keras.layers.GRU, {"reset_after": True}, "urc"),
    "rnn": (keras.layers.SimpleRNN, {}, "a"),
}


def build(case: Case, data: Data) -> Built:
    """Layers one after the other, each over the whole sequence."""
    if case.layer_cell not in LAYERS:
        raise LeftOutError("Keras has no such cell")
    kind, arguments, order = LAYERS[case.layer_cell]
    layers = []
    for depth in case.layer_depths:
        layer = kind(
            case.units,
            return_sequences=True,
            return_state=True,
            zero_output_for_mask=True,
            **arguments,
        )
        layer.build((case.batch, case.time, depth))
        layers.append(layer)

    def run(
        number: int, params: PyTree, inputs: PyTree, state: PyTree, lengths: PyTree
    ) -> tuple[PyTree, PyTree]:
        mask = None if lengths is None else jnp.arange(case.time) < lengths[:, None]
        layer = layers[number]
        fixed = [variable.value for variable in layer.non_trainable_variables]
        (outputs, *state), _ = layer.stateless_call(
            params, fixed, inputs, initial_state=state, mask=mask
        )
        return outputs, state

    net = _jax.make_net(
        data,
        _jax.by_layers(run),
        [_to_params(case, weights, order) for weights in data.weights],
        lambda params: [_from_params(case, layer, order) for layer in params],
        make_state=lambda state: [state[name] for name in reversed(case.state_names)],
        read_state=lambda state: dict(
            zip(reversed(case.state_names), map(np.asarray, state), strict=True)
        ),
        time_major=False,
    )
    return _jax.build(case, data, {"": net})


def _to_params(case: Case, weights: dict[str, np.ndarray], order: str) -> PyTree:
    """Kernels and bias; a GRU that resets after has a second bias, zero here."""
    x, h, b = side_by_side(to_gates(case.layer_cell, weights, 1), order)
    return [x, h, np.stack([b, np.zeros_like(b)]) if case.cell == "gru_after" else b]


def _from_params(case: Case, params: PyTree, order: str) -> dict[str, np.ndarray]:
    x, h, b = params
    gates = apart(order, x, h, b[0] if case.cell == "gru_after" else b)
    return from_gates(case.layer_cell, gates)
