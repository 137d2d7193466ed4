"""jaxrnn itself, time-major."""

from typing import Any

import jax

import jaxrnn

from ..built import Built
from ..cases import Case
from ..data import Data
from . import _jax, _ours

USES = ("jaxrnn", "jax", "jaxlib", "optax")

PyTree = Any


def build(case: Case, data: Data) -> Built:
    """`dynamic_rnn` as a user calls it."""
    cell = _ours.make_cell(case)

    def run(
        params: PyTree, inputs: jax.Array, state: PyTree, lengths: jax.Array | None
    ) -> tuple[PyTree, PyTree]:
        bound = cell.bind(params)
        return jaxrnn.dynamic_rnn(bound, inputs, lengths, state, time_major=True)

    params = _ours.to_params(case, data.weights)
    net = _ours.make_net(case, data, run, params, cell_params=lambda params: params)
    return _jax.build(case, data, {"": net})
