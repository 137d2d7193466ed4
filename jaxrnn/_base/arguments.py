"""Checks of the arguments that drivers share, apart from arrays."""

import operator
import warnings
from collections.abc import Sequence
from typing import Any

import jax.export
import numpy as np

from .errors import KindError, Words, describe, refusal
from .typing import DType

# Unrolling makes programs larger and, on the CPU, no faster; TensorFlow's usual 32
# would multiply the compile time by ten.
MAX_UNROLL = 4

# Steps, rows and units are counted in int32.
INT32_MAX = np.iinfo(np.int32).max


def check_is_cell(caller: str, name: str, cell: Any) -> None:
    """Raises TypeError for an object that is not a cell, and names what it lacks."""
    missing = [f"`{n}`" for n in ("output_size", "state_size") if not hasattr(cell, n)]
    if not (hasattr(cell, "zero_state") or hasattr(cell, "get_initial_state")):
        missing.append("`zero_state` or `get_initial_state`")
    if not callable(cell):
        missing.append("`__call__`")
    unbound = all(hasattr(cell, n) for n in ("bind", "init", "apply", "state_size"))
    if not (missing or unbound or isinstance(cell, type)):
        return
    must = "be an RNNCell"
    if isinstance(cell, type):
        got, fix = describe(cell), "Make one and bind it: `cell.bind(params)`."
    elif unbound:
        must, got = "be a bound cell", f"the unbound {cell!r}"
        fix = f"Bind it to its parameters: `{name}.bind(params)`."
    elif getattr(cell, "takes_sequences", False):
        got = f"{describe(cell)}, which takes whole sequences"
        fix = "Call it: `cell.bind(params)(inputs, dtype=dtype)`."
    else:
        # The repr of a cell is short; that of anything else may be long.
        got = repr(cell) if hasattr(cell, "state_size") else describe(cell)
        got += f", which lacks {', '.join(missing)}"
        fix = "Give a bound cell, or an object that keeps the RNNCell protocol."
        if hasattr(cell, "initialize_carry"):
            of_flax = "`jaxrnn.linen.as_cell` and `jaxrnn.nnx.as_cell`"
            fix = f"{of_flax} convert cells of Flax."
        elif isinstance(cell, list | tuple):
            fix = "`MultiRNNCell` makes one of several: bind that."
    raise TypeError(refusal(caller, name, must, Words(got), fix))


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
        got, fix = Words(repr(dtype)), "Use jnp.float32, say."
        raise TypeError(refusal(caller, name, "name a dtype", got, fix)) from None
    is_python = any(dtype is kind for kind in (int, float, complex))
    if not is_python and np.dtype(dtype) != canonical:
        instead = f"for which JAX uses {canonical} unless `jax_enable_x64` is set"
        text = f"{caller}: `{name}` is {np.dtype(dtype)}, {instead}."
        warnings.warn(text, stacklevel=3)
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
    errors = KindError, TypeError
    steps = parallel_iterations
    steps = as_count(caller, "parallel_iterations", steps, 0, errors=errors)
    return min(max(1, steps), MAX_UNROLL)


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
    try:
        if isinstance(count, bool):
            raise TypeError
        number = operator.index(count)
    except TypeError:
        raise not_integer(refusal(caller, name, "be an integer", count, fix)) from None
    if not least <= number <= most:
        bound = f"be at least {least}" if number < least else f"be at most {most}"
        raise out_of_range(refusal(caller, name, bound, number, fix))
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
        raise TypeError(refusal(caller, name, "be True or False", value, fix))
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
            raise TypeError(refusal(caller, name, "be a function", value))


def as_scope(caller: str, scope: Any, default: str) -> str:
    """The name of the loop's operations in profiles.

    Raises:
        TypeError: If it is neither None nor a string.
    """
    if not isinstance(scope, str | None):
        raise TypeError(refusal(caller, "scope", "be a string", scope))
    return default if scope is None else scope


def check_both_lists(caller: str, cells_fw: Any, cells_bw: Any) -> None:
    """Raises ValueError unless both are non-empty lists of the same number of cells."""
    for name, cells in (("cells_fw", cells_fw), ("cells_bw", cells_bw)):
        if not isinstance(cells, Sequence) or not cells:
            must = "be a list of at least one cell, one for each layer"
            raise ValueError(refusal(caller, name, must, cells))
    if len(cells_fw) != len(cells_bw):
        got = Words(f"{len(cells_fw)} and {len(cells_bw)} cells")
        names = "cells_fw` and `cells_bw"
        raise ValueError(refusal(caller, names, "have the same depth", got))
