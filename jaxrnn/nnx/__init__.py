"""Flax nnx modules that hold any jaxrnn cell.

`RNN`, `Bidirectional` and `StackBidirectional` run over sequences. `Cell` wraps a
jaxrnn cell as an nnx cell, for `nnx.RNN`; `as_cell` wraps an nnx cell as a jaxrnn cell.

A call does not change the module, so modules work under all JAX transformations, as
arguments or in closures. The only exception is a module whose cell draws random
numbers: each call advances the counter of the module's random stream.

Parameters have TensorFlow's names: `rnn.params["lstm_cell"]["kernel"]`. `jaxrnn.linen`
has the same modules under the same names.
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

_RAW_RNN = "Use `jaxrnn.raw_rnn(rnn.get_cells(), loop_fn)` with a module `RNN`."

_export(globals())

# Hide `__getattr__` from type checkers, so that they report missing names.
if not _typing.TYPE_CHECKING:

    def __getattr__(name: str) -> _typing.NoReturn:
        raise _missing_name(__name__, name, {"RawRNN": _RAW_RNN})
