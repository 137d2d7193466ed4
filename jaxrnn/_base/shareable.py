"""Decides whether equal cells may share one compiled program.

`jax.jit` compares static arguments: cells by their hyperparameters, functions by
identity. This comparison is correct only if equal arguments never change. A bound
method or a callable object may read attributes that change, and a closure may hold
arrays.
"""

import dataclasses
import enum
import functools
import types
from typing import Any

import jax
import numpy as np

from .tensor_shape import TensorShape
from .trees import as_typed

_CONSTANTS = (bool, int, float, complex, str, bytes, types.NoneType, types.EllipsisType)
_CONSTANTS += (np.dtype, np.generic, enum.Enum, type, range, types.ModuleType)
_CONSTANTS += (TensorShape, types.BuiltinFunctionType, jax.Device, jax.sharding.Mesh)
_CONSTANTS += (jax.sharding.Sharding, jax.sharding.PartitionSpec)
# Functions and sentinel objects of these packages do not change.
_FIXED = ("jax", "jaxlib", "numpy", "flax", "equinox", "haiku")


def is_shareable(cell: Any) -> bool:
    """Whether all static parts of a pytree are known to be immutable.

    Immutable parts are constants, functions that close over immutable values, and
    frozen dataclasses and tuples of immutable parts.
    """
    return _is_fixed(jax.tree.structure(cell))


def _is_fixed(value: Any) -> bool:
    if isinstance(value, _CONSTANTS):
        return True
    return all(map(_is_fixed, parts)) if (parts := _parts(value)) is not None else False


def _parts(value: Any) -> list | None:
    """The values on which `value` depends; None if `value` itself may change."""
    if isinstance(value, jax.tree_util.PyTreeDef):
        kind, data = value.node_data() or (None, None)
        is_dict = isinstance(kind, type) and issubclass(kind, dict)  # Data: its keys.
        return [None if is_dict else data, *value.children()]
    if isinstance(value, tuple | frozenset):
        return list(value)
    if getattr(value, "__module__", "").split(".")[0] in (*_FIXED, "jaxrnn"):
        if isinstance(value, types.FunctionType):
            return []
    if isinstance(value, types.FunctionType):
        cells = [c for c in value.__closure__ or () if c != types.CellType()]
        defaults = value.__defaults__, *(value.__kwdefaults__ or {}).values()
        return [*(c.cell_contents for c in cells), *defaults]
    if isinstance(value, functools.partial):
        return [value.func, value.args, *value.keywords.values()]
    if dataclasses.is_dataclass(value) and type(value).__dataclass_params__.frozen:  # pyright: ignore[reportAttributeAccessIssue]
        names = {field.name for field in dataclasses.fields(value)}
        names |= set(getattr(value, "__dict__", ()))
        return [_field(value, name) for name in sorted(names)]
    is_of_library = type(value).__module__.split(".")[0] in _FIXED
    wrapped = getattr(value, "__wrapped__", None)  # Set by `jax.jit`, for example.
    if is_of_library and not isinstance(value, jax.Array | np.ndarray):
        return [] if wrapped is None else [wrapped]
    return None


def _field(value: Any, name: str) -> Any:
    """A dataclass field; sizes, which may be dicts or lists, are made hashable."""
    field = getattr(value, name)
    return as_typed(field) if name in ("state_size", "output_size") else field
