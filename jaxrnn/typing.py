"""Types for annotations in code that uses jaxrnn.

* Cells: `RNNCellLike` is the protocol of a cell that `dynamic_rnn` runs, for example
  `RNNCellLike[Array, Array]` if the output and the state are arrays. `UnboundCellLike`
  is the protocol of a cell that creates parameters. `Size` is the size of a state or an
  output. `Implementation` is the name of a loop.
* Parameters: `Params` are nested dicts of arrays, and `Specs` are nested dicts of
  `ParamSpec`s. `Initializer` and `Activation` are types of functions. `Key` is a random
  key.
* Data: `PyTree` is any nest. `Array` and `ArrayLike` are JAX's types. `Shaped` is an
  array or a `jax.ShapeDtypeStruct`. `Lengths` holds one integer for each row. `DType`
  is anything that names a dtype.
"""

from ._base.modules import set_module as _set_module
from ._base.typing import (
    Activation,
    Array,
    ArrayLike,
    DType,
    Implementation,
    Initializer,
    Key,
    Lengths,
    Params,
    PyTree,
    RNNCellLike,
    Shaped,
    Size,
    UnboundCellLike,
)
from ._cells.params import Specs

__all__ = [
    "Activation", "Array", "ArrayLike", "DType", "Implementation", "Initializer", "Key",
    "Lengths", "Params", "PyTree", "RNNCellLike", "Shaped", "Size", "Specs",
    "UnboundCellLike",
]  # fmt: skip

_set_module(__name__)
