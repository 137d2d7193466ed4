"""Hyperparameters: checks, normalization, and comparison of cells by value."""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax.numpy as jnp

from .._base import arguments
from .._base.arguments import INT32_MAX, as_count
from .._base.errors import InvalidType, InvalidValue, describe, name_of
from .._base.math import is_traced
from .._base.trees import as_typed
from .._base.typing import DType, Initializer
from .activations import ACTIVATIONS, resolve_activation
from .step_checks import check_floating

Check = Callable[[str, Any], Any]
"""`check(name, value)` returns the value that a cell keeps, or raises."""


def set_common_fields(cell: Any) -> None:
    """Checks and normalizes a cell's bool fields and the fields that cells share."""
    set_bools(cell)
    names = {field.name for field in dataclasses.fields(cell)}
    check_fields(cell, **{name: _COMMON[name] for name in _COMMON if name in names})
    if "num_heads" in names:  # Raises if the heads do not divide the units.
        head_size(cell)


def check_fields(cell: Any, **checks: Check) -> None:
    """Checks and normalizes each field with the check of the same name."""
    for name, check in checks.items():
        value = getattr(cell, name)
        try:
            set_field(cell, **{name: check(name, value)})
        except (TypeError, ValueError) as error:
            if _may_be_units(cell, name, value):
                fix = f"use `{type(cell).__name__}({value})` for {value} units."
                text = f"{error} The depth of the inputs is not an argument: {fix}"
                error.args = (text,)
            raise


def _may_be_units(cell: Any, name: str, value: Any) -> bool:
    """Whether the caller may have passed the depth first and the units second.

    PyTorch and Equinox use this order: `LSTMCell(depth, units)`.
    """
    first, second, *_ = [field.name for field in dataclasses.fields(cell)] + ["", ""]
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number and first in ("num_units", "units") and name == second


def set_bools(cell: Any) -> None:
    """Checks that the fields whose default is True or False are bools."""
    fields = [f.name for f in dataclasses.fields(cell) if isinstance(f.default, bool)]
    check_fields(cell, **dict.fromkeys(fields, arguments.as_bool))


def set_field(cell: Any, **fields: Any) -> None:
    """Sets fields of a frozen dataclass; only for `__post_init__`."""
    for name, value in fields.items():
        object.__setattr__(cell, name, value)


def check_number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf
) -> float:
    """The number `value` as a float.

    Raises:
        TypeError: If `value` is not a number; an array would not be hashable.
        ValueError: If `value` is not in `[low, high]`.
    """
    try:
        if is_traced(value) or isinstance(value, str | bool | None) or jnp.ndim(value):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidType(
            f"`{name}` must be a number, got {describe(value)}. "
            "Hyperparameters are static: create a cell for each value."
        ) from None
    if not low <= number <= high:
        raise InvalidValue(f"`{name}` must be in [{low}, {high}], got {number}.")
    return number


def optional(check: Check) -> Check:
    """Extends a check so that it also accepts None."""
    return lambda name, value: None if value is None else check(name, value)


def as_size(name: str, value: Any) -> int:
    """Checks that the value is an integer of at least 0."""
    return as_count(name, value, 0, "")


def as_string(name: str, value: Any) -> str:
    """Checks that the value is a string."""
    return arguments.check_instance(name, value, str, "a string")


def _as_initializer(name: str, value: Any) -> Initializer:
    what, fix = "a function (key, shape, dtype)", "See jax.nn.initializers."
    return arguments.check_function(name, value, what, fix)


def _as_floating(name: str, value: Any) -> DType:
    dtype = arguments.as_dtype(value, name)
    check_floating(name, dtype)
    return dtype


as_function: Check = arguments.check_function
_activation: Check = lambda name, value: resolve_activation(value, name)
_initializer = optional(_as_initializer)
# These fields mean the same in all cells; `CommonFields` describes them.
_COMMON: dict[str, Check] = {
    "num_units": as_size,
    "num_heads": as_count,
    "units": as_size,
    "activation": _activation,
    "y_activation": _activation,
    "initializer": _initializer,
    "kernel_initializer": _initializer,
    "recurrent_initializer": _initializer,
    "bias_initializer": _initializer,
    "forget_bias": check_number,
    "name": optional(as_string),
    "dtype": optional(_as_floating),
}


def set_counts(
    cell: Any,
    *names: str,
    least: int = 1,
    most: int = INT32_MAX,
    fix: str = "",
) -> None:
    """Checks that fields are integers; None is allowed if it is the default.

    Raises:
        TypeError: If a field is not an integer.
        ValueError: If a field is not in `[least, most]`.
    """
    _set(
        cell,
        names,
        functools.partial(as_count, least=least, fix=fix, most=most),
    )


def set_numbers(
    cell: Any, *names: str, low: float = -math.inf, high: float = math.inf
) -> None:
    """Checks that fields are numbers; None is allowed if it is the default.

    Raises:
        TypeError: If a field is not a number.
        ValueError: If a field is not in `[low, high]`.
    """
    _set(cell, names, functools.partial(check_number, low=low, high=high))


def set_functions(cell: Any, *names: str) -> None:
    """Checks that fields are functions; None is allowed if it is the default."""
    _set(cell, names, as_function)


def _set(cell: Any, names: tuple[str, ...], check: Check) -> None:
    for name in names:
        is_optional = getattr(type(cell), name, ...) is None
        if not is_optional or getattr(cell, name) is not None:
            check_fields(cell, **{name: check})


class CommonFields:
    """A mixin that checks and describes the fields that many cells share.

    The mixin is not a dataclass. Each cell declares its fields in TensorFlow's order,
    and describes only the fields that the mixin does not describe.

    Attributes:
        num_units: `H`, at least 0.
        forget_bias: Added to f at each step; not stored in the bias.
        activation: None for tanh, the name of a Keras activation, or a function.
        reuse: Accepted for compatibility with TensorFlow; not used.
        kernel_initializer: For the kernel; None for Glorot uniform.
        bias_initializer: For the bias; None for zeros.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.
    """

    def __post_init__(self) -> None:
        set_common_fields(self)


def head_size(cell: Any) -> int:
    """The number of units in each of the `num_heads` heads.

    Raises:
        ValueError: If `num_heads` does not divide `num_units`.
    """
    units, heads = cell.num_units, cell.num_heads
    what, fix = f"`num_units`, {units}", f"Choose a multiple of {heads} units."
    arguments.check_divides("num_heads", heads, units, what, fix)
    return units // heads


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Hyperparameters:
    """A dataclass compared by class and value, as static arguments of jit must be.

    A subclass need not be a dataclass: the attributes that it sets are compared too.
    """

    def __eq__(self, other: object) -> bool:
        """Compares classes and values.

        1 and True are unequal, because they may lead to different programs.
        """
        return type(self) is type(other) and self._value() == other._value()  # pyright: ignore[reportAttributeAccessIssue]

    def __hash__(self) -> int:
        return hash(self._value())

    def __repr__(self) -> str:
        """Lists the values that differ from their defaults, with functions by name."""
        parts = []
        for name, field in self._attributes().items():
            value = getattr(self, name)
            if field is not None:
                # Types are compared too, because NumPy's dtype float64 equals None.
                is_default = as_typed(value) == as_typed(field.default)
                if is_default or not (field.repr and field.compare):
                    continue
            parts.append(f"{name}={name_of(value)}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def __deepcopy__(self, memo: dict) -> "Hyperparameters":
        # A copied function would not equal the original, so a copy shares all values.
        memo[id(self)] = twin = copy.copy(self)
        return twin

    # A pickle stores activations by name, because pickle cannot find JAX's wrapped
    # functions, and functions of a private module may move.
    def __getstate__(self) -> tuple[dict[str, Any], dict[str, str]]:
        names = {id(function): name for name, function in ACTIVATIONS.items()}
        fields = vars(self).items()
        activations = {k: names[id(v)] for k, v in fields if id(v) in names}
        rest = {k: v for k, v in fields if k not in activations}
        return rest, activations

    def __setstate__(self, state: tuple[dict[str, Any], dict[str, str]]) -> None:
        rest, activations = state
        functions = {field: ACTIVATIONS[name] for field, name in activations.items()}
        vars(self).update(rest, **functions)

    def _value(self) -> tuple:
        attributes = self._attributes().items()
        names = [name for name, field in attributes if field is None or field.compare]
        return tuple((name, as_typed(getattr(self, name))) for name in names)

    def _attributes(self) -> dict[str, dataclasses.Field | None]:
        """Maps the names of all hyperparameters to their dataclass fields or None."""
        attributes: dict[str, Any] = {f.name: f for f in dataclasses.fields(self)}
        for name in getattr(self, "__dict__", {}):
            if not isinstance(getattr(type(self), name, None), cached_property):
                attributes.setdefault(name, None)
        return attributes
