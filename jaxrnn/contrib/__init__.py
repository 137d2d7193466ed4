"""TensorFlow's contrib: cells of `tf.contrib.rnn`, attention and decoders of seq2seq.

A cell has the constructor of TensorFlow's and the names of its variables, so that
scripts port line by line and old checkpoints drop in.

Cells: `CFNCell`, `IndRNNCell`, `IndyGRUCell`, `IndyLSTMCell`, `IntersectionRNNCell`,
`MinimalRNNCell`, `NASCell`, `SRUCell`, `UGRNNCell`. Wrappers: `AttentionCellWrapper`,
`EmbeddingWrapper`, `HighwayWrapper`, `InputProjectionWrapper`,
`OutputProjectionWrapper`.
"""

from .._base.public import set_public_module as _set_public_module
from ._attention_cell import AttentionCellWrapper as AttentionCellWrapper
from ._cfn import CFNCell as CFNCell
from ._embedding import EmbeddingWrapper as EmbeddingWrapper
from ._highway import HighwayWrapper as HighwayWrapper
from ._independent import (
    IndRNNCell as IndRNNCell,
    IndyGRUCell as IndyGRUCell,
    IndyLSTMCell as IndyLSTMCell,
)
from ._intersection_rnn import IntersectionRNNCell as IntersectionRNNCell
from ._minimal_rnn import MinimalRNNCell as MinimalRNNCell
from ._nas import NASCell as NASCell
from ._projections import (
    InputProjectionWrapper as InputProjectionWrapper,
    OutputProjectionWrapper as OutputProjectionWrapper,
)
from ._sru import SRUCell as SRUCell
from ._ugrnn import UGRNNCell as UGRNNCell

_set_public_module(globals())
