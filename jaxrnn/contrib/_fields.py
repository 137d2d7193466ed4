"""What many files of contrib share: refusals, and the parameters of a product."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from jaxrnn import ParamSpec

from .._base.arguments import check_functions
from .._cells.initializers import glorot_uniform, zeros


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
