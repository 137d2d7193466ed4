"""jaxrnn's module for linen: `jaxrnn.linen.RNN`, time-major."""

from typing import Any

import jax

import jaxrnn.linen

from ..built import Built
from ..cases import Case
from ..data import Data
from . import _jax, _ours

USES = ("jaxrnn", "flax", "jax", "jaxlib", "optax")

PyTree = Any


def build(case: Case, data: Data) -> Built:
    """The module's `apply`, of the variables that it makes of a cell."""
    cell = _ours.make_cell(case)
    rnn = jaxrnn.linen.RNN(cell, time_major=True, return_carry=True)

    def run(
        variables: PyTree, inputs: jax.Array, state: PyTree, lengths: jax.Array | None
    ) -> tuple[PyTree, PyTree]:
        state, outputs = rnn.apply(variables, inputs, lengths, initial_state=state)
        return outputs, state

    variables = rnn.variables_of(cell.bind(_ours.to_params(case, data.weights)))
    read = lambda variables: rnn.cells_of(variables).params
    net = _ours.make_net(case, data, run, variables, read)
    return _jax.build(case, data, {"": net})
