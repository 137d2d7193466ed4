"""TensorFlow's contrib: cells of `tf.contrib.rnn`, attention and decoders of seq2seq.

A cell has the constructor of TensorFlow's and the names of its variables, so that
scripts port line by line and old checkpoints drop in.

Cells: `BidirectionalGridLSTMCell`, `CFNCell`, `Conv1DLSTMCell`, `Conv2DLSTMCell`,
`Conv3DLSTMCell`, `ConvLSTMCell`, `CoupledInputForgetGateLSTMCell`, `GLSTMCell`,
`GRUBlockCellV2`, `GridLSTMCell`, `IndRNNCell`, `IndyGRUCell`, `IndyLSTMCell`,
`IntersectionRNNCell`, `LSTMBlockCell`, `LayerNormBasicLSTMCell`, `LayerNormLSTMCell`,
`MinimalRNNCell`, `NASCell`, `NTMCell`, `PhasedLSTMCell`, `SRUCell`, `TimeFreqLSTMCell`,
`UGRNNCell`, `WeightNormLSTMCell`. Wrappers: `AttentionCellWrapper`, `EmbeddingWrapper`,
`HighwayWrapper`, `InputProjectionWrapper`, `OutputProjectionWrapper`. Of whole
sequences: `FusedRNNCell`, `FusedRNNCellAdaptor`, `LSTMBlockFusedCell`,
`TimeReversedFusedRNN`. The state of an `NTMCell` is an `NTMControllerState`.
"""

from .._base.public import set_public_module as _set_public_module
from ._attention_cell import AttentionCellWrapper as AttentionCellWrapper
from ._block_cells import (
    GRUBlockCellV2 as GRUBlockCellV2,
    LSTMBlockCell as LSTMBlockCell,
)
from ._cfn import CFNCell as CFNCell
from ._conv_lstm import (
    Conv1DLSTMCell as Conv1DLSTMCell,
    Conv2DLSTMCell as Conv2DLSTMCell,
    Conv3DLSTMCell as Conv3DLSTMCell,
    ConvLSTMCell as ConvLSTMCell,
)
from ._coupled_lstm import (
    CoupledInputForgetGateLSTMCell as CoupledInputForgetGateLSTMCell,
)
from ._embedding import EmbeddingWrapper as EmbeddingWrapper
from ._fused import (
    FusedRNNCell as FusedRNNCell,
    FusedRNNCellAdaptor as FusedRNNCellAdaptor,
    LSTMBlockFusedCell as LSTMBlockFusedCell,
    TimeReversedFusedRNN as TimeReversedFusedRNN,
)
from ._glstm import GLSTMCell as GLSTMCell
from ._grid_lstm import (
    BidirectionalGridLSTMCell as BidirectionalGridLSTMCell,
    GridLSTMCell as GridLSTMCell,
)
from ._highway import HighwayWrapper as HighwayWrapper
from ._independent import (
    IndRNNCell as IndRNNCell,
    IndyGRUCell as IndyGRUCell,
    IndyLSTMCell as IndyLSTMCell,
)
from ._intersection_rnn import IntersectionRNNCell as IntersectionRNNCell
from ._layer_norm_lstm import (
    LayerNormBasicLSTMCell as LayerNormBasicLSTMCell,
    LayerNormLSTMCell as LayerNormLSTMCell,
)
from ._minimal_rnn import MinimalRNNCell as MinimalRNNCell
from ._nas import NASCell as NASCell
from ._ntm import NTMCell as NTMCell, NTMControllerState as NTMControllerState
from ._phased_lstm import PhasedLSTMCell as PhasedLSTMCell
from ._projections import (
    InputProjectionWrapper as InputProjectionWrapper,
    OutputProjectionWrapper as OutputProjectionWrapper,
)
from ._sru import SRUCell as SRUCell
from ._time_freq_lstm import TimeFreqLSTMCell as TimeFreqLSTMCell
from ._ugrnn import UGRNNCell as UGRNNCell
from ._weight_norm_lstm import WeightNormLSTMCell as WeightNormLSTMCell

_set_public_module(globals())
