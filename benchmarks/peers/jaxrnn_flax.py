"""jaxrnn's modules for Flax: `linen.RNN` and `nnx.RNN`, time-major."""

from flax import nnx

import jaxrnn.linen
import jaxrnn.nnx

from ..built import Built
from ..cases import Case
from ..data import Data
from . import _jax
from .jaxrnn import make_cell, make_net

USES = ("flax", "jax", "jaxlib", "optax")


def build(case: Case, data: Data) -> Built:
    """The module that `case.run` names, with the parameters of a cell."""
    make = {"linen": _linen, "nnx": _nnx}[case.run]
    return _jax.build(case, data, {"": make(case, data)})


def _linen(case: Case, data: Data) -> _jax.Net:
    """The module's `apply`."""
    cell = make_cell(case)
    rnn = jaxrnn.linen.RNN(cell, time_major=True, return_carry=True)

    def run(variables, inputs, state, lengths):
        state, outputs = rnn.apply(variables, inputs, lengths, initial_state=state)
        return outputs, state

    wrap = lambda params: rnn.variables_of(cell.bind(params))
    unwrap = lambda variables: rnn.cells_of(variables).params
    return make_net(case, data, run, wrap=wrap, unwrap=unwrap)


def _nnx(case: Case, data: Data) -> _jax.Net:
    """The module's call, split for `jax.jit`."""
    cell = make_cell(case)
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
    return make_net(case, data, run, wrap=wrap, unwrap=unwrap)
