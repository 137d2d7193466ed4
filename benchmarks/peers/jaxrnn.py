"""jaxrnn itself, time-major."""

import importlib.util

import jaxrnn

from ..core.built import Built
from ..core.cases import Case
from ..core.data import Data
from . import _jax, _ours

# Where it is installed, it is part of what runs.
_NATIVE = ("jaxrnn-native",) if importlib.util.find_spec("jaxrnn_native") else ()
USES = (*_ours.PACKAGES, *_NATIVE)


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
