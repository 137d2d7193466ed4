"""Recurrent networks in JAX, from LSTMs to linear attention, with padding and mid-sequence resets built in.

A batch with a padded row, and with a row in which a second episode begins:

    >>> import jax, jax.numpy as jnp, jaxrnn
    >>> x = jax.random.normal(jax.random.key(0), (3, 6, 8))  # [batch, time, features]
    >>> x = x.at[1, 2:].set(jnp.nan)                         # Row 1: two steps, then padding.
    >>> lengths = jnp.array([6, 2, 6])
    >>> resets = jnp.zeros((3, 6), bool).at[2, 4].set(True)  # Row 2: a second episode begins at step 4.
    >>> cell = jaxrnn.LSTMCell(16)
    >>> params = cell.init(jax.random.key(1), x[:, 0])
    >>> @jax.jit
    ... def run(params, x, lengths=None, resets=None):
    ...     return jaxrnn.dynamic_rnn(
    ...         cell.bind(params), x, lengths, resets=resets,
    ...         dtype=x.dtype)                               # Of the initial state, zeros.
    >>> def loss(params):
    ...     outputs, state = run(params, x, lengths, resets)  # [3, 6, 16] and (c, h), each [3, 16]
    ...     return jnp.mean(state.h ** 2)                    # h after the last valid step of each row.
    >>> gradients = jax.grad(loss)(params)
    >>> outputs, _ = run(params, x, lengths, resets)
    >>> alone, _ = run(params, x[2:, 4:])                    # The second episode of row 2.
    >>> assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))  # No NaN.
    >>> assert jnp.allclose(outputs[2, 4:], alone[0], atol=1e-6)  # As if it ran alone.

`help(jaxrnn.dynamic_rnn)` lists the arguments of `dynamic_rnn`. `import jaxrnn` is
enough to use these modules; all but `jaxrnn.memory` are loaded on first use:

* `jaxrnn.linen`, `jaxrnn.nnx`: Flax modules around any cell (`pip install flax`).
* `jaxrnn.contrib`: cells, wrappers, attention and decoders of `tf.contrib`.
* `jaxrnn.decode`: greedy decoding, sampling and beam search.
* `jaxrnn.memory`: strategies for `swap_memory`, to save memory in the backward pass.
* `jaxrnn.convert`: weights from and to PyTorch, Keras, Flax, TensorFlow 1 and others.
* `jaxrnn.export`: StableHLO, ONNX and TFLite files, and cells that run on live streams.
* `jaxrnn.extend`: parts for custom cells, wrappers and decoders.
* `jaxrnn.initializers`: initializers that treat each part of a kernel separately.
* `jaxrnn.lite`: the names and layouts of TensorFlow Lite.
* `jaxrnn.testing`: `check_cell`, which checks a custom cell.
* `jaxrnn.typing`: the types in signatures.

The functions that run cells over time are called drivers. Drivers of padded sequences
accept the lengths of the rows (`sequence_length`) or a `mask`. Many drivers accept
`return_states=True`, and then also return the state after every step.

Functions for each kind of sequence:

* Padded sequences: `dynamic_rnn`, `bidirectional_dynamic_rnn`,
  `stack_bidirectional_dynamic_rnn` (parameters: `init_stack_bidirectional`). To run
  only the backward direction, reverse the valid steps with `reverse_sequence`.
* Custom loops: `raw_rnn`, with `TensorArray`.
* Lists of steps: `static_rnn`, `static_bidirectional_rnn`, `stack_bidirectional_rnn`,
  and `static_state_saving_rnn` with `StateSaver`.
* Packed sequences: `pack_sequences` stores them end to end in the rows of a `Packed`,
  which drivers run with `resets`. `packed_batches` (`PackedBatches`) packs the records
  of an input pipeline.
* `resets` of documents and episodes: `resets_of_segments` and `resets_of_done`.
* Sequences that do not fit in memory: `windows`, which yields `Window`.

`explain` (`Explanation`) says which loop runs a cell, and why not a faster one.
`memory_plan` (`MemoryPlan`) compares the memory and cost of strategies before a run.
`native_status` tells whether the C++ loops for CPUs are available.

Cells:

* `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell` (`LSTMStateTuple`), `GRUCell`,
  `CudnnCompatibleGRUCell`, `LayerNormGRUCell`.
* Cells that compute many steps in parallel: `MinGRUCell`, `MinLSTMCell`, `QRNNCell`,
  `LRUCell`, `RGLRUCell` and `MLSTMCell` (`MLSTMState`).
* Matrix memories without projections, for layers with their own:
  `LinearAttentionMemoryCell` and `RWKV6MemoryCell` (`LinearAttentionInputs`),
  `DeltaMemoryCell` (`DeltaInputs`), `DPLRMemoryCell` (`DPLRInputs`), `MLSTMMemoryCell`
  (`MLSTMInputs`) and `S6MemoryCell` (`S6Inputs`).
* A causal convolution of each channel over the last inputs: `ShortConvCell`, or the
  function `short_conv`.
* The sLSTM of xLSTM, which runs step by step: `SLSTMCell` (`SLSTMState`).
* Wrappers: `MultiRNNCell`, `DropoutWrapper`, `ResidualWrapper` and `DeviceWrapper`.
* Custom cells: `FunctionCell`, `RNNCell`, `AffineCell` with `Stage`,
  `LinearRecurrenceCell` (`ComplexState`), `ParamSpec`, `TensorShape`.
* Types of the cells that drivers accept: `BoundCell`, `RNNCellLike`.
"""  # noqa: E501 (The README shows the same lines.)

import typing as _typing
from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec

from . import _loops as _loops, memory as memory
from ._base.modules import missing_name as _missing_name, set_module as _set_module
from ._base.trees import TensorShape
from ._base.typing import RNNCellLike
from ._batching.packing import Packed, PackedBatches, pack_sequences, packed_batches
from ._batching.resets import resets_of_done, resets_of_segments
from ._batching.windows import Window, windows
from ._cells.affine import AffineCell, Stage
from ._cells.base import BoundCell, RNNCell
from ._cells.basic_rnn import BasicRNNCell
from ._cells.function import FunctionCell
from ._cells.gru import CudnnCompatibleGRUCell, GRUCell
from ._cells.layer_norm_gru import LayerNormGRUCell
from ._cells.linear.cell import LinearRecurrenceCell
from ._cells.linear.element import ComplexState
from ._cells.linear.gated_linear import MinGRUCell, MinLSTMCell, QRNNCell
from ._cells.linear.lru import LRUCell, RGLRUCell
from ._cells.linear.selective_scan import S6Inputs, S6MemoryCell
from ._cells.lstm import BasicLSTMCell, LSTMCell, LSTMStateTuple
from ._cells.matrix.delta_rule import DeltaInputs
from ._cells.matrix.dplr_rule import DPLRInputs
from ._cells.matrix.linear_attention_rule import LinearAttentionInputs
from ._cells.matrix.memories import (
    DeltaMemoryCell,
    DPLRMemoryCell,
    LinearAttentionMemoryCell,
    MLSTMMemoryCell,
)
from ._cells.matrix.mlstm import MLSTMCell
from ._cells.matrix.mlstm_rule import MLSTMInputs, MLSTMState
from ._cells.matrix.rwkv6 import RWKV6MemoryCell
from ._cells.params import ParamSpec
from ._cells.short_conv import ShortConvCell
from ._cells.slstm import SLSTMCell, SLSTMState
from ._cells.wrappers.dropout import DropoutWrapper
from ._cells.wrappers.multi_rnn import MultiRNNCell
from ._cells.wrappers.stateless import DeviceWrapper, ResidualWrapper
from ._drivers.bidirectional import bidirectional_dynamic_rnn, static_bidirectional_rnn
from ._drivers.dynamic_rnn import dynamic_rnn
from ._drivers.explain import Explanation, explain
from ._drivers.memory_plan import MemoryPlan, memory_plan
from ._drivers.raw_rnn import raw_rnn
from ._drivers.reverse_sequence import reverse_sequence
from ._drivers.short_conv import short_conv
from ._drivers.stack_bidirectional import (
    init_stack_bidirectional,
    stack_bidirectional_dynamic_rnn,
    stack_bidirectional_rnn,
)
from ._drivers.static_rnn import StateSaver, static_rnn, static_state_saving_rnn
from ._loops.affine.native.calls import native_status
from ._run.tensor_array.tensor_array import TensorArray

__all__ = [
    "AffineCell", "BasicLSTMCell", "BasicRNNCell", "BoundCell", "ComplexState",
    "CudnnCompatibleGRUCell", "DPLRInputs", "DPLRMemoryCell", "DeltaInputs",
    "DeltaMemoryCell", "DeviceWrapper", "DropoutWrapper", "Explanation",
    "FunctionCell", "GRUCell", "LRUCell", "LSTMCell",
    "LSTMStateTuple", "LayerNormGRUCell", "LinearAttentionInputs",
    "LinearAttentionMemoryCell", "LinearRecurrenceCell", "MLSTMCell", "MLSTMInputs",
    "MLSTMMemoryCell", "MLSTMState", "MemoryPlan", "MinGRUCell", "MinLSTMCell",
    "MultiRNNCell", "Packed", "PackedBatches", "ParamSpec",
    "QRNNCell", "RGLRUCell", "RNNCell",
    "RNNCellLike", "RWKV6MemoryCell", "ResidualWrapper", "S6Inputs", "S6MemoryCell",
    "SLSTMCell", "SLSTMState", "ShortConvCell", "Stage", "StateSaver",
    "TensorArray", "TensorShape", "Window",
    "bidirectional_dynamic_rnn", "dynamic_rnn", "explain", "init_stack_bidirectional",
    "memory", "memory_plan", "native_status", "pack_sequences", "packed_batches",
    "raw_rnn", "resets_of_done", "resets_of_segments", "reverse_sequence", "short_conv",
    "stack_bidirectional_dynamic_rnn", "stack_bidirectional_rnn",
    "static_bidirectional_rnn", "static_rnn", "static_state_saving_rnn", "windows",
]  # fmt: skip

_set_module(__name__)

__version__ = "0.1.0.dev0"

_OF_FLAX = ("linen", "nnx")
_LAZY = "contrib convert decode export extend initializers lite testing typing".split()
_HERE = "Use `jaxrnn` itself: for example, `jaxrnn.LSTMCell` and `jaxrnn.dynamic_rnn`."
_MODULES = (
    "Run a cell such as `LSTMCell` with `dynamic_rnn`, or use the modules of "
    "`jaxrnn.linen` and `jaxrnn.nnx`."
)
_HINTS = dict.fromkeys(["nn", "rnn", "rnn_cell"], _HERE)
_HINTS |= dict.fromkeys(["RNN", "LSTM", "GRU", "Bidirectional"], _MODULES)
_HINTS["DeepRNN"] = "Use `MultiRNNCell`, whose list may contain functions."

if _typing.TYPE_CHECKING:  # Type checkers do not run `__getattr__`.
    from . import (
        contrib as contrib,
        convert as convert,
        decode as decode,
        export as export,
        extend as extend,
        initializers as initializers,
        linen as linen,
        lite as lite,
        nnx as nnx,
        testing as testing,
        typing as typing,
    )
else:

    def __getattr__(name: str) -> object:
        """Imports a module when it is first used."""
        if name in _LAZY or name in _OF_FLAX:
            return _import_module(f"{__name__}.{name}")
        raise _missing_name(__name__, name, _HINTS)

    def __dir__() -> set[str]:
        """The public names, for `help`; `linen` and `nnx` only if Flax is installed."""
        return {*globals(), *_LAZY, *(_OF_FLAX if _find_spec("flax") else ())}
