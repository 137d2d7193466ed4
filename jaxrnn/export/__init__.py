"""Models that leave Python: functions and cells as files of other runtimes.

`to_stablehlo`: any function, for JAX, IREE and others that read StableHLO.
`to_onnx`: layers of LSTMs, GRUs and RNNs, for onnxruntime and others that read ONNX.
"""

from .._base.public import set_public_module as _set_public_module
from ._onnx import to_onnx as to_onnx
from ._stablehlo import to_stablehlo as to_stablehlo

_set_public_module(globals())
