"""Flax linen modules that hold any jaxrnn cell.

`RNN`, `Bidirectional` and `StackBidirectional` run over sequences. `Cell` turns a
jaxrnn cell into a linen cell, for `nn.RNN`. `as_cell` turns a linen cell into a jaxrnn
cell.

Parameters have TensorFlow's names, such as `rnn/lstm_cell/kernel` in a module named
"rnn", `rnn/fw/lstm_cell/kernel` with two directions, and
`rnn/cell_0/fw/lstm_cell/kernel` with several bidirectional layers. A module's
`variables_of` creates its variables from bound cells, and `cells_of` is the inverse.
`jaxrnn.nnx` has the same modules under the same names.
"""

# This file only lists the public names of `_flax/linen.py`.

from .._base.modules import set_module as _set_module
from .._flax.linen import RNN, Bidirectional, Cell, StackBidirectional, as_cell

__all__ = [
    "RNN",
    "Bidirectional",
    "Cell",
    "StackBidirectional",
    "as_cell",
]

_set_module(__name__)
