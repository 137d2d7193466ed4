"""Flax nnx modules that hold any jaxrnn cell.

`RNN`, `Bidirectional` and `StackBidirectional` run over sequences. `Cell` turns a
jaxrnn cell into an nnx cell, for `nnx.RNN`. `as_cell` turns an nnx cell into a jaxrnn
cell. `GatedDeltaNet`, `KimiDeltaAttention`, `Mamba`, `Mamba2` and `RWKV7TimeMix` are
layers of published models, with the state `PastInputsState`.

A call does not change the module, so modules work under all JAX transformations, as
arguments or in closures. If a cell draws random numbers, however, each call advances
the counter of the module's random stream.

Parameters have TensorFlow's names, such as `rnn.weights["lstm_cell"]["kernel"]`.
`jaxrnn.linen` has the same modules, but not the layers of published models.
"""

# This file only lists the public names of `_flax/nnx.py`.

from .._base.modules import set_module as _set_module
from .._flax.nnx import (
    RNN,
    Bidirectional,
    Cell,
    GatedDeltaNet,
    KimiDeltaAttention,
    Mamba,
    Mamba2,
    PastInputsState,
    RWKV7TimeMix,
    StackBidirectional,
    as_cell,
)

__all__ = [
    "RNN",
    "Bidirectional",
    "Cell",
    "GatedDeltaNet",
    "KimiDeltaAttention",
    "Mamba",
    "Mamba2",
    "PastInputsState",
    "RWKV7TimeMix",
    "StackBidirectional",
    "as_cell",
]

_set_module(__name__)
