"""Conversion of weights from and to other libraries.

One module for each library: `equinox`, `haiku`, `keras`, `linen`, `nnx`, `onnx`, `tf1`,
`torch`.

* `load(weights)` returns a bound cell, ready for a driver; for several layers a bound
  `MultiRNNCell`.
* `load_bidirectional(weights)` returns `(cells_fw, cells_bw)`, both with a cell for
  each layer, for `stack_bidirectional_dynamic_rnn`.
* `save(cell)` and `save_bidirectional(cells_fw, cells_bw)` are the inverses.
* `torch` has the same four functions for states, `load_state` and so on.

Weights are plain arrays, in the structure in which the library returns them: nothing is
unpickled, and no other library is imported. They are converted outside of jit. What the
other library cannot express is refused with a reason; what it keeps apart from the
weights, such as an activation or the forget bias of `tf1`, is an argument of `load`.

`haiku.as_cell` and `equinox.as_cell` wrap a cell of that library as one of jaxrnn.
"""

from . import equinox, haiku, keras, linen, nnx, onnx, tf1, torch

__all__ = ["equinox", "haiku", "keras", "linen", "nnx", "onnx", "tf1", "torch"]
