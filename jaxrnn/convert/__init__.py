"""Weights of other libraries, in and out.

A module a library: `equinox`, `haiku`, `keras`, `linen`, `nnx`, `onnx`, `tf1`, `torch`.
In each of them

* `load(weights)` gives a cell with its parameters, ready for a driver; of several
  layers a `MultiRNNCell`;
* `load_bidirectional(weights)` gives `(cells_fw, cells_bw)`, one of each for a layer,
  for `stack_bidirectional_dynamic_rnn`;
* `save(cell)` and `save_bidirectional(cells_fw, cells_bw)` go the other way.

Weights are plain arrays, in the structure in which the library hands them out: nothing
is unpickled, and no other library is imported. What another library cannot say is
refused, with the reason.
"""

from . import (
    equinox as equinox,
    haiku as haiku,
    keras as keras,
    linen as linen,
    nnx as nnx,
    onnx as onnx,
    tf1 as tf1,
    torch as torch,
)

__all__ = ["equinox", "haiku", "keras", "linen", "nnx", "onnx", "tf1", "torch"]
