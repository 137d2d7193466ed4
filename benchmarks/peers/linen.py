"""Flax linen: `nn.RNN`, time-major, with `seq_lengths`."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import numpy as np

from ..built import RESET_AFTER, Built, LeftOutError
from ..cases import Case
from ..data import Data
from ..layouts import Gates, from_gates, to_gates
from . import _jax

USES = ("flax", "jax", "jaxlib", "optax")

PyTree = Any

CELLS = {
    "lstm": (nn.OptimizedLSTMCell, nn.LSTMCell),
    "gru": (nn.GRUCell,),
    "gru_after": (nn.GRUCell,),
    "rnn": (nn.SimpleCell,),
    "mgu": (nn.MGUCell,),
}


def build(case: Case, data: Data) -> Built:
    """One net for each cell class that computes the case."""
    if case.layer_cell not in CELLS:
        raise LeftOutError("Flax has no such cell")
    nets = {
        cell.__name__: _net(case, data, cell(case.units))
        for cell in CELLS[case.layer_cell]
    }
    return _jax.build(case, data, nets, RESET_AFTER if case.cell == "gru" else "")


def _net(case: Case, data: Data, cell: nn.RNNCellBase) -> _jax.Net:
    rnn = nn.RNN(cell, time_major=True, return_carry=True)

    def layer(
        _: int, params: PyTree, inputs: PyTree, state: PyTree, lengths: PyTree
    ) -> tuple[PyTree, PyTree]:
        state, outputs = rnn.apply(
            {"params": {"cell": params}},
            inputs,
            initial_carry=state,
            seq_lengths=lengths,
        )
        return outputs, state

    to_params, from_params = _LAYOUTS[case.layer_cell]
    return _jax.make_net(
        data,
        _jax.by_layers(layer),
        [to_params(to_gates(case.layer_cell, w, 1)) for w in data.weights],
        lambda params: [from_gates(case.layer_cell, from_params(p)) for p in params],
        *_jax.carry(*case.state_names),
    )


def _lstm(gates: Gates) -> PyTree:
    inputs = {f"i{gate}": {"kernel": gates.x[gate]} for gate in "ifgo"}
    state = {f"h{gate}": _dense(gates.h[gate], gates.b[gate]) for gate in "ifgo"}
    return inputs | state


def _from_lstm(params: PyTree) -> Gates:
    return Gates(
        {gate: params[f"i{gate}"]["kernel"] for gate in "ifgo"},
        {gate: params[f"h{gate}"]["kernel"] for gate in "ifgo"},
        {gate: params[f"h{gate}"]["bias"] for gate in "ifgo"},
    )


def _gated(names: dict[str, str]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """For cells whose candidate `n` has a second bias: zero here, no part of ours."""

    def to_params(gates: Gates) -> PyTree:
        params = {}
        for ours, theirs in names.items():
            params[f"i{theirs}"] = _dense(gates.x[ours], gates.b[ours])
            params[f"h{theirs}"] = {"kernel": gates.h[ours]}
        params["hn"]["bias"] = np.zeros_like(params["in"]["bias"])
        return params

    def from_params(params: PyTree) -> Gates:
        return Gates(
            {ours: params[f"i{theirs}"]["kernel"] for ours, theirs in names.items()},
            {ours: params[f"h{theirs}"]["kernel"] for ours, theirs in names.items()},
            {ours: params[f"i{theirs}"]["bias"] for ours, theirs in names.items()},
        )

    return to_params, from_params


def _simple(gates: Gates) -> PyTree:
    return {"i": _dense(gates.x["a"], gates.b["a"]), "h": {"kernel": gates.h["a"]}}


def _from_simple(params: PyTree) -> Gates:
    i, h = params["i"], params["h"]
    return Gates({"a": i["kernel"]}, {"a": h["kernel"]}, {"a": i["bias"]})


def _dense(kernel: np.ndarray, bias: np.ndarray) -> PyTree:
    return {"kernel": kernel, "bias": bias}


_GRU = _gated({"r": "r", "u": "z", "c": "n"})

_LAYOUTS = {
    "lstm": (_lstm, _from_lstm),
    "gru": _GRU,
    "gru_after": _GRU,
    "mgu": _gated({"f": "f", "n": "n"}),
    "rnn": (_simple, _from_simple),
}
