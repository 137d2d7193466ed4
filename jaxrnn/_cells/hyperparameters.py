"""Hyper-parameters: checks that normalize them, and cells that compare by them."""

import copy
import dataclasses
import math
from functools import cached_property
from typing import Any

import jax.numpy as jnp

from .._base.arguments import as_bool, as_count, as_dtype, is_function
from .._base.errors import describe
from .._base.math import is_traced
from .._base.trees import as_typed
from .activations import ACTIVATIONS, resolve_activation
from .step_checks import check_floating


def set_common_fields(cell: Any) -> None:
    """Checks and normalizes the fields that several cells have."""
    where = type(cell).__name__
    set_bools(cell)
    for field in dataclasses.fields(cell):
        value = getattr(cell, field.name)
        is_initializer = field.name.endswith("initializer")
        if is_initializer and not (value is None or is_function(value)):
            raise TypeError(
                f"{where}: `{field.name}` must be a function (key, shape, dtype), got "
                f"{describe(value)}. See jax.nn.initializers."
            )
        elif field.name.endswith("activation"):
            function = resolve_activation(where, value, field.name)
            set_field(cell, **{field.name: function})
        elif field.name in ("num_units", "units"):
            set_field(cell, **{field.name: as_count(where, field.name, value, 0, "")})
        elif field.name == "forget_bias":
            set_field(cell, forget_bias=check_number(where, "forget_bias", value))
    if not isinstance(cell.name, str | None):
        raise TypeError(f"{where}: `name` must be a string, got {describe(cell.name)}.")
    if cell.dtype is not None:
        set_field(cell, dtype=as_dtype(where, cell.dtype))
        check_floating(where, "dtype", cell.dtype)


def set_bools(cell: Any) -> None:
    """Checks the fields whose default is True or False: they must be bools."""
    for field in dataclasses.fields(cell):
        if isinstance(field.default, bool):
            value = as_bool(type(cell).__name__, field.name, getattr(cell, field.name))
            set_field(cell, **{field.name: value})


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


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Hyperparameters:
    """A dataclass that compares by class and value, as static arguments of jit must.

    Attributes that a subclass sets without being a dataclass itself count as well.
    """

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
            # Typed, as NumPy's dtype float64 is equal to None.
            if field is None or (
                field.repr
                and field.compare
                and as_typed(value) != as_typed(field.default)
            ):
                shown = getattr(value, "__name__", None) or repr(value)
                parts.append(f"{name}={shown}")
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
        return tuple(
            (name, as_typed(getattr(self, name)))
            for name, field in self._attributes().items()
            if field is None or field.compare
        )

    def _attributes(self) -> dict[str, dataclasses.Field | None]:
        """The names of all hyper-parameters, each with its field or None."""
        attributes: dict[str, Any] = {f.name: f for f in dataclasses.fields(self)}
        for name in getattr(self, "__dict__", {}):
            if not isinstance(getattr(type(self), name, None), cached_property):
                attributes.setdefault(name, None)
        return attributes
