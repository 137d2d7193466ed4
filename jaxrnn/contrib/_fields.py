"""Helpers for contrib that check function arguments and specify dense layers."""

from typing import Any

from jaxrnn import ParamSpec

from .._base.arguments import check_functions
from .._cells.initializers import Specs, glorot_uniform, zeros


def check_given_functions(**functions: Any) -> None:
    """Raises TypeError if a named argument is neither a function nor None."""
    given = {name: value for name, value in functions.items() if value is not None}
    check_functions(**given)


def linear_specs(rows: int, columns: int, make: Any = glorot_uniform) -> Specs:
    """Specs of a kernel that `make` initializes and of a zero-initialized bias."""
    bias = ParamSpec((columns,), zeros)
    return {"kernel": ParamSpec((rows, columns), make), "bias": bias}
