"""Models that leave Python: functions and cells as files of other runtimes.

Files: `to_stablehlo`: any function, for JAX, IREE and others that read StableHLO.
`to_onnx`: layers of cells as the recurrent operators of ONNX, for onnxruntime and
others. `to_tflite_operators`: layers of cells as the fused operators of TensorFlow
Lite, for LiteRT; `to_tflite`: any function as TensorFlow Lite, by its converter;
`tflite_deviation`: how far such a file is from its function.

Streams: `Streamer`: a cell frame by frame, as frames arrive; `BidirectionalStreamer`:
bidirectional layers chunk by chunk, with a bounded look-ahead.
"""

from .._base.public import set_public_module as _set_public_module
from ._bidirectional_streamer import BidirectionalStreamer as BidirectionalStreamer
from ._onnx import to_onnx as to_onnx
from ._stablehlo import to_stablehlo as to_stablehlo
from ._streamer import Streamer as Streamer
from ._tflite import tflite_deviation as tflite_deviation, to_tflite as to_tflite
from ._tflite_operators import to_tflite_operators as to_tflite_operators

_set_public_module(globals())
