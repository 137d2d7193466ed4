"""Converts the weights of recurrent layers from and to other libraries.

| library | functions |
|---|---|
| PyTorch | `from_torch`, `to_torch`; states: `from_torch_state`, `to_torch_state` |
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
* A function `to_...` takes the result of `from_...`, and returns the weights in the
  layout of the other library.
* By default (`bidirectional=None`), the weights decide whether there are one or two
  directions. Pass True to require two directions, or False to require one.
* `at` is the name of the layers in a model, such as "encoder.rnn". A final dot or slash
  is optional.

Weights are plain arrays in the other library's own structure. The converters do not
unpickle data, and only `onnx_nodes` and `from_onnx` import the other library. If a cell
has no equivalent in the target library, the conversion raises an error that explains
why. Some settings, e.g. the activation, are not stored with the weights. Pass these
settings as arguments.

Functions `from_...` copy the weights to the default device. Functions `to_...` return
NumPy arrays. If JAX runs without x64, float64 weights stay NumPy arrays, and cells
compute with them in float32. Under `jit` and `grad`, conversions return traced JAX
arrays for traced weights. Therefore, a loss that converts weights has gradients in the
layout of the other library. Some conversions need the values of an array, e.g. to check
that a bias is zero. If this array is traced, they raise a TypeError.
"""

# This folder may import all others except `export`. A file converts for one library,
# and contains no equations.

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
