"""Checks of the indices, sizes, shapes and values of a `TensorArray`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from .._base.errors import (
    InvalidEntry,
    InvalidType,
    InvalidValue,
    describe,
    is_array,
)
from .._base.inputs import as_array
from .._base.math import cast_if_weak, cast_number, concrete_or_none
from .._base.tensor_shape import TensorShape
from .._base.typing import Array, ArrayLike, DType
from .store import Indices


def check_range(indices: Indices, length: Any) -> None:
    """Raises ValueError if a known index is outside `[0, length)`.

    Traced indices raise errors only under `checkify`.
    """
    known = concrete_or_none(indices)
    known_length = concrete_or_none(length)
    if known is None or known_length is None:
        inside = (indices >= 0) & (indices < length)
        checkify.debug_check(jnp.all(inside), "an index is out of range")
        return
    outside = known[(known < 0) | (known >= known_length)]
    if outside.size:
        raise InvalidEntry(
            f"an index must be in [0, {known_length}), got {outside.flat[0]}. `size` "
            "sets the bound."
        )


def check_first_write(indices: Indices, written: Indices) -> None:
    """Raises ValueError if a known index was `written` before.

    Traced indices raise errors only under `checkify`.
    """
    known = concrete_or_none(written)
    if known is None:
        checkify.debug_check(~jnp.any(written), "an index was written before")
    elif known.any():
        index = np.asarray(indices)[known].flat[0]
        raise InvalidValue(
            f"each index must be written once, got {index} again. A write returns a "
            "new array, and does not change the old array."
        )


def check_element(shape: tuple, want: TensorShape | None) -> None:
    """Raises ValueError unless `shape` matches `want`; None matches any size."""
    if want is None:
        return
    sizes = zip(want, shape, strict=False)
    if len(want) != len(shape) or any(w not in (None, size) for w, size in sizes):
        raise InvalidValue(f"elements must have shape {list(want)}, got {list(shape)}.")


def as_value(value: ArrayLike, dtype: DType) -> Array:
    """Returns the value as an array; casts a Python number to `dtype` if possible.

    Raises:
        TypeError: If the value has another dtype.
    """
    cast = cast_if_weak if is_array(value) else cast_number
    array = cast(as_array("value", value), dtype)
    if array.dtype != dtype:
        raise InvalidType(f"`value` must be {dtype}, got {describe(array)}.")
    return array


def as_integers(name: str, values: ArrayLike, rank: int) -> Indices:
    """Converts integers to int32, in NumPy unless `values` is a JAX array.

    Raises:
        TypeError: If `values` are not integers.
        ValueError: If `values` do not have rank `rank`.
    """
    array = values if isinstance(values, jax.Array) else np.asarray(values)
    if array.size == 0 and not is_array(values):
        array = array.astype(np.int32)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise InvalidType(f"`{name}` must hold integers, got {describe(values)}.")
    if array.ndim != rank:
        raise InvalidValue(f"`{name}` must have rank {rank}, got {describe(array)}.")
    if array.dtype.itemsize >= 4:  # Keep indices beyond int32 out of range.
        array = array.clip(max(-1, np.iinfo(array.dtype).min), np.iinfo(np.int32).max)
    array = array.astype(np.int32)
    return array if isinstance(array, jax.Array) else np.asarray(array)


def as_element_shape(shape: Any) -> tuple[int | None, ...] | None:
    """Returns the shape as a tuple, with None for unknown axes, or returns None."""
    if shape is None:
        return None
    dims = [shape] if isinstance(shape, int) else shape
    return tuple(None if d is None else TensorShape([d])[0] for d in dims)


def as_size(size: Any) -> Any:
    """Returns the size as an int; returns a symbolic size of `jax.export` unchanged.

    Raises:
        ValueError: If the size is None, negative or beyond int32.
        TypeError: If the size is not an integer, or is traced.
    """
    if size is None:
        raise InvalidValue("`size` must be given, got None.")
    if jax.export.is_symbolic_dim(size):
        return size
    known = concrete_or_none(as_integers("size", size, rank=0))
    if known is None:
        raise InvalidType(f"`size` must be static, got {describe(size)}.")
    if not 0 <= known < np.iinfo(np.int32).max:
        raise InvalidValue(f"`size` must be in [0, 2**31), got {size}.")
    return int(known)
