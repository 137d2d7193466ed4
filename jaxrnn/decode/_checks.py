"""Functions that check and convert the arguments of decoders."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .._base.arguments import INT32_MAX, as_count
from .._base.errors import InvalidType, InvalidValue, describe, is_array
from .._base.math import clamped_to_int32, concrete_or_none, numpy_or_jax_array
from .._base.typing import Array


def as_start_ids(start_ids: Any, name: str = "start_ids") -> Array:
    """Converts the start ids to int32 `[batch]`.

    Traced ids beyond int32 are clamped.

    Raises:
        TypeError: If the ids are not integers.
        ValueError: If the ids are not a vector, or a known id is beyond int32.
    """
    wanted = f"`{name}` must be integers [batch]"
    ids = as_integers(wanted, start_ids)
    if ids.ndim != 1:
        raise InvalidValue(f"{wanted}, got {describe(ids)}. Pass one id per row.")
    known = None if np.can_cast(ids.dtype, np.int32) else concrete_or_none(ids)
    if known is not None and (known != (clamped := clamped_to_int32(known))).any():
        worst = known[known != clamped][0]
        raise InvalidValue(
            f"{wanted} that fit int32, got {worst}. Pass ids below 2**31."
        )
    return jnp.asarray(clamped_to_int32(ids))


def as_sequences(ids: Any, rows: int) -> Array:
    """Converts given sequences to int32 `[rows, time]` or `[rows, beam, time]`.

    Ids beyond int32 are clamped, so they stay outside any vocabulary.

    Raises:
        TypeError: If the ids are not integers.
        ValueError: If the number of axes or rows is wrong.
    """
    wanted = "`ids` must be integers [batch, time] or [batch, beam, time]"
    ids = as_integers(wanted, ids)
    if ids.ndim not in (2, 3) or ids.shape[0] != rows:
        raise InvalidValue(
            f"{wanted} with {rows} rows, got {describe(ids)}. For each of `start_ids`, "
            "pass one sequence, or one sequence per beam."
        )
    return jnp.asarray(clamped_to_int32(ids))


def as_integers(wanted: str, ids: Any) -> Array | np.ndarray:
    """Converts ids to an array of integers of any dtype.

    Raises:
        TypeError: If the ids are not integers; the message begins with `wanted`.
    """
    try:
        array = numpy_or_jax_array(ids)
    except (OverflowError, TypeError, ValueError):
        fix = "Pass an array of int32."
        raise InvalidType(f"{wanted}, got {describe(ids)}. {fix}") from None
    if jnp.issubdtype(array.dtype, jnp.integer):
        return array
    is_castable = array.dtype == bool or jnp.issubdtype(array.dtype, jnp.number)
    fix = "Cast them to jnp.int32." if is_castable else "Pass an array of int32."
    is_list = isinstance(ids, list | tuple)
    got = describe(array if is_castable and is_list else ids)
    raise InvalidType(f"{wanted}, got {got}. {fix}")


def as_int(name: str, value: Any, least: int, fix: str, most: int = INT32_MAX) -> int:
    """Checks that a static integer is between `least` and `most`, and returns it.

    Raises:
        TypeError: If the value is not an integer, or is traced.
        ValueError: If the value is out of range.
    """
    fix += " It is static: under jit, close over it or name it in `static_argnames`."
    return as_count(name, value, least, fix, most=most)


class Range(NamedTuple):
    """A range of numbers, with a description for messages and a predicate."""

    words: str
    holds: Callable[[float], bool]


FINITE = Range("finite", math.isfinite)
POSITIVE = Range("positive and finite", lambda x: x > 0 and math.isfinite(x))
PROBABILITY = Range("in (0, 1]", lambda x: 0 < x <= 1)


def as_number(name: str, value: Any, within: Range, fix: str) -> Any:
    """Checks a real number or array scalar and returns it.

    The range of a traced value is not checked.

    Raises:
        TypeError: If the value is not a real number.
        ValueError: If the value is not a scalar, or is outside the range.
    """
    wanted = f"`{name}` must be {within.words}"
    is_number = is_array(value) or isinstance(value, int | float)
    dtype = jnp.result_type(value) if is_number else jnp.dtype(bool)
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.integer, jnp.floating)):
        raise InvalidType(f"{wanted}, got {describe(value)}. {fix}")
    if np.shape(value) != ():
        raise InvalidValue(
            f"{wanted}, got {describe(value)}. All rows share one number."
        )
    known = concrete_or_none(value)
    if known is not None and not within.holds(float(known)):
        raise InvalidValue(f"{wanted}, got {float(known):g}. {fix}")
    return value
