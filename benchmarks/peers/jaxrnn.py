"""jaxrnn itself, time-major."""

import jaxrnn

from ..core.built import Built
from ..core.cases import Case
from ..core.data import Data
from . import _jax, _ours

USES = _ours.PACKAGES


def build(case: Case, data: Data, implementation: str | None = None) -> Built:
    """`dynamic_rnn` as a user calls it."""
    cell = _ours.make_cell(case)

    def run(params, inputs, state, lengths):
        return jaxrnn.dynamic_rnn(
            cell.bind(params),
            inputs,
            lengths,
            state,
            time_major=True,
            implementation=implementation,
        )

    return _jax.build(case, data, {"": _ours.make_net(case, data, run)})
