"""Hyper-parameters: checks that normalize them, and cells that compare by them."""

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
from .._base.errors import describe, name_of
from .._base.math import is_traced
from .._base.trees import as_typed
from .._base.typing import DType, Initializer
from .activations import ACTIVATIONS, resolve_activation
from .constructor import HintsAtArguments
from .inherited_docs import inherit_docs
from .step_checks import check_floating

Check = Callable[[str, str, Any], Any]
"""`check(caller, name, value)` returns the value that a cell keeps, or raises."""


def set_common_fields(cell: Any) -> None:
    """Checks and normalizes the bools of a cell, and the fields that several have."""
    set_bools(cell)
    names = {field.name for field in dataclasses.fields(cell)}
    check_fields(cell, **{name: _COMMON[name] for name in _COMMON if name in names})
    if "num_heads" in names:  # They divide the units.
        head_size(cell)


def check_fields(cell: Any, **checks: Check) -> None:
    """Checks and normalizes fields, each by its own check."""
    for name, check in checks.items():
        value = getattr(cell, name)
        try:
            set_field(cell, **{name: check(type(cell).__name__, name, value)})
        except (TypeError, ValueError) as error:
            if _may_be_units(cell, name, value):
                fix = f"give `{type(cell).__name__}({value})` for {value} units."
                text = f"{error} The depth of the inputs is not an argument: {fix}"
                error.args = (text,)
            raise


def _may_be_units(cell: Any, name: str, value: Any) -> bool:
    """Whether a field may hold the units of a cell that was given a depth first.

    So it is in `LSTMCell(depth, units)` of PyTorch and Equinox.
    """
    first, second, *_ = [field.name for field in dataclasses.fields(cell)] + ["", ""]
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number and first in ("num_units", "units") and name == second


def set_bools(cell: Any) -> None:
    """Checks the fields whose default is True or False: they must be bools."""
    fields = [f.name for f in dataclasses.fields(cell) if isinstance(f.default, bool)]
    check_fields(cell, **dict.fromkeys(fields, arguments.as_bool))


def set_field(cell: Any, **fields: Any) -> None:
    """Sets fields of a frozen dataclass; for `__post_init__` alone."""
    for name, value in fields.items():
        object.__setattr__(cell, name, value)


def check_number(
    cell: str, name: str, value: Any, low: float = -math.inf, high: float = math.inf
) -> float:
    """The number `value` as a float.

    Raises:
        TypeError: If it is not a number; an array would not be hashable.
        ValueError: If it is not in `[low, high]`.
    """
    try:
        if is_traced(value) or isinstance(value, str | bool | None) or jnp.ndim(value):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"{cell}: `{name}` must be a number, got {describe(value)}. "
            "Hyper-parameters are static: make a cell for each value."
        ) from None
    if not low <= number <= high:
        raise ValueError(f"{cell}: `{name}` must be in [{low}, {high}], got {number}.")
    return number


def optional(check: Check) -> Check:
    """The check of a field that may be None as well."""
    return lambda *args: None if args[-1] is None else check(*args)


def as_size(caller: str, name: str, value: Any) -> int:
    """A number of units; there may be none."""
    return as_count(caller, name, value, 0, "")


def as_string(caller: str, name: str, value: Any) -> str:
    """A string."""
    return arguments.check_instance(caller, name, value, str, "a string")


def _as_initializer(caller: str, name: str, value: Any) -> Initializer:
    what, fix = "a function (key, shape, dtype)", "See jax.nn.initializers."
    return arguments.check_function(caller, name, value, what, fix)


def _as_floating(caller: str, name: str, value: Any) -> DType:
    dtype = arguments.as_dtype(caller, value, name)
    check_floating(caller, name, dtype)
    return dtype


as_function: Check = arguments.check_function
_activation: Check = lambda caller, name, value: resolve_activation(caller, value, name)
_initializer = optional(_as_initializer)
# The fields that mean the same in all cells; `CommonFields` describes them.
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
    """Checks fields that are integers; None is for those of which it is the default.

    Raises:
        TypeError: If one is not an integer.
        ValueError: If one is not in `[least, most]`.
    """
    _set(
        cell,
        names,
        functools.partial(as_count, least=least, fix=fix, most=most),
    )


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


class CommonFields:
    """The part of a cell that checks and describes the fields that many cells have.

    Not a dataclass itself: each cell declares its fields in TensorFlow's order, and
    describes those that are not described here.

    Attributes:
        num_units: `H`, at least 0.
        forget_bias: Added to f at each step; not part of the stored bias.
        activation: None for tanh, the name of a Keras activation, or a function.
        reuse: Accepted for compatibility with TensorFlow; not used.
        kernel_initializer: For the kernel; None for Glorot uniform.
        bias_initializer: For the bias; None for zeros.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If a number is out of its range, an activation is not known, or
            `dtype` is not floating.
    """

    def __post_init__(self) -> None:
        set_common_fields(self)


def head_size(cell: Any) -> int:
    """The number of units of each of the `num_heads`.

    Raises:
        ValueError: If that does not divide `num_units`.
    """
    name, units, heads = type(cell).__name__, cell.num_units, cell.num_heads
    what, fix = f"`num_units`, {units}", f"Choose a multiple of {heads} units."
    arguments.check_divides(name, "num_heads", heads, units, what, fix)
    return units // heads


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Hyperparameters(HintsAtArguments):
    """A dataclass that compares by class and value, as static arguments of jit must.

    Attributes that a subclass sets without being a dataclass itself count as well. The
    docstring of a subclass describes the fields that its base classes do not describe.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherit_docs(cls)

    def __eq__(self, other: object) -> bool:
        """By class and value; 1 and True differ, since their programs may differ."""
        return type(self) is type(other) and self._value() == other._value()  # pyright: ignore[reportAttributeAccessIssue]

    def __hash__(self) -> int:
        return hash(self._value())

    def __repr__(self) -> str:
        """The values that differ from their defaults; functions by their names."""
        parts = []
        for name, field in self._attributes().items():
            value = getattr(self, name)
            if field is not None:
                # Typed, as NumPy's dtype float64 is equal to None.
                is_default = as_typed(value) == as_typed(field.default)
                if is_default or not (field.repr and field.compare):
                    continue
            parts.append(f"{name}={name_of(value)}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def __deepcopy__(self, memo: dict) -> "Hyperparameters":
        # Deep copies of functions would not be equal: share the functions.
        memo[id(self)] = twin = copy.copy(self)
        return twin

    # Pickles refer to activations by name: pickle does not find wrapped functions of
    # JAX, and those of a private module may move.
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
        """The names of all hyper-parameters, each with its field or None."""
        attributes: dict[str, Any] = {f.name: f for f in dataclasses.fields(self)}
        for name in getattr(self, "__dict__", {}):
            if not isinstance(getattr(type(self), name, None), cached_property):
                attributes.setdefault(name, None)
        return attributes
