"""The boundary of the package: public names on errors, hints for unknown arguments.

Inside the package, nothing knows which public function was called. Checks raise
`InvalidValue` or `InvalidType`. At the boundary, a ValueError or TypeError that begins
with the public name takes its place. Errors of users' functions, and errors that an
inner boundary has already named, pass unchanged.

The boundary is where a public module exports its names, with `export`. Functions of the
package call each other inside of it; methods pass it whoever calls them.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from .errors import InvalidArgument
from .hints import mismatch

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

_SPECIAL_METHODS = "__init__ __post_init__ __call__ __iter__ __next__ __array__".split()


def export(namespace: dict[str, Any], names_errors: bool = True) -> None:
    """Puts the functions and classes of a public module at the boundary.

    Pickles refer to classes and functions by module and name. This function sets their
    `__module__` to the public module, so pickles survive a move of private files.
    Unless the module has an `__all__`, it gets one without lazily loaded modules, so
    that `from jaxrnn import *` does not shadow Flax's `nnx`. `dir` lists these names.

    Args:
        namespace: `globals()` of the public module.
        names_errors: False for functions that other checks call: their errors get the
            name of the function or class that the user called.
    """
    module = namespace["__name__"]
    names = [name for name in namespace if not name.startswith("_")]
    public = namespace.setdefault("__all__", names)
    namespace.setdefault("__dir__", public.copy)
    for name in public:
        value = namespace[name]
        home = getattr(value, "__module__", "")
        is_private = home.startswith("jaxrnn.") and "._" in home
        if home != module and not is_private:
            continue  # Another public module has exported the name, or it is no code.
        if inspect.isfunction(value):
            exported = at_boundary(value) if names_errors else value
            namespace[name] = exported
            exported.__module__ = module
            exported.__name__ = exported.__qualname__ = name
        elif inspect.isclass(value):
            value.__module__ = module
            class_at_boundary(value)


def at_boundary(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with its name on errors of checks, and hints for its arguments."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InvalidArgument as error:
            raise error.named(_name(call, args)) from error.__cause__
        except TypeError as error:
            if _fits(function, args, kwargs):
                raise
            label = _name(call, args)
            if not function.__name__.startswith("__") and "." in call.__qualname__:
                label = f"{label}.{function.__name__}"
            raise mismatch(label, function, kwargs, error) from None

    vars(call)["is_at_boundary"] = True
    return call


def inside(function: Callable[P, R]) -> Callable[P, R]:
    """A public function without its boundary, for another public function to call.

    Errors then begin with the name of the function that the user called.
    """
    return inspect.unwrap(function)


def _fits(function: Callable, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether the arguments fit the signature of the function."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def class_at_boundary(cls: C) -> C:
    """Puts the methods of a class, and of its bases in the package, at the boundary.

    A private class whose instances users call is decorated with this function.
    """
    for base in cls.__mro__:
        if not base.__module__.startswith("jaxrnn"):
            continue
        for name, value in list(vars(base).items()):
            if name.startswith("_") and name not in _SPECIAL_METHODS:
                continue
            if isinstance(value, property) and inspect.isfunction(value.fget):
                setattr(base, name, value.getter(_once(value.fget)))
            elif inspect.isfunction(value):
                setattr(base, name, _once(value))
    return cls


def _once(function: Callable[P, R]) -> Callable[P, R]:
    """The function at the boundary, where it may already be."""
    is_there = hasattr(function, "is_at_boundary")
    return function if is_there else at_boundary(function)


def _name(function: Any, args: tuple) -> str:
    """`decode.greedy_loop` for a function, `LSTMCell` for a method."""
    owner, _, name = function.__qualname__.rpartition(".")
    if owner:
        cls = type(args[0]) if args else object
        is_method = owner in [base.__name__ for base in cls.__mro__]
        return cls.__name__ if is_method else owner
    module = function.__module__.removeprefix("jaxrnn").removeprefix(".")
    return f"{module}.{name}".removeprefix(".")
