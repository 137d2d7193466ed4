"""Fields for the hyperparameters of cells, which check their values.

    @fields.dataclass
    class LeakyCell(SpecsCell):
        num_units: int = fields.size()
        leak: float = fields.number(0.1, low=0, high=1)

`dataclass` makes a frozen dataclass of a cell class. The base class of cells compares
and shows cells by value, and checks the fields when a cell is created.

`size` declares an integer of at least 0, `count` an integer of at least 1 (by default),
`number` a float and `flag` a bool. `activation` declares an activation, which is stored
as a function; annotate the field as `ActivationLike`. `initializer` declares an
initializer. `name` and `dtype` declare the fields of these names that most cells have.
`unused` declares an argument that has no effect and is not compared.

For any other check, `checked` takes a function `check(name, value)`, which returns the
value that the field stores, or raises an error. To check several fields together,
define `__post_init__`, and call `super().__post_init__()` first.
"""

from .._base.modules import set_module as _set_module
from .._cells.fields import (
    ActivationLike,
    activation,
    checked,
    count,
    dataclass,
    dtype,
    flag,
    initializer,
    name,
    number,
    size,
    unused,
)

__all__ = [
    "ActivationLike", "activation", "checked", "count", "dataclass", "dtype", "flag",
    "initializer", "name", "number", "size", "unused",
]  # fmt: skip

_set_module(__name__)
