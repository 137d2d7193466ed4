"""What a `TensorArray` asks of its arguments: indices, sizes, shapes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from .._base.errors import EntryError, describe, is_array
from .._base.tensor_shape import TensorShape
from .store import Ragged, Rows, as_known


def check_range(where: str, indices: Any, length: Any) -> None:
    """Refuses what is out of range, at run time under `checkify` alone."""
    known, known_length = as_known(indices), as_known(length)
    if known is None or known_length is None:
        inside = (indices >= 0) & (indices < length)
        checkify.debug_check(jnp.all(inside), f"{where}: an index is out of range")
        return
    outside = known[(known < 0) | (known >= known_length)]
    if outside.size:
        raise EntryError(
            f"{where}: an index must lie in [0, {known_length}), got "
            f"{outside.flat[0]}. Negative ones do not count from the end."
        )


def check_first_write(where: str, indices: Any, store: Rows | Ragged) -> None:
    again = store.was_written(indices)
    known = as_known(again)
    if known is None:
        checkify.debug_check(~jnp.any(again), f"{where}: an index was written before")
    elif known.any():
        index = np.asarray(indices)[known].flat[0]
        raise ValueError(
            f"{where}: each index must be written once, got {index} again. A write "
            "returns a new array: in the old one the place is still free."
        )


def as_integers(where: str, name: str, values: Any, rank: int) -> Any:
    """Integers as int32, a NumPy array if they are known for sure.

    Raises:
        TypeError: If they are no integers.
        ValueError: If the rank is another.
    """
    array = values if isinstance(values, jax.Array) else np.asarray(values)
    if array.size == 0 and not is_array(values):
        array = array.astype(np.int32)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(
            f"{where}: `{name}` must be of integers, got {describe(values)}."
        )
    if array.ndim != rank:
        raise ValueError(
            f"{where}: `{name}` must have rank {rank}, got {describe(array)}."
        )
    if array.dtype.itemsize >= 4:  # Beyond int32 is out of range, and not to wrap.
        array = array.clip(max(-1, np.iinfo(array.dtype).min), np.iinfo(np.int32).max)
    array = array.astype(np.int32)
    return array if isinstance(array, jax.Array) else np.asarray(array)


def as_element_shape(shape: Any) -> tuple[int | None, ...] | None:
    if shape is None:
        return None
    dims = [shape] if isinstance(shape, int) else shape
    return tuple(None if d is None else TensorShape([d])[0] for d in dims)


def as_size(size: Any) -> int:
    if size is None:
        raise ValueError("TensorArray: `size` must be given, got None.")
    known = as_known(as_integers("TensorArray", "size", size, rank=0))
    if known is None:
        raise TypeError(
            f"TensorArray: `size` must be an int, got {describe(size)}. Under jit the "
            "room is static."
        )
    if not 0 <= known < np.iinfo(np.int32).max:
        raise ValueError(
            f"TensorArray: `size` must not be negative, and an int32, got {size}."
        )
    return int(known)
