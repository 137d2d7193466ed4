"""What functions read besides their arguments, found without calling them."""

import builtins
import collections
import dataclasses
import enum
import functools
import logging
import sys
import types
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import numpy as np

from .errors import describe
from .tensor_shape import TensorShape

# Functions of these packages read nothing that changes.
_FIXED = {"jax", "jaxlib", "jaxrnn", "numpy", "ml_dtypes", "flax", "haiku", "equinox"}
# Classes that `make_dataclass` creates name these as their module.
_FIXED |= sys.stdlib_module_names - {"abc", "types"}
_CONSTANTS = (bool, int, float, complex, str, bytes, types.NoneType, types.EllipsisType)
_CONSTANTS += (np.dtype, np.generic, enum.Enum, TensorShape)
# These name devices, loggers and types, and do not change.
_CONSTANTS += (jax.sharding.Mesh, jax.sharding.Sharding, jax.sharding.PartitionSpec)
_CONSTANTS += (range, logging.Logger, TypeVar)
_WRAPPERS = (staticmethod, classmethod)
_CONTAINERS = (tuple, list, set, frozenset)
# What C code does, and where it stores attributes.
_SLOTS = (types.WrapperDescriptorType, types.MethodDescriptorType)
_SLOTS += (types.GetSetDescriptorType, types.MemberDescriptorType)
_SLOTS += (
    types.ClassMethodDescriptorType,
    type(vars(collections.namedtuple("_", "x"))["x"]),
)
# Methods that `dataclass` generates. They refer to markers such as `MISSING`.
_GENERATED = {"__init__", "__repr__", "__eq__", "__setattr__", "__delattr__"}
_GENERATED |= {"__hash__", "__lt__", "__le__", "__gt__", "__ge__"}
# Functions that may read any global.
_DYNAMIC = {"globals", "eval", "exec", "__import__", "import_module"}


class UnknownCaptureError(Exception):
    """Raised for a function that reads what may change unseen; the message is what."""


class _Same:
    """Equal only for the same object, which it keeps alive."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def find_captures(*values: Any) -> tuple:
    """What the functions within `values` read besides their arguments, as a hashable.

    Closures, globals and class attributes are followed through functions, classes,
    modules, containers and dataclasses. The result has the numbers and strings found,
    the code of the functions, and the identity of what is not looked into. Programs of
    equal values are the same as long as it is.

    Raises:
        UnknownCaptureError: If a function reads an array, which may be traced, or an
            object, whose attributes may change while it stays equal to itself.
    """
    found, seen, pending = [], {}, list(values)
    while pending:
        value = pending.pop()
        if isinstance(value, _CONSTANTS):
            found.append((type(value), _by_value(value)))
            pending += _read_by_constant(value)
        elif id(value) in seen:
            found.append(seen[id(value)][0])
        else:
            seen[id(value)] = len(found), value
            more = _read_by(value)
            found.append((_identity(value, more), len(more)))
            pending += more
    return tuple(found)


def _by_value(value: Any) -> Any:
    """A float as text: 0.0 equals -0.0, and NaN does not equal itself."""
    return repr(value) if isinstance(value, float | complex | np.generic) else value


def _read_by_constant(value: Any) -> list:
    """What the methods of a user's enumeration or number refer to."""
    if _is_fixed(type(value).__module__):
        return []
    return [type(value), *_own_attributes(value)]


def _identity(value: Any, more: list) -> Any:
    """A function's code; the type of what is looked into; other values themselves."""
    if isinstance(value, types.FunctionType):
        return value.__code__
    return _Same(value if isinstance(value, type) or not more else type(value))


def _read_by(value: Any) -> list:
    """What a value that is no constant refers to."""
    if isinstance(value, types.FunctionType):
        return list(_read_by_function(value))
    if isinstance(value, type):
        return [] if _is_fixed(value.__module__) else list(_read_by_class(value))
    if isinstance(value, _CONTAINERS):
        return [type(value), *_own_attributes(value), *value]
    if isinstance(value, dict | types.MappingProxyType):
        return [type(value), *_own_attributes(value), *value.keys(), *value.values()]
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
    if isinstance(value, _SLOTS) or _is_of_fixed_package(value):
        return []
    if dataclasses.is_dataclass(value):
        return [type(value), *_attributes(value)]
    if hasattr(value, "__wrapped__") and hasattr(value, "__dict__"):  # A decorator.
        return [type(value), *_own_attributes(value)]
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
    if not names.isdisjoint(_DYNAMIC):
        raise UnknownCaptureError(f"what {sorted(names & _DYNAMIC)} return")
    modules = set()
    yield from _read_from(function.__globals__, names, modules)
    for module in _imported_inside(function, names):
        yield from _read_from(vars(module), names, modules)


def _imported_inside(
    function: types.FunctionType, names: frozenset[str]
) -> Iterator[types.ModuleType]:
    """The modules that it may import, by absolute or relative names."""
    package = function.__globals__.get("__package__") or ""
    parents = package.split(".")
    parents = [".".join(parents[: i + 1]) for i in range(len(parents))]
    for name in sorted(names - function.__globals__.keys() - vars(builtins).keys()):
        # `from . import a` names the module "".
        for full in (name, *(f"{parent}.{name}".strip(".") for parent in parents)):
            if full in sys.modules and not _is_fixed(full):
                yield sys.modules[full]


def _read_from(
    namespace: dict[str, Any], names: frozenset[str], modules: set[str]
) -> Iterator:
    """The values of the names; of modules not yet in `modules`, recursively, theirs."""
    for name in sorted(names & namespace.keys()):
        value = namespace[name]
        if not isinstance(value, types.ModuleType):
            yield value
        elif not (_is_fixed(value.__name__) or value.__name__ in modules):
            modules.add(value.__name__)
            if "__getattr__" in vars(value) or names & {"getattr", "vars"}:
                raise UnknownCaptureError(describe(value))
            yield from _read_from(vars(value), names, modules)


def _read_by_class(cls: type) -> Iterator:
    """The attributes and functions of a class, but for generated functions."""
    yield type(cls)
    yield from cls.__bases__
    for name, value in vars(cls).items():
        if isinstance(value, types.FunctionType):
            is_generated = value.__code__.co_filename == "<string>"
            if not (is_generated and name in _GENERATED):
                yield value
        elif isinstance(value, (*_WRAPPERS, property, functools.cached_property)):
            yield value
        elif not (name.startswith("__") or name == "_abc_impl"):
            yield value
        elif callable(value) or hasattr(type(value), "__get__"):
            yield value


def _own_attributes(value: Any) -> list:
    """Those that were set on a value."""
    return list(getattr(value, "__dict__", {}).values())


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
        owner = value.__self__
        if isinstance(owner, type):
            return _is_fixed(owner.__module__)
        return isinstance(owner, types.ModuleType | types.NoneType)
    if isinstance(value, types.ModuleType):
        return _is_fixed(value.__name__)
    if type(value).__module__.startswith("equinox.") and vars(value) == {}:
        return True  # A marker. (JAX's arrays have no attributes either.)
    name = getattr(value, "__name__", "")
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    # A module's `__getattr__` may import, or raise what it likes.
    if module is None or vars(module).get(name) is not value:
        return False
    return _is_fixed(module.__name__)
