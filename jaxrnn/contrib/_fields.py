"""Checks of hyper-parameters and arguments that several files of contrib share."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from .._base.arguments import INT32_MAX, as_count, check_functions
from .._cells.hyperparameters import check_number, set_field


def set_counts(
    cell: Any, *names: str, least: int = 1, most: int = INT32_MAX, fix: str = ""
) -> None:
    """Checks fields that are integers; None is for those of which it is the default.

    Raises:
        TypeError: If one is not an integer.
        ValueError: If one is not in `[least, most]`.
    """
    caller = type(cell).__name__
    for name in _given(cell, names):
        count = as_count(caller, name, getattr(cell, name), least, fix, most=most)
        set_field(cell, **{name: count})


def set_numbers(
    cell: Any, *names: str, low: float = -math.inf, high: float = math.inf
) -> None:
    """Checks fields that are numbers; None is for those of which it is the default.

    Raises:
        TypeError: If one is not a number.
        ValueError: If one is not in `[low, high]`.
    """
    caller = type(cell).__name__
    for name in _given(cell, names):
        number = check_number(caller, name, getattr(cell, name), low, high)
        set_field(cell, **{name: number})


def check_function_fields(cell: Any, *names: str) -> None:
    """Raises TypeError unless these fields are functions, or None."""
    functions = {name: getattr(cell, name) for name in names}
    check_given_functions(type(cell).__name__, **functions)


def _given(cell: Any, names: tuple[str, ...]) -> list[str]:
    """The names of the fields that hold something, or must."""
    is_optional = lambda name: getattr(type(cell), name, ...) is None
    return [n for n in names if getattr(cell, n) is not None or not is_optional(n)]


def check_given_functions(caller: str, **functions: Any) -> None:
    """Raises TypeError unless the arguments of these names are functions, or None."""
    given = {name: value for name, value in functions.items() if value is not None}
    check_functions(caller, **given)


class RefusesElsewhere:
    """A class whose constructor tells where arguments of TensorFlow's are here.

    Attributes:
        elsewhere: What is said of each argument that is given by name.
    """

    elsewhere: ClassVar[Mapping[str, str]] = {}

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """A new object.

        Raises:
            TypeError: If one of those arguments is given.
        """
        for name in kwargs.keys() & cls.elsewhere.keys():
            raise TypeError(f"{cls.__name__}: `{name}` {cls.elsewhere[name]}.")
        return super().__new__(cls)
