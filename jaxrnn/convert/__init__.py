"""Conversion of weights from and to other libraries.

| library | functions |
|---|---|
| PyTorch | `from_torch`, `to_torch`; for states, `from_torch_state`, `to_torch_state` |
| Keras | `from_keras`, `to_keras` |
| Flax | `from_flax` for linen and nnx, `to_linen`, `to_nnx` |
| Haiku | `from_haiku`, `to_haiku` |
| Equinox | `from_equinox`, `to_equinox` |
| ONNX | `from_onnx`, `onnx_nodes`, `to_onnx_nodes` |
| TensorFlow 1 | `from_tf1`, `to_tf1` |
| `transformers` | `from_transformers`, `to_transformers` for layers of `jaxrnn.nnx` |

* A function `from_...` returns a bound cell for `dynamic_rnn`. Several layers become a
  bound `MultiRNNCell`. Two directions become the pair `(cells_fw, cells_bw)` for
  `stack_bidirectional_dynamic_rnn`, each with one cell per layer.
* A function `to_...` takes what `from_...` returns, and returns the weights in the
  layout of the other library.
* `bidirectional=None` means that the weights decide on the number of directions. True
  and False raise an error for weights that do not fit.
* `at` is the name of the layers inside of a model, with or without a final dot or
  slash.

Weights are plain arrays in the other library's own structure. The converters do not
unpickle data, and only `onnx_nodes` and `from_onnx` import the other library. If a cell
has no equivalent in the target library, the conversion raises an error that explains
why. Settings that a library does not store with its weights, e.g. the activation, or
the forget bias in TensorFlow 1, are arguments.

Functions `from_...` copy the weights to the default device. Functions `to_...` return
NumPy arrays. Without x64, float64 weights stay NumPy arrays, which run as float32.
Under `jit` and `grad`, conversions return traced JAX arrays for traced weights. A loss
that converts weights therefore has gradients in the layout of the other library. If a
conversion needs the values of an array, e.g. to check that a bias is zero, and the
array is traced, the conversion raises a TypeError.
"""

# Imports all but `export`. Never here: equations; a file knows one other library.

from .._base.modules import set_module as _set_module
from ._equinox import from_equinox, to_equinox
from ._flax import from_flax, to_linen, to_nnx
from ._haiku import from_haiku, to_haiku
from ._keras import from_keras, to_keras
from ._onnx import from_onnx, onnx_nodes, to_onnx_nodes
from ._tf1 import from_tf1, to_tf1
from ._torch import from_torch, from_torch_state, to_torch, to_torch_state
from ._transformers import from_transformers, to_transformers

__all__ = [
    "from_equinox", "from_flax", "from_haiku", "from_keras", "from_onnx", "from_tf1",
    "from_torch", "from_torch_state", "from_transformers", "onnx_nodes", "to_equinox",
    "to_haiku", "to_keras", "to_linen", "to_nnx", "to_onnx_nodes", "to_tf1", "to_torch",
    "to_torch_state", "to_transformers",
]  # fmt: skip

_set_module(__name__)
