"""Checks of the indices, shapes and values of a `TensorArray`."""

from typing import Any

import jax.numpy as jnp
from jax.experimental import checkify

from .._base.arguments import as_axis_size, as_integers, check_shape, shape_text
from .._base.errors import EntryError, is_array
from .._base.expect import expect
from .._base.inputs import as_array
from .._base.math import cast_if_weak, cast_number, clamped_to_int32, concrete_or_none
from .._base.trees import named_dims
from .._base.typing import Array, ArrayLike, DType
from .store import Indices, known_or_traced


def check_each(
    ok: Any,
    name: str,
    must: str,
    indices: Indices,
    fix: str = "",
    error: type[Exception] = ValueError,
) -> None:
    """`expect` for booleans, one for each index; traced ones raise under `checkify`."""
    known = concrete_or_none(ok)
    if known is None:
        checkify.debug_check(jnp.all(ok), f"`{name}` must {must}")
    else:
        expect(known.all(), name, must, indices.tolist(), fix, error)


def check_range(name: str, indices: Indices, length: Indices, fix: str = "") -> None:
    """Raises an EntryError if an index is outside `[0, length)`; see `check_each`."""
    inside = (indices >= 0) & (indices < length)
    known = concrete_or_none(length)
    must = f"be in [0, {'size' if known is None else known})"
    check_each(inside, name, must, indices, fix, EntryError)


def as_value(value: ArrayLike, dtype: DType, shape: tuple) -> Array:
    """Returns the value as an array; casts a Python number to `dtype` if possible.

    Raises:
        TypeError: If the value has another dtype.
        ValueError: If the value has another shape; see `check_shape`.
    """
    cast = cast_if_weak if is_array(value) else cast_number
    array = cast(as_array("value", value), dtype)
    expect(array.dtype == dtype, "value", f"be {dtype}", array, error=TypeError)
    check_shape("value", array, shape)
    return array


def as_indices(name: str, values: ArrayLike, *shape: int | None) -> Indices:
    """Integers of shape `shape` as int32, in NumPy if they are known.

    Integers beyond int32 are clamped, so they stay out of range of the array.

    Raises:
        TypeError: If `values` are not integers.
        ValueError: If `values` do not have this shape.
    """
    what = f"integers {shape_text(shape)}" if shape else "an integer"
    return known_or_traced(clamped_to_int32(as_integers(name, values, what, shape)))


def as_element_shape(shape: Any) -> tuple[int | None, ...] | None:
    """The shape as a tuple, with None for unknown sizes; None if `shape` is None."""
    if shape is None:
        return None
    named = named_dims("element_shape", shape)
    return tuple(d if d is None else as_axis_size(n, d) for n, d in named.items())
