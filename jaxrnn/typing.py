"""Types in the signatures of this package, to annotate code that calls or extends it.

`RNNCellLike` is the protocol of a cell that `dynamic_rnn` runs, `UnboundCellLike` of a
cell that creates its parameters. `Params` are nested dicts of arrays, `Specs` nested
dicts of `ParamSpec`s, `PyTree` any nest. `Size` is the size of a state or an output.
`Shaped` is an array, or its shape and dtype. `Lengths` holds one integer for each row.
`Key` is a random key, `DType` anything that names a dtype. `Initializer` and
`Activation` are functions. `Array` and `ArrayLike` are JAX's.
"""

from ._base.typing import (
    Activation as Activation,
    Array as Array,
    ArrayLike as ArrayLike,
    DType as DType,
    Initializer as Initializer,
    Key as Key,
    Lengths as Lengths,
    Params as Params,
    PyTree as PyTree,
    RNNCellLike as RNNCellLike,
    Shaped as Shaped,
    Size as Size,
    UnboundCellLike as UnboundCellLike,
)
from ._cells.params import Specs as Specs

__all__ = ["Activation", "Array", "ArrayLike", "DType", "Initializer", "Key", "Lengths"]
__all__ += ["Params", "PyTree", "RNNCellLike", "Shaped", "Size", "Specs"]
__all__ += ["UnboundCellLike"]
