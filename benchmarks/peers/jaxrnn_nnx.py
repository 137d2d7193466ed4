"""jaxrnn's module for nnx: `jaxrnn.nnx.RNN`, time-major, split for `jax.jit`."""

from flax import nnx

import jaxrnn.nnx

from ..core.built import Built
from ..core.cases import Case
from ..core.data import Data
from . import _jax, _ours

USES = ("flax", *_ours.PACKAGES)


def build(case: Case, data: Data) -> Built:
    """The module's call, with a cell's parameters."""
    cell = _ours.make_cell(case)
    rnn = jaxrnn.nnx.RNN(
        cell, case.depth, time_major=True, return_carry=True, rngs=nnx.Rngs(0)
    )
    graph, _, rest = nnx.split(rnn, nnx.Param, ...)

    def run(params, inputs, state, lengths):
        rnn = nnx.merge(graph, params, rest)
        state, outputs = rnn(inputs, lengths, initial_state=state)
        return outputs, state

    def wrap(params):
        rnn.set_cells(cell.bind(params))
        return nnx.state(rnn, nnx.Param)

    unwrap = lambda params: nnx.merge(graph, params, rest).get_cells().params
    net = _ours.make_net(case, data, run, wrap=wrap, unwrap=unwrap)
    return _jax.build(case, data, {"": net})
