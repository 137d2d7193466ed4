"""Modules of Flax's nnx that hold any cell of jaxrnn.

`RNN`, `Bidirectional` and `StackBidirectional` run over sequences. `RawRNN` is
`jaxrnn.raw_rnn` with a cell whose parameters belong to the module. `Cell` wraps a cell
of jaxrnn as a cell of nnx, for `nnx.RNN`; `as_cell` wraps a cell of nnx as a cell of
jaxrnn, for any driver.

A call changes nothing in a module, except for the counter of its random stream if a
cell draws random numbers. So modules work in all transformations of JAX, as arguments
or in closures.

Parameters have TensorFlow's names: `rnn.params["lstm_cell"]["kernel"]`. `jaxrnn.linen`
has the same modules under the same names.
"""

from .._base.public import set_public_module as _set_public_module
from .._layers import needs_flax as _needs_flax  # noqa: F401 (It may raise.)
from ._cell_adapters import Cell as Cell, as_cell as as_cell
from ._raw_rnn import RawRNN as RawRNN
from ._recurrent import (
    RNN as RNN,
    Bidirectional as Bidirectional,
    StackBidirectional as StackBidirectional,
)

_set_public_module(globals())
