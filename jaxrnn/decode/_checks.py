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
    wanted = f"{caller}: `{name}` must be integers [batch]"
    try:
        ids = jnp.asarray(start_ids)
    except (TypeError, ValueError):
        raise TypeError(f"{wanted}, got {describe(start_ids)}.") from None
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"{wanted}, got {describe(ids)}. Cast them to jnp.int32.")
    if ids.ndim != 1:
        raise ValueError(f"{wanted}, got {describe(ids)}. Give one id for each row.")
    return ids.astype(jnp.int32)


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
