"""Flax linen modules that hold any jaxrnn cell.

`RNN`, `Bidirectional` and `StackBidirectional` run over sequences. `Cell` wraps a
jaxrnn cell as a linen cell, for `nn.RNN`; `as_cell` wraps a linen cell as a jaxrnn
cell.

Parameters have TensorFlow's names: `rnn/lstm_cell/kernel` in a module named "rnn",
`rnn/fw/lstm_cell/kernel` with two directions, `rnn/cell_0/fw/lstm_cell/kernel` with
several bidirectional layers. A module's `variables_of` creates its variables from bound
cells; `cells_of` is the inverse. `jaxrnn.nnx` has the same modules under the same
names.
"""

import typing as _typing

from .. import _layers as _layers  # Raises an error if Flax is missing.
from .._base.modules import export as _export, missing_name as _missing_name
from ._cells import Cell as Cell, as_cell as as_cell
from ._modules import (
    RNN as RNN,
    Bidirectional as Bidirectional,
    StackBidirectional as StackBidirectional,
)

_RAW_RNN = (
    "Use `jaxrnn.raw_rnn(rnn.cells_of(rnn.variables), loop_fn)` with a module `RNN`."
)

_export(globals())

# Hide `__getattr__` from type checkers, so that they report missing names.
if not _typing.TYPE_CHECKING:

    def __getattr__(name: str) -> _typing.NoReturn:
        raise _missing_name(__name__, name, {"RawRNN": _RAW_RNN})
