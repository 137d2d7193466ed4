"""TensorFlow's contrib: cells of `tf.contrib.rnn`, attention and decoders of seq2seq.

A cell has the constructor of TensorFlow's and the names of its variables, so that
scripts port line by line and old checkpoints drop in.

Cells: `CoupledInputForgetGateLSTMCell`, `GLSTMCell`, `GRUBlockCellV2`,
`LSTMBlockCell`, `LayerNormBasicLSTMCell`, `LayerNormLSTMCell`, `NASCell`,
`WeightNormLSTMCell`. Of whole sequences: `FusedRNNCell`, `FusedRNNCellAdaptor`,
`LSTMBlockFusedCell`, `TimeReversedFusedRNN`.
"""

from .._base.public import set_public_module as _set_public_module
from ._block_cells import (
    GRUBlockCellV2 as GRUBlockCellV2,
    LSTMBlockCell as LSTMBlockCell,
)
from ._coupled_lstm import (
    CoupledInputForgetGateLSTMCell as CoupledInputForgetGateLSTMCell,
)
from ._fused import (
    FusedRNNCell as FusedRNNCell,
    FusedRNNCellAdaptor as FusedRNNCellAdaptor,
    LSTMBlockFusedCell as LSTMBlockFusedCell,
    TimeReversedFusedRNN as TimeReversedFusedRNN,
)
from ._glstm import GLSTMCell as GLSTMCell
from ._layer_norm_lstm import (
    LayerNormBasicLSTMCell as LayerNormBasicLSTMCell,
    LayerNormLSTMCell as LayerNormLSTMCell,
)
from ._nas import NASCell as NASCell
from ._weight_norm_lstm import WeightNormLSTMCell as WeightNormLSTMCell

_set_public_module(globals())
