"""Flax nnx modules that hold any jaxrnn cell.

`RNN`, `Bidirectional` and `StackBidirectional` run over sequences. `Cell` wraps a
jaxrnn cell as an nnx cell, for `nnx.RNN`; `as_cell` wraps an nnx cell as a jaxrnn cell.
`GatedDeltaNet`, `KimiDeltaAttention`, `Mamba`, `Mamba2` and `RWKV7TimeMix` are layers
of published models, which `jaxrnn.linen` does not have. `PastInputsState` is their
state.

A call does not change the module, so modules work under all JAX transformations, as
arguments or in closures. The only exception is a module whose cell draws random
numbers: each call advances the counter of the module's random stream.

Parameters have TensorFlow's names: `rnn.weights["lstm_cell"]["kernel"]`. `jaxrnn.linen`
has the other names too.
"""

# Imports `_flax/nnx.py` and layers, whose public names it lists. Never here: code.

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
