"""Cells of `tf.contrib.rnn`; attention, decoders and losses of `tf.contrib.seq2seq`.

Each cell has the constructor arguments and the variable names of the TensorFlow cell of
the same name, so you can port scripts line by line and load old checkpoints unchanged.

Cells: `BidirectionalGridLSTMCell`, `CFNCell`, `ConvLSTMCell`, `Conv1DLSTMCell`,
`Conv2DLSTMCell`, `Conv3DLSTMCell`, `CoupledInputForgetGateLSTMCell`, `GLSTMCell`,
`GRUBlockCellV2`, `GridLSTMCell`, `IndRNNCell`, `IndyGRUCell`, `IndyLSTMCell`,
`IntersectionRNNCell`, `LSTMBlockCell`, `LayerNormBasicLSTMCell`, `LayerNormLSTMCell`,
`MinimalRNNCell`, `NASCell`, `NTMCell` (state `NTMControllerState`), `PhasedLSTMCell`,
`SRUCell`, `TimeFreqLSTMCell`, `UGRNNCell`, `WeightNormLSTMCell`.

Wrappers: `AttentionCellWrapper`, `EmbeddingWrapper`, `HighwayWrapper`,
`InputProjectionWrapper`, `OutputProjectionWrapper`.

Fused cells, which run whole sequences (subclasses of `FusedRNNCell`):
`FusedRNNCellAdaptor`, `LSTMBlockFusedCell`, `TimeReversedFusedRNN`.

Attention: `AttentionWrapper` (state `AttentionWrapperState`) uses one or several
mechanisms: `BahdanauAttention`, `LuongAttention`, `BahdanauMonotonicAttention` or
`LuongMonotonicAttention`, all subclasses of `AttentionMechanism`. Functions: `hardmax`,
`monotonic_attention`.

Decoders: `dynamic_decode` runs a `Decoder`. At each step, a `BasicDecoder` emits a
`BasicDecoderOutput` and gets the inputs of its cell from a `Helper`. The helpers for
training are `TrainingHelper`, `ScheduledEmbeddingTrainingHelper` and
`ScheduledOutputTrainingHelper`. The helpers for inference are `GreedyEmbeddingHelper`,
`SampleEmbeddingHelper`, `InferenceHelper` and `CustomHelper`. `tile_batch` repeats the
initial state for the beams of a `BeamSearchDecoder`. The state of this decoder is a
`BeamSearchDecoderState`; at each step, the decoder emits a `BeamSearchDecoderOutput`.
`gather_tree` builds the sequences in `FinalBeamSearchDecoderOutput` from the emitted
ids. `sequence_loss` computes the cross-entropy of a decoder's logits.
"""

# This folder imports public modules, like a user's package. `pyproject.toml` lists the
# exceptions. Of the other folders, only `convert` may import from this one.

import typing as _typing

from .._base.modules import missing_name as _missing_name, set_module as _set_module
from ..decode._basic import (
    BasicDecoder,
    BasicDecoderOutput,
    CustomHelper,
    GreedyEmbeddingHelper,
    Helper,
    InferenceHelper,
    SampleEmbeddingHelper,
)
from ..decode._beam_search import BeamSearchDecoderOutput, BeamSearchDecoderState
from ..decode._beam_search_decoder import (
    BeamSearchDecoder,
    FinalBeamSearchDecoderOutput,
    gather_tree,
    tile_batch,
)
from ..decode._decoder import Decoder, dynamic_decode
from ..decode._training import (
    ScheduledEmbeddingTrainingHelper,
    ScheduledOutputTrainingHelper,
    TrainingHelper,
)
from ._attention_mechanisms import (
    AttentionMechanism,
    BahdanauAttention,
    BahdanauMonotonicAttention,
    LuongAttention,
    LuongMonotonicAttention,
    hardmax,
    monotonic_attention,
)
from ._attention_wrapper import AttentionWrapper, AttentionWrapperState
from ._conv_lstm import Conv1DLSTMCell, Conv2DLSTMCell, Conv3DLSTMCell, ConvLSTMCell
from ._frequency_lstms import BidirectionalGridLSTMCell, GridLSTMCell, TimeFreqLSTMCell
from ._fused import (
    FusedRNNCell,
    FusedRNNCellAdaptor,
    LSTMBlockFusedCell,
    TimeReversedFusedRNN,
)
from ._lstms import GLSTMCell, GRUBlockCellV2, LSTMBlockCell, NASCell, PhasedLSTMCell
from ._normalized_lstms import (
    CoupledInputForgetGateLSTMCell,
    LayerNormBasicLSTMCell,
    LayerNormLSTMCell,
    WeightNormLSTMCell,
)
from ._ntm import NTMCell, NTMControllerState
from ._sequence_loss import sequence_loss
from ._small_cells import (
    CFNCell,
    IndRNNCell,
    IndyGRUCell,
    IndyLSTMCell,
    IntersectionRNNCell,
    MinimalRNNCell,
    SRUCell,
    UGRNNCell,
)
from ._wrappers import (
    AttentionCellWrapper,
    EmbeddingWrapper,
    HighwayWrapper,
    InputProjectionWrapper,
    OutputProjectionWrapper,
)

__all__ = [
    "AttentionCellWrapper", "AttentionMechanism", "AttentionWrapper",
    "AttentionWrapperState", "BahdanauAttention", "BahdanauMonotonicAttention",
    "BasicDecoder", "BasicDecoderOutput", "BeamSearchDecoder",
    "BeamSearchDecoderOutput", "BeamSearchDecoderState", "BidirectionalGridLSTMCell",
    "CFNCell", "Conv1DLSTMCell", "Conv2DLSTMCell", "Conv3DLSTMCell", "ConvLSTMCell",
    "CoupledInputForgetGateLSTMCell", "CustomHelper", "Decoder", "EmbeddingWrapper",
    "FinalBeamSearchDecoderOutput", "FusedRNNCell", "FusedRNNCellAdaptor", "GLSTMCell",
    "GRUBlockCellV2", "GreedyEmbeddingHelper", "GridLSTMCell", "Helper",
    "HighwayWrapper", "IndRNNCell", "IndyGRUCell", "IndyLSTMCell", "InferenceHelper",
    "InputProjectionWrapper", "IntersectionRNNCell", "LSTMBlockCell",
    "LSTMBlockFusedCell", "LayerNormBasicLSTMCell", "LayerNormLSTMCell",
    "LuongAttention", "LuongMonotonicAttention", "MinimalRNNCell", "NASCell", "NTMCell",
    "NTMControllerState", "OutputProjectionWrapper", "PhasedLSTMCell", "SRUCell",
    "SampleEmbeddingHelper", "ScheduledEmbeddingTrainingHelper",
    "ScheduledOutputTrainingHelper", "TimeFreqLSTMCell", "TimeReversedFusedRNN",
    "TrainingHelper", "UGRNNCell", "WeightNormLSTMCell", "dynamic_decode",
    "gather_tree", "hardmax", "monotonic_attention", "sequence_loss", "tile_batch",
]  # fmt: skip

_set_module(__name__)

_CORE = "The core API is in `jaxrnn`, e.g. `jaxrnn.LSTMCell`."
_HERE = "All names are in `jaxrnn.contrib`."
_HINTS = {
    "rnn": _HERE,
    "seq2seq": _HERE,
    "nn": _CORE,
    "rnn_cell": _CORE,
    "CompiledWrapper": "Use `jax.jit`.",
    "GRUBlockCell": "Use `GRUBlockCellV2`, which has the same equations.",
    "LSTMBlockWrapper": "Use `FusedRNNCell`, the base class of fused cells.",
    "legacy_seq2seq": "See `legacy_seq2seq` in `docs/coming_from/tensorflow1.md`.",
}


# Hide `__getattr__` from type checkers, so that they report unknown names.
if not _typing.TYPE_CHECKING:

    def __getattr__(name: str) -> _typing.NoReturn:
        """Raises an error, with a hint for names of the core and of `tf.contrib`."""
        import jaxrnn

        core = {name: f"Use `jaxrnn.{name}`." for name in jaxrnn.__all__}
        raise _missing_name(__name__, name, core | _HINTS)
