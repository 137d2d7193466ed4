"""Flax linen: `nn.RNN`, time-major, with `seq_lengths`."""

from typing import Any

import flax.linen as nn
import numpy as np

from ..built import Built, LeftOutError
from ..cases import Case
from ..data import Data
from ..layouts import to_gates
from . import _jax

USES = ("flax", "jax", "jaxlib")

PyTree = Any

CELLS = {
    "lstm": (nn.OptimizedLSTMCell, nn.LSTMCell),
    "gru_after": (nn.GRUCell,),
}


def build(case: Case, data: Data) -> Built:
    """One net for each class that implements the cell."""
    if case.layer_cell not in CELLS:
        raise LeftOutError("Flax has no such cell")
    nets = {
        cell.__name__: _net(case, data, cell(case.units))
        for cell in CELLS[case.layer_cell]
    }
    return _jax.build(case, data, nets)


def _net(case: Case, data: Data, cell: nn.RNNCellBase) -> _jax.Net:
    rnn = nn.RNN(cell, time_major=True, return_carry=True)

    def layer(_, params, inputs, state, lengths):
        state, outputs = rnn.apply(
            {"params": {"cell": params}},
            inputs,
            initial_carry=state,
            seq_lengths=lengths,
        )
        return outputs, state

    return _jax.make_net(
        data,
        _jax.by_layers(layer),
        lambda layers: [to_params(case.layer_cell, weights) for weights in layers],
        _jax.carry(*case.state_names),
    )


def to_params(cell: str, weights: dict[str, np.ndarray]) -> PyTree:
    """The parameters of Flax's cell."""
    gates = to_gates(cell, weights, 1)
    if cell == "lstm":
        inputs = {f"i{gate}": {"kernel": gates.x[gate]} for gate in "ifgo"}
        state = {f"h{gate}": _dense(gates.h[gate], gates.b[gate]) for gate in "ifgo"}
        return inputs | state
    params = {}
    for ours, theirs in {"r": "r", "u": "z", "c": "n"}.items():
        params[f"i{theirs}"] = _dense(gates.x[ours], gates.b[ours])
        params[f"h{theirs}"] = {"kernel": gates.h[ours]}
    # The candidate has a second bias, which is zero and not in the data.
    params["hn"]["bias"] = np.zeros_like(params["in"]["bias"])
    return params


def _dense(kernel: np.ndarray, bias: np.ndarray) -> PyTree:
    return {"kernel": kernel, "bias": bias}
