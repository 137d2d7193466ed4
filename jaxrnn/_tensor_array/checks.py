"""Checks of the indices, shapes and values of a `TensorArray`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from .._base.arguments import as_axis_size, as_integers
from .._base.errors import EntryError, is_array
from .._base.expect import expect
from .._base.inputs import as_array
from .._base.math import cast_if_weak, cast_number, clamped_to_int32, concrete_or_none
from .._base.trees import named_dims
from .._base.typing import Array, ArrayLike, AxisSize, DType
from .store import Indices


def check_range(indices: Indices, length: Indices, fix: str = "") -> None:
    """Raises ValueError if a known index is outside `[0, length)`.

    Traced indices raise errors only under `checkify`. `fix` says what to do about an
    index that is too large.
    """
    known = concrete_or_none(indices)
    known_length = concrete_or_none(length)
    if known is None or known_length is None:
        inside = (indices >= 0) & (indices < length)
        message = "an index must be at least 0 and below the size of the TensorArray"
        checkify.debug_check(jnp.all(inside), message)
        return
    outside = known[(known < 0) | (known >= known_length)].tolist()
    if outside:
        text = f"an index must be in [0, {known_length}), got {outside[0]}."
        raise EntryError(f"{text} {fix if outside[0] >= 0 else ''}".rstrip())


def check_first_write(indices: Indices, written: Indices) -> None:
    """Raises ValueError if a known index was written before.

    Traced indices raise errors only under `checkify`.

    Args:
        indices: The indices to write.
        written: Booleans: whether each index was written before.
    """
    known = concrete_or_none(written)
    if known is None:
        message = "an index of a TensorArray must be written only once"
        checkify.debug_check(~jnp.any(written), message)
    elif known.any():
        index = np.asarray(indices)[known].flat[0]
        raise ValueError(
            f"each index must be written only once, got a second write to {index}."
        )


def check_count(
    name: str, entries: Any, count: AxisSize, of: str = "element", fix: str = ""
) -> None:
    """Raises ValueError unless there is one entry for each of `count` elements."""
    must = f"be [{count}, ...], one entry for each {of}"
    expect(entries.shape[:1] == (count,), name, must, entries, fix)


def as_value(value: ArrayLike, dtype: DType) -> Array:
    """Returns the value as an array; casts a Python number to `dtype` if possible.

    Raises:
        TypeError: If the value has another dtype.
    """
    cast = cast_if_weak if is_array(value) else cast_number
    array = cast(as_array("value", value), dtype)
    expect(array.dtype == dtype, "value", f"be {dtype}", array, error=TypeError)
    return array


def as_indices(name: str, values: ArrayLike, what: str, *shape: None) -> Indices:
    """Integers of shape `shape` as int32, in NumPy unless `values` hold JAX arrays.

    Integers beyond int32 are clamped, so they stay out of range of the array. `what`
    describes the expected integers in messages.

    Raises:
        TypeError: If `values` are not integers.
        ValueError: If `values` do not have this shape.
    """
    array = clamped_to_int32(as_integers(name, values, what, shape))
    return array if isinstance(array, jax.Array) else np.asarray(array)


def as_element_shape(shape: Any) -> tuple[int | None, ...] | None:
    """The shape as a tuple, with None for unknown sizes; None if `shape` is None."""
    if shape is None:
        return None
    named = named_dims("element_shape", shape)
    return tuple(d if d is None else as_axis_size(n, d) for n, d in named.items())
