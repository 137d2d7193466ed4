"""Conversion of weights from and to other libraries.

Each library has a module: `equinox`, `haiku`, `keras`, `linen`, `nnx`, `onnx`, `tf1`,
`torch`. `transformers` loads and saves the weights of layers of `jaxrnn.nnx`.

* `load(weights)` returns a bound cell for `dynamic_rnn`. Several layers become a bound
  `MultiRNNCell`.
* `save(cell)` returns the weights of a bound cell in the layout of the other library.
* With `bidirectional=True`, `load` returns the pair `(cells_fw, cells_bw)` for
  `stack_bidirectional_dynamic_rnn`, each with one cell per layer, and `save` takes this
  pair. `equinox` and `haiku` convert only one direction.
* `torch` also converts states, with `load_state` and `save_state`.
* `onnx.nodes` reads the weights of an ONNX model.

Weights are plain arrays in the other library's own structure. The converters do not
unpickle data, and only `onnx.nodes` imports the other library. If a cell has no
equivalent in the target library, the conversion raises an error that explains why.
Settings that a library does not store with its weights, e.g. the activation, or the
forget bias in `tf1`, are arguments of `load`.

`load` copies the weights to the default device. `save` returns NumPy arrays. Without
x64, float64 weights stay NumPy arrays, which run as float32. Under `jit` and `grad`,
conversions return traced JAX arrays for traced weights. A loss that calls `load`
therefore has gradients in the layout of the other library. If a conversion needs the
values of an array, e.g. to check that a bias is zero, and the array is traced, the
conversion raises a TypeError.
"""

# Imports all but `export`. Never here: equations; a file knows one other library.

from . import equinox, haiku, keras, linen, nnx, onnx, tf1, torch, transformers

__all__ = [
    "equinox",
    "haiku",
    "keras",
    "linen",
    "nnx",
    "onnx",
    "tf1",
    "torch",
    "transformers",
]
