"""Haiku: `hk.dynamic_unroll`, time-major. It does not support lengths."""

from typing import Any

import haiku as hk
import numpy as np

from ..built import Built, LeftOutError
from ..cases import Case
from ..data import Data
from ..layouts import Gates, side_by_side, to_gates
from . import _jax

USES = ("dm-haiku", "jax", "jaxlib", "optax")

PyTree = Any

LEFT_OUT = {
    "gru_after": "Haiku's GRU resets before the product",
    "rnn": "Haiku's plain core uses ReLU",
    "peephole": "Haiku has no such cell",
    "mgu": "Haiku has no such cell",
}


def build(case: Case, data: Data) -> Built:
    """One layer after the other, each unrolled over the whole sequence."""
    if case.layer_cell in LEFT_OUT:
        raise LeftOutError(LEFT_OUT[case.layer_cell])
    if data.lengths is not None:
        raise LeftOutError("Haiku does not support lengths")
    core, to_params, state = _CELLS[case.layer_cell]
    unroll = hk.without_apply_rng(
        hk.transform(lambda x, state: hk.dynamic_unroll(core(case.units), x, state))
    )

    def layer(_, params, inputs, state, __):
        return unroll.apply(params, inputs, state)

    net = _jax.make_net(
        data,
        _jax.by_layers(layer),
        # The LSTM adds 1 to its forget gate at run time, as TensorFlow does.
        lambda layers: [to_params(to_gates(case.layer_cell, w, 0)) for w in layers],
        state,
    )
    return _jax.build(case, data, {"": net})


def _lstm(gates: Gates) -> PyTree:
    x, h, b = side_by_side(gates, "igfo")
    return {"lstm/linear": {"w": np.concatenate([x, h]), "b": b}}


def _gru(gates: Gates) -> PyTree:
    """Parameters of a GRU, whose update gate is one minus TensorFlow's."""
    flipped = Gates(*(g | {"u": -g["u"]} for g in (gates.x, gates.h, gates.b)))
    x, h, b = side_by_side(flipped, "urc")
    return {"gru": {"w_i": x, "w_h": h, "b": b}}


_LSTM_STATE = (
    lambda state: hk.LSTMState(hidden=state["h"], cell=state["c"]),
    lambda state: {"c": state.cell, "h": state.hidden},
)

_CELLS = {"lstm": (hk.LSTM, _lstm, _LSTM_STATE), "gru": (hk.GRU, _gru, _jax.carry("h"))}
