"""What many files of contrib share: checks, and the parameters of a product."""

import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from jaxrnn import ParamSpec

from .._base.arguments import INT32_MAX, as_count, check_functions
from .._cells.hyperparameters import Check, as_function, check_fields, check_number
from .._cells.initializers import glorot_uniform, zeros


def set_counts(
    cell: Any, *names: str, least: int = 1, most: int = INT32_MAX, fix: str = ""
) -> None:
    """Checks fields that are integers; None is for those of which it is the default.

    Raises:
        TypeError: If one is not an integer.
        ValueError: If one is not in `[least, most]`.
    """
    _set(cell, names, functools.partial(as_count, least=least, fix=fix, most=most))


def set_numbers(
    cell: Any, *names: str, low: float = -math.inf, high: float = math.inf
) -> None:
    """Checks fields that are numbers; None is for those of which it is the default.

    Raises:
        TypeError: If one is not a number.
        ValueError: If one is not in `[low, high]`.
    """
    _set(cell, names, functools.partial(check_number, low=low, high=high))


def set_functions(cell: Any, *names: str) -> None:
    """Raises TypeError unless these fields are functions, or None by default."""
    _set(cell, names, as_function)


def _set(cell: Any, names: tuple[str, ...], check: Check) -> None:
    for name in names:
        is_optional = getattr(type(cell), name, ...) is None
        if not is_optional or getattr(cell, name) is not None:
            check_fields(cell, **{name: check})


def check_given_functions(caller: str, **functions: Any) -> None:
    """Raises TypeError unless the arguments of these names are functions, or None."""
    given = {name: value for name, value in functions.items() if value is not None}
    check_functions(caller, **given)


class RefusesElsewhere:
    """A class whose constructor tells where arguments of TensorFlow's are here."""

    elsewhere: ClassVar[Mapping[str, str]] = {}
    """What the error says about each of these arguments."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """A new object.

        Raises:
            TypeError: If one of those arguments is given.
        """
        for name in kwargs.keys() & cls.elsewhere.keys():
            raise TypeError(f"{cls.__name__}: `{name}` {cls.elsewhere[name]}.")
        return super().__new__(cls)


def linear_specs(rows: int, columns: int, make: Any = glorot_uniform) -> dict[str, Any]:
    """The parameters of a product: a kernel with that initializer, and a bias."""
    bias = ParamSpec((columns,), zeros)
    return {"kernel": ParamSpec((rows, columns), make), "bias": bias}
