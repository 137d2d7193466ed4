"""Models that leave Python, as files of other runtimes; and models that run on streams.

`to_stablehlo`: any function, for JAX, IREE and others that read StableHLO.
`to_onnx`: layers of LSTMs, GRUs and RNNs, for onnxruntime and others that read ONNX.
`Streamer`: a cell frame by frame; `BidirectionalStreamer`: both directions chunk by
chunk.
"""

from .._base.public import set_public_module as _set_public_module
from ._bidirectional_streamer import BidirectionalStreamer as BidirectionalStreamer
from ._onnx import to_onnx as to_onnx
from ._stablehlo import to_stablehlo as to_stablehlo
from ._streamer import Streamer as Streamer

_set_public_module(globals())
