"""jaxrnn's module for nnx: `jaxrnn.nnx.RNN`, time-major, split for `jax.jit`."""

from typing import Any

import jax
from flax import nnx

import jaxrnn.nnx

from ..built import Built
from ..cases import Case
from ..data import Data
from . import _jax, _ours

USES = ("jaxrnn", "flax", "jax", "jaxlib", "optax")

PyTree = Any


def build(case: Case, data: Data) -> Built:
    """The module's call, with the parameters of a cell."""
    cell = _ours.make_cell(case)
    rnn = jaxrnn.nnx.RNN(
        cell, case.depth, time_major=True, return_carry=True, rngs=nnx.Rngs(0)
    )
    rnn.set_cells(cell.bind(_ours.to_params(case, data.weights)))
    graph, params, rest = nnx.split(rnn, nnx.Param, ...)

    def run(
        params: PyTree, inputs: jax.Array, state: PyTree, lengths: jax.Array | None
    ) -> tuple[PyTree, PyTree]:
        rnn = nnx.merge(graph, params, rest)
        state, outputs = rnn(inputs, lengths, initial_state=state)
        return outputs, state

    read = lambda params: nnx.merge(graph, params, rest).get_cells().params
    net = _ours.make_net(case, data, run, params, read)
    return _jax.build(case, data, {"": net})
