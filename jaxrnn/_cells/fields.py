"""Checks of the hyper-parameters of built-in cells, and their final form."""

import dataclasses
import operator
from typing import Any

import jax.numpy as jnp

from .._autodiff.jax_internals import Tracer
from .._base.arguments import as_dtype
from .._base.errors import describe
from .._base.typing import DType
from .activations import resolve_activation
from .checks import check_floating


def set_common_fields(cell: Any) -> None:
    """Checks the fields that several cells have, and sets their final form."""
    name = type(cell).__name__
    for field in dataclasses.fields(cell):
        if field.name.endswith("initializer"):
            check_initializer(name, field.name, getattr(cell, field.name))
    set_field(cell, num_units=check_units(name, "num_units", cell.num_units))
    set_field(cell, activation=resolve_activation(name, cell.activation))
    set_field(cell, dtype=check_own_dtype(name, cell.dtype))
    if not isinstance(cell.name, str | None):
        raise TypeError(f"{name}: `name` must be a string, got {describe(cell.name)}.")


def set_field(cell: Any, **fields: Any) -> None:
    """Sets fields of a frozen dataclass; for `__post_init__` alone."""
    for name, value in fields.items():
        object.__setattr__(cell, name, value)


def check_units(cell: str, name: str, value: Any, least: int = 0) -> int:
    """The size `value` as an int.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is less than `least`.
    """
    try:
        units = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{cell}: `{name}` must be an integer, got {value!r}."
        ) from None
    if units < least:
        raise ValueError(f"{cell}: `{name}` must be at least {least}, got {units}.")
    return units


def check_number(cell: str, name: str, value: Any) -> float:
    """The number `value` as a float.

    Raises:
        TypeError: If it is not a number; an array would not be hashable.
    """
    if value is None or isinstance(value, Tracer | str | bool) or jnp.ndim(value):
        raise TypeError(
            f"{cell}: `{name}` must be a number, got {describe(value)}. "
            "Hyper-parameters are static: make a cell for each value."
        )
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"{cell}: `{name}` must be a number, got {describe(value)}."
        ) from None


def check_clip(cell: str, name: str, bound: Any) -> float | None:
    """The bound of a clip, or None for no clip.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is negative.
    """
    if bound is None:
        return None
    bound = check_number(cell, name, bound)
    if not bound >= 0:
        raise ValueError(f"{cell}: `{name}` must not be negative, got {bound}.")
    return bound


def check_initializer(cell: str, name: str, initializer: Any) -> None:
    """Raises TypeError unless `initializer` is None or a function."""
    if initializer is not None and not callable(initializer):
        raise TypeError(
            f"{cell}: `{name}` must be a function (key, shape, dtype), got "
            f"{describe(initializer)}. See jax.nn.initializers."
        )


def check_own_dtype(cell: str, dtype: Any) -> DType | None:
    """The dtype of a cell in canonical form, or None.

    Raises:
        ValueError: If it is neither floating nor complex.
    """
    if dtype is None:
        return None
    dtype = as_dtype(cell, dtype)
    check_floating(cell, "dtype", dtype)
    return dtype
