"""Conversion of weights from and to other libraries.

Each library has a module: `equinox`, `haiku`, `keras`, `linen`, `nnx`, `onnx`, `tf1`,
`torch`.

* `load(weights)` returns a bound cell, ready for a driver. Several layers become a
  bound `MultiRNNCell`.
* `load_bidirectional(weights)` returns `(cells_fw, cells_bw)` for
  `stack_bidirectional_dynamic_rnn`, each with one cell per layer. `equinox` and `haiku`
  convert only one direction.
* `save(cell)` and `save_bidirectional(cells_fw, cells_bw)` are the inverses.
* `torch` also converts states, with `load_state`, `save_state` and their bidirectional
  versions.

Weights are plain arrays in the structure that the library returns. The converters do
not unpickle anything or import the other library. Convert weights outside of jit. If
one library cannot express a cell of the other, the conversion raises an error that
gives the reason. Settings that the library does not store with the weights, e.g. an
activation or the forget bias of `tf1`, are arguments of `load`.

`haiku.as_cell` and `equinox.as_cell` wrap a cell of that library as a jaxrnn cell.
"""

from . import equinox, haiku, keras, linen, nnx, onnx, tf1, torch

__all__ = ["equinox", "haiku", "keras", "linen", "nnx", "onnx", "tf1", "torch"]
