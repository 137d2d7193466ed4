"""Models that leave Python: functions and cells as files of other runtimes.

`to_stablehlo`: any function, for JAX, IREE and others that read StableHLO.
`to_tflite`: functions with fixed sizes, for TensorFlow Lite (LiteRT).
`to_tflite_operators`: the same for LSTM and basic cells, with its fused operators.
`tflite_deviation`: how far a file for TensorFlow Lite is from its function.
"""

from .._base.public import set_public_module as _set_public_module
from ._stablehlo import to_stablehlo as to_stablehlo
from ._tflite import tflite_deviation as tflite_deviation, to_tflite as to_tflite
from ._tflite_operators import to_tflite_operators as to_tflite_operators

_set_public_module(globals())
