"""Checks of the decoders' arguments, which also normalize them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .._base.arguments import INT32_MAX, as_count
from .._base.errors import describe, is_array
from .._base.math import concrete_or_none
from .._base.typing import Array


def as_start_ids(caller: str, start_ids: Any, name: str = "start_ids") -> Array:
    """The first ids as int32 `[batch]`.

    Raises:
        TypeError: If they are not integers.
        ValueError: If they are not a vector.
    """
    ids = _as_ids(wanted := f"{caller}: `{name}` must be integers [batch]", start_ids)
    if ids.ndim != 1:
        raise ValueError(f"{wanted}, got {describe(ids)}. Give one id for each row.")
    return ids.astype(jnp.int32)


def as_sequences(caller: str, ids: Any, rows: int) -> Array:
    """Given sequences as int32 `[rows, time]` or `[rows, beam, time]`.

    Raises:
        TypeError: If they are not integers.
        ValueError: If they have another number of axes or rows.
    """
    wanted = f"{caller}: `ids` must be integers [batch, time] or [batch, beam, time]"
    ids = _as_ids(wanted, ids)
    if ids.ndim not in (2, 3) or ids.shape[0] != rows:
        raise ValueError(
            f"{wanted} with {rows} rows, got {describe(ids)}. Give one sequence, or "
            "one for each beam, for each of `start_ids`."
        )
    return ids.astype(jnp.int32)


def _as_ids(wanted: str, ids: Any) -> Array:
    try:
        array = jnp.asarray(ids)
    except (TypeError, ValueError):
        raise TypeError(f"{wanted}, got {describe(ids)}.") from None
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{wanted}, got {describe(array)}. Cast them to jnp.int32.")
    return array


def as_int(
    caller: str, name: str, value: Any, least: int, fix: str, most: int = INT32_MAX
) -> int:
    """A static integer from `least` to `most`.

    Raises:
        TypeError: If it is not an integer, or traced.
        ValueError: If it is out of range.
    """
    fix += " It is static: under jit, close over it or name it in `static_argnames`."
    return as_count(caller, name, value, least, fix, most=most)


class Range(NamedTuple):
    """A range of numbers, in words and as a predicate."""

    words: str
    holds: Callable[[float], bool]


FINITE = Range("finite", math.isfinite)
POSITIVE = Range("positive and finite", lambda x: x > 0 and math.isfinite(x))
PROBABILITY = Range("in (0, 1]", lambda x: 0 < x <= 1)


def as_number(caller: str, name: str, value: Any, within: Range, fix: str) -> Any:
    """A real number or an array scalar; unless it is traced, its range is checked.

    Raises:
        TypeError: If it is not a real number.
        ValueError: If it has axes, or is outside its range.
    """
    wanted = f"{caller}: `{name}` must be {within.words}"
    is_number = is_array(value) or isinstance(value, int | float)
    dtype = jnp.result_type(value) if is_number else jnp.dtype(bool)
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.integer, jnp.floating)):
        raise TypeError(f"{wanted}, got {describe(value)}. {fix}")
    if np.shape(value) != ():
        raise ValueError(f"{wanted}, got {describe(value)}. It is one for all rows.")
    known = concrete_or_none(value)
    if known is not None and not within.holds(float(known)):
        raise ValueError(f"{wanted}, got {float(known):g}. {fix}")
    return value
