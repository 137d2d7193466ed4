"""Exports trained cells to files for other runtimes, and runs cells on streams.

Files:

* `to_stablehlo` exports functions to StableHLO, which JAX and IREE read.
* `to_onnx` exports layers as the recurrent operators of ONNX, for onnxruntime and other
  runtimes.
* `to_tflite_operators` exports layers as fused TensorFlow Lite operators, for LiteRT.
* `to_tflite` exports functions with TensorFlow Lite's converter, for LiteRT.

Streams:

* `Streamer` runs a cell on one frame at a time, as frames arrive.
* `BidirectionalStreamer` runs bidirectional layers chunk by chunk, with a bounded
  look-ahead.
"""

# This folder may import all others, and no other folder imports it. It contains no
# equations of cells.

from .._base.modules import set_module as _set_module
from ._functions import to_stablehlo, to_tflite
from ._onnx import to_onnx
from ._streamers import BidirectionalStreamer, Streamer
from ._tflite_operators import to_tflite_operators

__all__ = [
    "BidirectionalStreamer", "Streamer", "to_onnx", "to_stablehlo",
    "to_tflite", "to_tflite_operators",
]  # fmt: skip

_set_module(__name__)
