"""TensorFlow's contrib: cells of `tf.contrib.rnn`, attention and decoders of seq2seq.

A cell has the constructor of TensorFlow's and the names of its variables, so that
scripts port line by line and old checkpoints drop in.

Cells: `BidirectionalGridLSTMCell`, `Conv1DLSTMCell`, `Conv2DLSTMCell`,
`Conv3DLSTMCell`, `ConvLSTMCell`, `GridLSTMCell`, `NASCell`, `NTMCell`,
`PhasedLSTMCell`, `TimeFreqLSTMCell`. States: `NTMControllerState`.
"""

from .._base.public import set_public_module as _set_public_module
from ._conv_lstm import (
    Conv1DLSTMCell as Conv1DLSTMCell,
    Conv2DLSTMCell as Conv2DLSTMCell,
    Conv3DLSTMCell as Conv3DLSTMCell,
    ConvLSTMCell as ConvLSTMCell,
)
from ._grid_lstm import (
    BidirectionalGridLSTMCell as BidirectionalGridLSTMCell,
    GridLSTMCell as GridLSTMCell,
)
from ._nas import NASCell as NASCell
from ._ntm import NTMCell as NTMCell, NTMControllerState as NTMControllerState
from ._phased_lstm import PhasedLSTMCell as PhasedLSTMCell
from ._time_freq_lstm import TimeFreqLSTMCell as TimeFreqLSTMCell

_set_public_module(globals())
