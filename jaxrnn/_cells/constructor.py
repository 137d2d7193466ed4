"""Constructor errors that suggest replacements for arguments of other libraries."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Self, TypeVar

from .._base.errors import describe
from .._base.unknown_arguments import check_unknown

P = ParamSpec("P")
R = TypeVar("R")


class _Signature:
    """Gives `inspect` the signature of `__init__` instead of `__new__`."""

    def __get__(self, cell: Any, cls: type) -> inspect.Signature:
        if cell is not None:  # `inspect` then uses `__call__`.
            raise AttributeError("__signature__")
        _, *parameters = inspect.signature(cls.__init__).parameters.values()
        return inspect.Signature(parameters)


class HintsAtArguments:
    """A class whose constructor suggests replacements for unknown arguments."""

    _elsewhere: ClassVar[Mapping[str, str]] = {}
    """Maps arguments of TensorFlow's constructor to the end of the error message."""

    if not TYPE_CHECKING:  # Type checkers use the signature of `__init__`.
        __signature__ = _Signature()

        def __new__(cls, *args: Any, **kwargs: Any) -> Self:
            """Checks the names of the arguments, then creates an object.

            Raises:
                TypeError: If an argument is unknown.
            """
            if kwargs:
                _check(cls, kwargs)
            return super().__new__(cls)


def _check(cls: type[HintsAtArguments], kwargs: Mapping[str, Any]) -> None:
    name, parameters = cls.__name__, inspect.signature(cls).parameters
    for argument in kwargs.keys() & cls._elsewhere.keys():
        raise TypeError(f"{name}: `{argument}` {cls._elsewhere[argument]}.")
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not takes_all:
        check_unknown(name, "the constructor", kwargs, parameters)


def hints_at_missing_params(bind: Callable[P, R]) -> Callable[P, R]:
    """Makes `bind` raise a helpful error without parameters or without a cell."""

    @functools.wraps(bind)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if args and not isinstance(args[0], HintsAtArguments):
            raise TypeError(
                f"RNNCell: `bind` must be called on a cell, got {describe(args[0])}. "
                "Create the cell first: `LSTMCell(5).bind(params)`."
            )
        if len(args) < 2 and "params" not in kwargs:
            name = type(args[0]).__name__ if args else "RNNCell"
            raise TypeError(
                f"{name}: `bind` needs `params`, which `cell.init("
                "key, inputs)` creates from one step of inputs."
            )
        return bind(*args, **kwargs)

    return checked
