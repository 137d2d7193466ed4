"""Fields of cells, each with a check that runs when a cell is created.

    @fields.dataclass
    class LeakyCell(SpecsCell):
        num_units: int = fields.size()
        leak: float = fields.number(0.1, low=0, high=1)

`dataclass` makes a frozen dataclass of a subclass of `Hyperparameters`, such as a cell.
Its base compares and shows it by value, and checks its fields.

Numbers: `size` (an integer of at least 0), `count` (at least 1, by default), `number`.
Choices: `flag` (True or False), `one_of`. Functions: `function`, `activation` (stored
as a function; annotate the field as `ActivationLike`) and `initializer`. `name` and
`dtype` declare the arguments of these names that most cells have. `unused` declares an
argument that has no effect (an `Unused`) and is not compared.

For any other check, `checked` takes a function `check(name, value)`, which returns the
value that the field stores, or raises an error. `check_number` is such a check. A
`__post_init__` that checks several fields together calls `super().__post_init__()`
first; `set_field` replaces a value there.
"""

from .._base.boundary import export as _export
from .._cells.fields import (
    ActivationLike as ActivationLike,
    Unused as Unused,
    activation as activation,
    check_number as check_number,
    checked as checked,
    count as count,
    dataclass as dataclass,
    dtype as dtype,
    flag as flag,
    function as function,
    initializer as initializer,
    name as name,
    number as number,
    one_of as one_of,
    set_field as set_field,
    size as size,
    unused as unused,
)

_export(globals(), names_errors=False)
