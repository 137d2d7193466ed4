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

import typing as _typing

from .._base.modules import export as _export, missing_name as _missing_name
from ..decode._basic import (
    BasicDecoder as BasicDecoder,
    BasicDecoderOutput as BasicDecoderOutput,
    CustomHelper as CustomHelper,
    GreedyEmbeddingHelper as GreedyEmbeddingHelper,
    Helper as Helper,
    InferenceHelper as InferenceHelper,
    SampleEmbeddingHelper as SampleEmbeddingHelper,
)
from ..decode._beam_search import (
    BeamSearchDecoder as BeamSearchDecoder,
    BeamSearchDecoderOutput as BeamSearchDecoderOutput,
    BeamSearchDecoderState as BeamSearchDecoderState,
    FinalBeamSearchDecoderOutput as FinalBeamSearchDecoderOutput,
    gather_tree as gather_tree,
    tile_batch as tile_batch,
)
from ..decode._decoder import Decoder as Decoder, dynamic_decode as dynamic_decode
from ..decode._training import (
    ScheduledEmbeddingTrainingHelper as ScheduledEmbeddingTrainingHelper,
    ScheduledOutputTrainingHelper as ScheduledOutputTrainingHelper,
    TrainingHelper as TrainingHelper,
)
from ._attention_mechanisms import (
    AttentionMechanism as AttentionMechanism,
    BahdanauAttention as BahdanauAttention,
    BahdanauMonotonicAttention as BahdanauMonotonicAttention,
    LuongAttention as LuongAttention,
    LuongMonotonicAttention as LuongMonotonicAttention,
    hardmax as hardmax,
    monotonic_attention as monotonic_attention,
)
from ._attention_wrapper import (
    AttentionWrapper as AttentionWrapper,
    AttentionWrapperState as AttentionWrapperState,
)
from ._conv_lstm import (
    Conv1DLSTMCell as Conv1DLSTMCell,
    Conv2DLSTMCell as Conv2DLSTMCell,
    Conv3DLSTMCell as Conv3DLSTMCell,
    ConvLSTMCell as ConvLSTMCell,
)
from ._frequency_lstms import (
    BidirectionalGridLSTMCell as BidirectionalGridLSTMCell,
    GridLSTMCell as GridLSTMCell,
    TimeFreqLSTMCell as TimeFreqLSTMCell,
)
from ._fused import (
    FusedRNNCell as FusedRNNCell,
    FusedRNNCellAdaptor as FusedRNNCellAdaptor,
    LSTMBlockFusedCell as LSTMBlockFusedCell,
    TimeReversedFusedRNN as TimeReversedFusedRNN,
)
from ._lstms import (
    GLSTMCell as GLSTMCell,
    GRUBlockCellV2 as GRUBlockCellV2,
    LSTMBlockCell as LSTMBlockCell,
    NASCell as NASCell,
    PhasedLSTMCell as PhasedLSTMCell,
)
from ._normalized_lstms import (
    CoupledInputForgetGateLSTMCell as CoupledInputForgetGateLSTMCell,
    LayerNormBasicLSTMCell as LayerNormBasicLSTMCell,
    LayerNormLSTMCell as LayerNormLSTMCell,
    WeightNormLSTMCell as WeightNormLSTMCell,
)
from ._ntm import NTMCell as NTMCell, NTMControllerState as NTMControllerState
from ._sequence_loss import sequence_loss as sequence_loss
from ._small_cells import (
    CFNCell as CFNCell,
    IndRNNCell as IndRNNCell,
    IndyGRUCell as IndyGRUCell,
    IndyLSTMCell as IndyLSTMCell,
    IntersectionRNNCell as IntersectionRNNCell,
    MinimalRNNCell as MinimalRNNCell,
    SRUCell as SRUCell,
    UGRNNCell as UGRNNCell,
)
from ._wrappers import (
    AttentionCellWrapper as AttentionCellWrapper,
    EmbeddingWrapper as EmbeddingWrapper,
    HighwayWrapper as HighwayWrapper,
    InputProjectionWrapper as InputProjectionWrapper,
    OutputProjectionWrapper as OutputProjectionWrapper,
)

_export(globals())

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


# Hide `__getattr__` from type checkers, so that they report missing names.
if not _typing.TYPE_CHECKING:

    def __getattr__(name: str) -> _typing.NoReturn:
        """Raises an error that says where to find `name`, if it is in `tf.contrib`."""
        import jaxrnn

        core = {name: f"Use `jaxrnn.{name}`." for name in jaxrnn.__all__}
        raise _missing_name(__name__, name, core | _HINTS)
