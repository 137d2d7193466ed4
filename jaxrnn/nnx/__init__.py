"""Flax nnx modules that hold any jaxrnn cell.

`RNN`, `Bidirectional` and `StackBidirectional` run over sequences. `RawRNN` is
`jaxrnn.raw_rnn` with a cell whose parameters belong to the module. `Cell` wraps a
jaxrnn cell as an nnx cell, for `nnx.RNN`; `as_cell` wraps an nnx cell as a jaxrnn cell.

A call does not change the module, so modules work under all JAX transformations, as
arguments or in closures. The only exception is a module whose cell draws random
numbers: each call advances the counter of the module's random stream.

Parameters have TensorFlow's names: `rnn.params["lstm_cell"]["kernel"]`. `jaxrnn.linen`
has the same modules under the same names.
"""

from .. import _layers as _layers  # Raises an error if Flax is missing.
from .._base.modules import export as _export
from ._cells import Cell as Cell, as_cell as as_cell
from ._modules import (
    RNN as RNN,
    Bidirectional as Bidirectional,
    RawRNN as RawRNN,
    StackBidirectional as StackBidirectional,
)

_export(globals())
