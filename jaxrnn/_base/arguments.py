"""Checks one value or one array.

Checks of any value come first, then options, then arrays. `inputs.py` checks nests.

Messages have the form `<argument> must be <this>, got <that>. <Fix>.`
"""

import contextlib
import functools
import operator
from typing import Any, TypeVar

import jax.export
import jax.numpy as jnp
import numpy as np

from .errors import (
    check_not_masked,
    error_note,
    expect,
    is_array,
    warn,
)
from .math import is_traced
from .typing import AxisSize, DType

# Steps, rows and units are counted with int32.
INT32_MAX = np.iinfo(np.int32).max
STATIC = "Under jit, close over the value or name the argument in `static_argnames`."


T = TypeVar("T")


def is_list_of(value: object, count: int) -> bool:
    """Whether `value` is a list or tuple of `count` entries."""
    return isinstance(value, tuple | list) and len(value) == count


def check_instance(name: str, value: T, kinds: Any, what: str, fix: str = "") -> T:
    """Returns `value` if it is an instance of `kinds`; otherwise raises TypeError.

    `what` describes these types in the message, for example "a string".
    """
    expect(isinstance(value, kinds), name, f"be {what}", value, fix, error=TypeError)
    return value


def check_function(name: str, value: T, what: str = "a function", fix: str = "") -> T:
    """Returns the value; raises TypeError unless it is a function that JAX can trace.

    Classes and NumPy's ufuncs, such as `np.tanh`, are refused.

    Args:
        name: The name of the argument, for the message.
        value: The argument.
        what: What the argument must be, for the message.
        fix: What the caller can do, for the message.
    """
    is_function = callable(value) and not isinstance(value, type)
    expect(is_function, name, f"be {what}", value, fix, error=TypeError)
    if isinstance(value, np.ufunc):  # A ufunc fails on traced arrays.
        is_of_jax = hasattr(jnp, value.__name__)
        fix = (
            f"Pass `jnp.{value.__name__}`."
            if is_of_jax
            else "Write the function in JAX."
        )
        raise TypeError(f"`{name}` must be {what} of JAX arrays, got {value!r}. {fix}")
    return value  # pyright: ignore[reportReturnType]


def check_given(name: str, value: T | None, fix: str, what: str = "given") -> T:
    """Returns the value; raises ValueError if it is None."""
    expect(value is not None, name, f"be {what}", value, fix)
    return value  # pyright: ignore[reportReturnType]


def as_bool(name: str, value: object, fix: str = "") -> bool:
    """Returns `value` as a Python bool; errors call the value `name`.

    `fix` is the hint for a rejected value; a traced value gets the hint `STATIC`.

    Raises:
        TypeError: If `value` is neither a Python nor a NumPy bool. Strings, numbers and
            traced arrays are rejected.
    """
    fix = STATIC if is_traced(value) else fix
    return bool(check_instance(name, value, bool | np.bool_, "True or False", fix))


check_time_major = functools.partial(as_bool, "time_major")


def as_count(
    name: str,
    count: Any,
    least: int = 1,
    fix: str = "Omit the argument to use the default.",
    most: int = INT32_MAX,
) -> int:
    """Returns `count` as an int, if it is between `least` and `most`.

    Args:
        name: The name of the argument, for messages.
        count: The argument.
        least: The smallest value that is accepted.
        fix: The hint for a rejected value.
        most: The largest value that is accepted, by default the largest int32.

    Raises:
        TypeError: If `count` is not an integer.
        ValueError: If `count` is not between `least` and `most`.
    """
    number: Any = None
    with contextlib.suppress(TypeError):
        number = None if isinstance(count, bool) else operator.index(count)
    of_type = STATIC if is_traced(count) and "jit" not in fix else fix
    expect(number is not None, name, "be an integer", count, of_type, TypeError)
    expect(number >= least, name, f"be at least {least}", number, fix)
    expect(number <= most, name, f"be at most {most}", number, fix)
    return number


def as_axis_size(name: str, size: AxisSize, fix: str = "") -> AxisSize:
    """Returns the size of an axis as an int; returns symbolic sizes unchanged.

    Raises:
        TypeError: If `size` is not an integer.
        ValueError: If `size` is negative or beyond int32.
    """
    if jax.export.is_symbolic_dim(size):
        return size
    return as_count(name, size, least=0, fix=fix)


def as_dtype(dtype: DType, name: str = "dtype") -> DType:
    """Returns the dtype that JAX uses; without x64, float32 in place of float64.

    If the returned dtype differs from `dtype`, the function warns, as JAX does. Python
    types such as `float` cause no warning.

    Raises:
        TypeError: If `dtype` does not name a dtype.
    """
    try:
        canonical = jax.dtypes.canonicalize_dtype(dtype).newbyteorder("=")
    except (TypeError, ValueError):  # Dtypes of random keys raise ValueError.
        canonical = np.dtype(object)
    is_numeric = dtype is not None and canonical.kind not in "OUSM"
    must = "be a dtype such as jnp.float32"
    expect(is_numeric, name, must, dtype, error=TypeError)
    is_python = any(dtype is kind for kind in (int, float, complex))
    if not is_python and np.dtype(dtype).newbyteorder("=") != canonical:
        warn(
            f"`{name}` is {np.dtype(dtype)}, but JAX uses {canonical}. Pass "
            f"{canonical}, or set `jax_enable_x64`."
        )
    return canonical


def has_shape(array: Any, shape: tuple) -> bool:
    """Whether an array has `shape`.

    In `shape`, None matches any size, and a final `...` matches any number of axes.
    """
    got = np.shape(array)
    if shape and shape[-1] is ...:
        shape = shape[:-1]
        got = got[: len(shape)]
    sizes = zip(got, shape, strict=False)
    return len(got) == len(shape) and all(want in (n, None) for n, want in sizes)


def shape_text(shape: tuple) -> str:
    """A shape as accepted by `has_shape`, such as `[3, any, ...]`, for messages."""
    return str(list(shape)).replace("None", "any").replace("Ellipsis", "...")


def check_shape(
    name: str, array: object, shape: tuple, must: str = "", fix: str = ""
) -> None:
    """Raises ValueError unless `has_shape(array, shape)`.

    `must` replaces the words "have shape ..." in the message.
    """
    must = must or f"have shape {shape_text(shape)}"
    expect(has_shape(array, shape), name, must, array, fix)


def check_rank(name: str, array: Any, least: int, axes: str, fix: str = "") -> None:
    """Raises if an array has fewer than `least` axes; the message lists `axes`."""
    must = f"have rank at least {least}, {axes}"
    expect(len(array.shape) >= least, name, must, array, fix)


def as_integers(
    name: str, values: object, what: str, *shapes: tuple[int | None, ...], fix: str = ""
) -> Any:
    """Converts integers to a NumPy array, or to a JAX array if a leaf is a JAX array.

    Args:
        name: The name of the argument.
        values: The user's argument.
        what: A description of the expected integers, for messages.
        *shapes: The accepted shapes, in which None matches any size. Without
            `shapes`, any shape is accepted.
        fix: The hint for values that are not integers.

    Raises:
        TypeError: If the values are not integers, or are a masked array.
        ValueError: If they are ragged, or their shape matches none of `shapes`.
    """
    check_not_masked(name, values)
    must = f"be {what}"
    holds_jax_arrays = any(isinstance(x, jax.Array) for x in jax.tree.leaves(values))
    with error_note(f"`{name}` must {must}."):
        # NumPy keeps 64-bit integers even if x64 is off.
        array: Any = (jnp if holds_jax_arrays else np).asarray(values)
    if not array.size and not is_array(values):  # NumPy reads [] as floats.
        array = array.astype(np.int32)
    is_integer = jnp.issubdtype(array.dtype, jnp.integer)
    got = array if array.ndim else values
    expect(is_integer, name, must, got, fix, error=TypeError)
    fits = not shapes or any(has_shape(array, shape) for shape in shapes)
    expect(fits, name, must, array)
    return array
