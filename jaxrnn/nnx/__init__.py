"""Modules of Flax's nnx that hold any cell of jaxrnn.

`RNN`, `Bidirectional` and `StackBidirectional` run over sequences, `RawRNN` is
`jaxrnn.raw_rnn` with a cell of its own. `Cell` is a cell of jaxrnn as one of nnx's, for
`nnx.RNN`; `as_cell` makes a cell of jaxrnn of one of nnx's, for any driver.

They change nothing of themselves, but for the count of a stream of noise where a cell
draws some: so they work in any transformation of JAX, as arguments or in closures.

Parameters are the cell's own, under TensorFlow's names:
`rnn.params["lstm_cell"]["kernel"]`. `jaxrnn.linen` has the same modules with the same
names.
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

__all__ = ["RNN", "Bidirectional", "Cell", "RawRNN", "StackBidirectional", "as_cell"]
