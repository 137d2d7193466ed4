"""Modules of Flax's linen that hold any cell of jaxrnn.

`RNN`, `Bidirectional` and `StackBidirectional` run over sequences, `RawRNN` is
`jaxrnn.raw_rnn` with a cell of its own. `Cell` is a cell of jaxrnn as one of linen's,
for `nn.RNN`; `as_cell` makes a cell of jaxrnn of one of linen's, for any driver.

Parameters are the cell's own, under TensorFlow's names: `rnn/lstm_cell/kernel` in a
module of the name "rnn", `rnn/fw/lstm_cell/kernel` of two directions,
`rnn/cell_0/fw/lstm_cell/kernel` of layers of these. `variables_of` puts cells that have
weights into a module, `cells_of` takes them out. `jaxrnn.nnx` has the same modules with
the same names.
"""

from .._base.public import set_public_module as _set_public_module
from ._cells import Cell as Cell, as_cell as as_cell
from ._raw_rnn import RawRNN as RawRNN
from ._recurrent import (
    RNN as RNN,
    Bidirectional as Bidirectional,
    StackBidirectional as StackBidirectional,
)

_set_public_module(globals())

__all__ = [
    "RNN",
    "Bidirectional",
    "Cell",
    "RawRNN",
    "StackBidirectional",
    "as_cell",
]
