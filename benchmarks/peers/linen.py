"""Flax linen: `nn.RNN`, time-major, with `seq_lengths`."""

import functools
from typing import Any

import flax.linen as nn
import numpy as np

import jaxrnn.convert

from ..built import LeftOutError, Variants
from ..cases import Case
from ..data import Data
from . import _jax
from .jaxrnn import bound

USES = ("flax", "jax", "jaxlib")

PyTree = Any

CELLS = {
    "lstm": (nn.OptimizedLSTMCell, nn.LSTMCell),
    "gru_after": (nn.GRUCell,),
}


def build(case: Case, data: Data) -> Variants:
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

    convert = functools.partial(to_params, case)
    return _jax.layered_net(data, layer, convert, _jax.carry(*case.state_names))


def to_params(case: Case, weights: dict[str, np.ndarray]) -> PyTree:
    """The parameters of Flax's cell."""
    return jaxrnn.convert.to_linen(bound(case, weights))
