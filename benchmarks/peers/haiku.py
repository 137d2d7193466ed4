"""Haiku: `hk.dynamic_unroll`, time-major. It does not support lengths."""

from typing import Any

import haiku as hk
import numpy as np

from ..built import Built, LeftOutError
from ..cases import Case
from ..data import Data
from ..layouts import side_by_side, to_gates
from . import _jax

USES = ("dm-haiku", "jax", "jaxlib")

PyTree = Any


def build(case: Case, data: Data) -> Built:
    """One layer after the other, each unrolled over the whole sequence."""
    if case.layer_cell != "lstm":
        raise LeftOutError("Haiku has no such cell")
    if data.lengths is not None:
        raise LeftOutError("Haiku does not support lengths")
    unroll = hk.without_apply_rng(
        hk.transform(lambda x, state: hk.dynamic_unroll(hk.LSTM(case.units), x, state))
    )

    def layer(_, params, inputs, state, __):
        return unroll.apply(params, inputs, state)

    net = _jax.make_net(
        data,
        _jax.by_layers(layer),
        lambda layers: [_to_params(weights) for weights in layers],
        (
            lambda state: hk.LSTMState(hidden=state["h"], cell=state["c"]),
            lambda state: {"c": state.cell, "h": state.hidden},
        ),
    )
    return _jax.build(case, data, {"": net})


def _to_params(weights: dict[str, np.ndarray]) -> PyTree:
    """The LSTM adds 1 to its forget gate at run time, as TensorFlow does."""
    x, h, b = side_by_side(to_gates("lstm", weights, 0), "igfo")
    return {"lstm/linear": {"w": np.concatenate([x, h]), "b": b}}
