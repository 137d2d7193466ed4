"""Serve a trained cell: as a file for another runtime, or on a stream here.

Files:

* `to_stablehlo` exports functions, for JAX, IREE and other readers of StableHLO.
* `to_onnx` exports layers as the recurrent operators of ONNX, for onnxruntime and other
  runtimes.
* `to_tflite_operators` exports layers as the fused operators of TensorFlow Lite, for
  LiteRT.
* `to_tflite` exports functions with the converter of TensorFlow Lite.

Streams:

* `Streamer` runs a cell on one frame at a time, as frames arrive.
* `BidirectionalStreamer` runs bidirectional layers chunk by chunk, with a bounded
  look-ahead.
"""

# Imports all other folders. Nothing imports it. Never here: what changes a result.

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
