"""Export functions and cells to other runtimes, and run cells on streams.

Files:

* `to_stablehlo` exports functions, for JAX, IREE and other readers of StableHLO.
* `to_onnx` exports layers as the recurrent operators of ONNX, for onnxruntime and other
  runtimes.
* `to_tflite_operators` exports layers as the fused operators of TensorFlow Lite, for
  LiteRT.
* `to_tflite` exports functions with the converter of TensorFlow Lite.
* `tflite_deviation` compares the results of a TensorFlow Lite file with the results of
  the exported function.

Streams:

* `Streamer` runs a cell on one frame at a time, as frames arrive.
* `BidirectionalStreamer` runs bidirectional layers chunk by chunk, with a bounded
  look-ahead.
"""

from .._base.modules import export as _export
from ._functions import (
    tflite_deviation as tflite_deviation,
    to_stablehlo as to_stablehlo,
    to_tflite as to_tflite,
)
from ._onnx import to_onnx as to_onnx
from ._streamers import (
    BidirectionalStreamer as BidirectionalStreamer,
    Streamer as Streamer,
)
from ._tflite_operators import to_tflite_operators as to_tflite_operators

_export(globals())
