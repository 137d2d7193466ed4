"""Types for annotations in code that uses jaxrnn.

`RNNCellLike` is the protocol of a cell that `dynamic_rnn` runs; `RNNCellLike[Array,
Array]` has arrays as its output and its state. `UnboundCellLike` is the protocol of a
cell that creates parameters. `Params` are nested dicts of arrays, `Specs` are nested
dicts of `ParamSpec`s, and a `PyTree` is any nest. `Size` is the size of a state or an
output. `Shaped` is an array or a `jax.ShapeDtypeStruct`. `Lengths` holds one integer
for each row. `Key` is a random key, and `DType` is anything that names a dtype.
`Implementation` is the name of a loop. `Initializer` and `Activation` are types of
functions. `Array` and `ArrayLike` are JAX's types.
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
