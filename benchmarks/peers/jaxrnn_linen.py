"""jaxrnn's module for linen: `jaxrnn.linen.RNN`, time-major."""

import jaxrnn.linen

from ..core.built import Built
from ..core.cases import Case
from ..core.data import Data
from . import _jax, _ours

USES = ("flax", *_ours.PACKAGES)


def build(case: Case, data: Data) -> Built:
    """The module's `apply`, with variables made from a cell's parameters."""
    cell = _ours.make_cell(case)
    rnn = jaxrnn.linen.RNN(cell, time_major=True, return_carry=True)

    def run(variables, inputs, state, lengths):
        state, outputs = rnn.apply(variables, inputs, lengths, initial_state=state)
        return outputs, state

    net = _ours.make_net(
        case,
        data,
        run,
        wrap=lambda params: rnn.variables_of(cell.bind(params)),
        unwrap=lambda variables: rnn.cells_of(variables).params,
    )
    return _jax.build(case, data, {"": net})
