"""Haiku: `hk.dynamic_unroll`, time-major. It does not support lengths."""

import haiku as hk

from ..built import LeftOutError, Variants
from ..cases import Case
from ..data import Data
from . import _jax

USES = ("dm-haiku", "jax", "jaxlib")


def build(case: Case, data: Data) -> Variants:
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

    net = _jax.layered_net(
        data,
        layer,
        # The LSTM adds 1 to its forget gate at run time, as TensorFlow does.
        lambda one: {"lstm/linear": {"w": one["kernel"], "b": one["bias"]}},
        (
            lambda state: hk.LSTMState(hidden=state["h"], cell=state["c"]),
            lambda state: {"c": state.cell, "h": state.hidden},
        ),
    )
    return _jax.build(case, data, {"": net})
