"""Checks of the arguments that drivers share, apart from arrays."""

import operator
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from .errors import KindError, describe
from .typing import DType

# Unrolling makes programs larger and, on the CPU, no faster; TensorFlow's usual 32
# would multiply the compile time by ten.
MAX_UNROLL = 4

# Steps, rows and units are counted in int32.
INT32_MAX = np.iinfo(np.int32).max


def check_is_cell(caller: str, name: str, cell: Any) -> None:
    """Raises TypeError for an object that is not a cell, and names what it lacks."""
    if isinstance(cell, type):
        raise TypeError(
            f"{caller}: `{name}` must be an RNNCell, got {describe(cell)}. Make "
            "one and bind it: `cell.bind(params)`."
        )
    if all(hasattr(cell, trait) for trait in ("bind", "init", "apply", "state_size")):
        raise TypeError(
            f"{caller}: `{name}` must be a bound cell, got the unbound {cell!r}. Bind "
            f"it to its parameters: `{name}.bind(params)`."
        )
    missing = [
        f"`{trait}`"
        for trait in ("output_size", "state_size")
        if not hasattr(cell, trait)
    ]
    if not (hasattr(cell, "zero_state") or hasattr(cell, "get_initial_state")):
        missing.append("`zero_state` or `get_initial_state`")
    if not callable(cell):
        missing.append("`__call__`")
    if not missing:
        return
    # The repr of a cell is short; that of anything else may be long.
    got = repr(cell) if hasattr(cell, "state_size") else describe(cell)
    if getattr(cell, "takes_sequences", False):
        raise TypeError(
            f"{caller}: `{name}` must be an RNNCell, got {describe(cell)}, which takes "
            "whole sequences. Call it: `cell.bind(params)(inputs, dtype=dtype)`."
        )
    fix = (
        "`jaxrnn.linen.as_cell` and `jaxrnn.nnx.as_cell` convert cells of Flax."
        if hasattr(cell, "initialize_carry")
        else "Give a bound cell, or an object that keeps the RNNCell protocol."
    )
    raise TypeError(
        f"{caller}: `{name}` must be an RNNCell, got {got}, which lacks "
        f"{', '.join(missing)}. {fix}"
    )


def as_dtype(caller: str, dtype: DType, name: str = "dtype") -> DType:
    """The dtype that JAX uses for `dtype`: float64 is float32 unless x64 is on.

    If these differ a warning is issued, as by JAX, unless `dtype` is a Python type.

    Raises:
        TypeError: If it does not name a dtype.
    """
    try:
        canonical = jax.dtypes.canonicalize_dtype(dtype)
        if dtype is None or canonical.kind in "OUSM":
            raise TypeError
    except (TypeError, ValueError):  # The latter for the dtype of random keys.
        raise TypeError(
            f"{caller}: `{name}` must name a dtype, got {dtype!r}. Use jnp.float32, "
            "say."
        ) from None
    is_python = any(dtype is kind for kind in (int, float, complex))
    if not is_python and np.dtype(dtype) != canonical:
        warnings.warn(
            f"{caller}: `{name}` is {np.dtype(dtype)}, for which JAX uses {canonical} "
            "unless `jax_enable_x64` is set.",
            stacklevel=3,
        )
    return canonical


def as_unroll(caller: str, parallel_iterations: Any) -> int:
    """How many steps to unroll in each loop iteration, from `parallel_iterations`.

    None and 0 mean the default, one step. Unrolling changes values by rounding at most.

    Raises:
        TypeError: If it is negative, or not an integer (also an `AssertionError`, as in
            TensorFlow).
    """
    if parallel_iterations is None:
        return 1
    name, errors = "parallel_iterations", (KindError, TypeError)
    return min(
        max(1, as_count(caller, name, parallel_iterations, 0, errors=errors)),
        MAX_UNROLL,
    )


def as_count(
    caller: str,
    name: str,
    count: Any,
    least: int = 1,
    fix: str = "Leave it out for the default.",
    errors: tuple[type[Exception], type[Exception]] = (TypeError, ValueError),
    most: int = INT32_MAX,
) -> int:
    """An integer from `least` to `most`, by default the largest size of an axis.

    Raises:
        TypeError: If it is not an integer; `errors[0]` takes its place.
        ValueError: If it is out of range; `errors[1]` takes its place.
    """
    not_integer, out_of_range = errors
    fix = fix and f" {fix}"
    try:
        if isinstance(count, bool):
            raise TypeError
        number = operator.index(count)
    except TypeError:
        raise not_integer(
            f"{caller}: `{name}` must be an integer, got {describe(count)}.{fix}"
        ) from None
    if not least <= number <= most:
        bound = f"at least {least}" if number < least else f"at most {most}"
        raise out_of_range(f"{caller}: `{name}` must be {bound}, got {number}.{fix}")
    return number


def as_axis_size(caller: str, name: str, size: Any, fix: str = "") -> Any:
    """The size of an axis, as by `as_count`; one of `jax.export` unchanged.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is negative, or beyond int32.
    """
    if jax.export.is_symbolic_dim(size):
        return size
    return as_count(caller, name, size, least=0, fix=fix)


def as_bool(caller: str, name: str, value: Any, fix: str = "") -> bool:
    """`value` as a Python bool; strings and numbers, which are truthy, are refused.

    Raises:
        TypeError: If it is neither a Python nor a NumPy bool; traced arrays are not.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(
            f"{caller}: `{name}` must be True or False, got {describe(value)}. "
            f"{fix}".rstrip()
        )
    return bool(value)


def check_time_major(caller: str, time_major: Any) -> None:
    """Raises TypeError unless `time_major` is a bool."""
    fix = "It is static: under jit, close over it or name it in `static_argnames`."
    as_bool(caller, "time_major", time_major, fix)


def is_function(value: Any) -> bool:
    """Whether `value` can be called for a result; a class makes an object instead."""
    return callable(value) and not isinstance(value, type)


def check_functions(caller: str, **functions: Any) -> None:
    """Raises TypeError unless the arguments of these names are functions."""
    for name, value in functions.items():
        if not is_function(value):
            raise TypeError(
                f"{caller}: `{name}` must be a function, got {describe(value)}."
            )


def as_scope(caller: str, scope: Any, default: str) -> str:
    """The name of the loop's operations in profiles.

    Raises:
        TypeError: If it is neither None nor a string.
    """
    if scope is None:
        return default
    if not isinstance(scope, str):
        raise TypeError(f"{caller}: `scope` must be a string, got {describe(scope)}.")
    return scope


def check_both_lists(caller: str, cells_fw: Any, cells_bw: Any) -> None:
    """Raises ValueError unless both are non-empty lists of the same number of cells."""
    for name, cells in (("cells_fw", cells_fw), ("cells_bw", cells_bw)):
        if not isinstance(cells, Sequence) or not cells:
            raise ValueError(
                f"{caller}: `{name}` must be a list of at least one cell, one for each "
                f"layer, got {describe(cells)}."
            )
    if len(cells_fw) != len(cells_bw):
        raise ValueError(
            f"{caller}: `cells_fw` and `cells_bw` must have the same depth, got "
            f"{len(cells_fw)} and {len(cells_bw)} cells."
        )
