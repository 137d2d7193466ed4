"""What functions read besides their arguments, found without calling them."""

import builtins
import dataclasses
import enum
import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from .errors import describe
from .tensor_shape import TensorShape

# Functions of these packages read nothing that changes.
_FIXED = {"jax", "jaxlib", "jaxrnn", "numpy", "ml_dtypes", "flax", "haiku", "equinox"}
_FIXED |= sys.stdlib_module_names
_CONSTANTS = (bool, int, float, complex, str, bytes, types.NoneType, types.EllipsisType)
_CONSTANTS += (np.dtype, np.generic, enum.Enum, TensorShape)
_WRAPPERS = (staticmethod, classmethod)


class UnknownCaptureError(Exception):
    """Raised for a function that reads what may change unseen; the message is what."""


def find_captures(*values: Any) -> tuple:
    """The constants that the functions within `values` read besides their arguments.

    These are the numbers and strings of closures, globals and class attributes, which
    are followed through functions, classes, modules, containers and dataclasses.
    Programs of equal values are the same as long as these constants are.

    Raises:
        UnknownCaptureError: If a function reads an array, which may be traced, or an
            object, whose attributes may change while it stays equal to itself.
    """
    constants, seen, pending = [], {}, list(values)
    while pending:
        value = pending.pop()
        if isinstance(value, _CONSTANTS):
            constants.append((type(value), value))
        elif id(value) not in seen:
            seen[id(value)] = value
            pending += _read_by(value)
    return tuple(constants)


def _read_by(value: Any) -> list:
    """What a value that is no constant refers to."""
    if isinstance(value, types.FunctionType):
        return list(_read_by_function(value))
    if isinstance(value, type):
        return [] if _is_fixed(value.__module__) else list(_read_by_class(value))
    if isinstance(value, tuple | list | set | frozenset):
        return [type(value), *value]
    if isinstance(value, dict | types.MappingProxyType):
        return [*value.keys(), *value.values()]
    if isinstance(value, jax.tree_util.PyTreeDef):
        return [value.node_data(), *value.children()]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, _WRAPPERS):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget]
    if isinstance(value, functools.cached_property):
        return [value.func]
    if _is_of_fixed_package(value):
        return []
    if hasattr(value, "__wrapped__"):  # A function that JAX transforms.
        return list(vars(value).values())
    if dataclasses.is_dataclass(value):
        return [type(value), *_attributes(value)]
    raise UnknownCaptureError(describe(value))


def _read_by_function(function: types.FunctionType) -> Iterator:
    """The contents of its closure, its defaults, and the globals that it names."""
    for cell in function.__closure__ or ():
        if cell != types.CellType():
            yield cell.cell_contents
    yield function.__defaults__
    yield function.__kwdefaults__
    if _is_fixed(function.__globals__.get("__name__", "")):
        return
    yield from vars(function).values()
    names = _names(function.__code__)
    yield from _read_from(function.__globals__, names)
    for name in names - function.__globals__.keys() - vars(builtins).keys():
        if name in sys.modules and not _is_fixed(name):  # It may be imported inside.
            yield from _read_from({name: sys.modules[name]}, names)


def _read_from(namespace: dict[str, Any], names: frozenset[str]) -> Iterator:
    """The values of the names; of modules, recursively, theirs."""
    for name in names & namespace.keys():
        value = namespace[name]
        if not isinstance(value, types.ModuleType):
            yield value
        elif not _is_fixed(value.__name__):
            yield from _read_from(vars(value), names - {name})


def _read_by_class(cls: type) -> Iterator:
    """The attributes and functions of a class, but for generated functions."""
    yield from cls.__bases__
    for name, value in vars(cls).items():
        if isinstance(value, types.FunctionType):
            if value.__code__.co_filename != "<string>":
                yield value
        elif isinstance(value, (*_WRAPPERS, property, functools.cached_property)):
            yield value
        elif not (name.startswith("__") or name == "_abc_impl"):
            yield value


def _attributes(value: Any) -> list:
    """Those that a dataclass declares; of a user's class also those that it has set."""
    names = {field.name: None for field in dataclasses.fields(value)}
    if not _is_fixed(type(value).__module__):
        names |= dict.fromkeys(getattr(value, "__dict__", ()))
    of_class = lambda name: getattr(type(value), name, None)
    is_derived = lambda name: isinstance(of_class(name), functools.cached_property)
    return [getattr(value, name) for name in names if not is_derived(name)]


@functools.lru_cache
def _names(code: types.CodeType) -> frozenset[str]:
    """All names in a function and in those defined inside it."""
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return frozenset(code.co_names).union(*map(_names, inner))


def _is_fixed(module: str) -> bool:
    return module.split(".")[0] in _FIXED


def _is_of_fixed_package(value: Any) -> bool:
    """Whether it is a function of such a package, found there under its name."""
    if isinstance(value, types.BuiltinFunctionType):
        return isinstance(value.__self__, types.ModuleType | types.NoneType)
    name = getattr(value, "__name__", "")
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    # A module's `__getattr__` may import, or raise what it likes.
    if module is None or vars(module).get(name) is not value:
        return False
    return _is_fixed(module.__name__)
