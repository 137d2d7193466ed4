"""Checks of single arguments, each a one-line call.

Messages have the form `<argument> must be <this>, got <that>. <Fix>.`
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax.export
import jax.numpy as jnp
import numpy as np

from .errors import KindError, describe, is_array, warn
from .expect import expect, sentence
from .math import is_traced, numpy_or_jax_array
from .typing import AxisSize, DType, UnboundCellLike

# On CPUs, an unrolled loop compiles to a larger program that is no faster. With 32
# unrolled steps (TensorFlow's default `parallel_iterations`), compilation would take
# ten times as long as without unrolling.
MAX_UNROLL = 4

# Steps, rows and units are counted with int32.
INT32_MAX = np.iinfo(np.int32).max
STATIC = "Under jit, close over the value or name the argument in `static_argnames`."

T = TypeVar("T")


def is_list_of(value: object, count: int) -> bool:
    """Whether `value` is a list or tuple of `count` entries."""
    return isinstance(value, tuple | list) and len(value) == count


def check_instance(name: str, value: T, kinds: Any, what: str, fix: str = "") -> T:
    """Returns the value; raises TypeError unless it has a type in `kinds`.

    `what` names the types in the message.
    """
    expect(isinstance(value, kinds), name, f"be {what}", value, fix, error=TypeError)
    return value


def check_function(name: str, value: T, what: str = "a function", fix: str = "") -> T:
    """Returns the value; raises TypeError unless it is callable and not a class."""
    is_function = callable(value) and not isinstance(value, type)
    expect(is_function, name, f"be {what}", value, fix, error=TypeError)
    return value  # pyright: ignore[reportReturnType]


def check_given(name: str, value: T | None, fix: str, what: str = "given") -> T:
    """Returns the value; raises ValueError if it is None."""
    expect(value is not None, name, f"be {what}", value, fix)
    return value  # pyright: ignore[reportReturnType]


def check_shape(
    name: str, array: Any, shape: tuple, must: str = "", fix: str = ""
) -> None:
    """Raises ValueError unless an array has shape `shape`; `must` may state a rule."""
    must = must or f"have shape {shape}"
    expect(jnp.shape(array) == shape, name, must, array, fix)


def check_rank(
    name: str,
    array: Any,
    least: int,
    axes: str,
    error: type[Exception] = ValueError,
    fix: str = "",
) -> None:
    """Raises if an array has fewer than `least` axes; the message lists `axes`."""
    must = f"have rank at least {least}, {axes}"
    expect(len(array.shape) >= least, name, must, array, fix, error)


def check_is_cell(name: str, cell: Any) -> None:
    """Raises TypeError unless `cell` is a bound cell or has the attributes of one."""
    if isinstance(cell, type):
        raise TypeError(
            f"`{name}` must be a bound cell, got {describe(cell)}. Create a cell, and "
            "pass `cell.bind(params)`."
        )
    if all(hasattr(cell, n) for n in ("bind", "init", "apply", "state_size")):
        raise TypeError(
            f"`{name}` must be a bound cell, got the unbound {cell!r}. Pass "
            f"`{name}.bind(params)`."
        )
    sizes = "output_size", "state_size"
    missing = [f"`{name}`" for name in sizes if not _has(cell, name)]
    if not (hasattr(cell, "zero_state") or hasattr(cell, "get_initial_state")):
        missing.append("`zero_state` or `get_initial_state`")
    if not callable(cell):
        missing.append("`__call__`")
    if missing:
        # Show only reprs of cells, because other reprs may be long.
        got = repr(cell) if hasattr(cell, "state_size") else describe(cell)
        if not isinstance(cell, list | tuple | Mapping | None):
            got += f", which lacks {', '.join(missing)}"
        is_fused = getattr(cell, "takes_sequences", False)
        what = "a cell that runs one step" if is_fused else "a bound cell"
        raise TypeError(
            f"`{name}` must be {what}, got {got}. {_fix_of_cell(name, cell)}"
        )


def _has(cell: object, name: str) -> bool:
    """Whether the cell or its class has the attribute; runs no property of the class.

    An AttributeError that a property raises would look like a missing attribute.
    """
    return hasattr(type(cell), name) or hasattr(cell, name)


def _fix_of_cell(name: str, cell: object) -> str:
    """What to do with an object that is not a cell."""
    if getattr(cell, "takes_sequences", False):
        bound = f"{name}.bind(params)" if hasattr(cell, "bind") else name
        return f"Call this cell directly: `{bound}(inputs, dtype=dtype)`."
    if hasattr(cell, "initialize_carry"):
        return "Convert a Flax cell with `as_cell` of `jaxrnn.linen` or `jaxrnn.nnx`."
    if isinstance(cell, list | tuple):
        one = f"For one layer, pass `{name}[0]`."
        return f"{one} For several layers, pass a bound `MultiRNNCell`."
    if isinstance(cell, Mapping):
        return "To pass parameters, bind them to their cell: `cell.bind(params)`."
    return (
        "Pass `cell.bind(params)`, or an object that implements `jaxrnn.RNNCellLike`."
    )


def check_is_unbound_cell(name: str, cell: object) -> None:
    """Raises TypeError unless `cell` can create its parameters."""
    kinds = () if isinstance(cell, type) else UnboundCellLike
    what = "an unbound cell, such as `jaxrnn.LSTMCell(64)`"
    check_instance(name, cell, kinds, what)


def as_dtype(dtype: DType, name: str = "dtype") -> DType:
    """The dtype that JAX uses for `dtype`: float32 for float64 unless x64 is on.

    If the returned dtype differs from `dtype`, the function warns as JAX does, unless
    `dtype` is a Python type.

    Raises:
        TypeError: If `dtype` does not name a dtype.
    """
    try:
        canonical = jax.dtypes.canonicalize_dtype(dtype)
        if dtype is None or canonical.kind in "OUSM":
            raise TypeError
        canonical = canonical.newbyteorder("=")
    except (TypeError, ValueError):  # Dtypes of random keys raise ValueError.
        raise TypeError(
            f"`{name}` must be a dtype such as jnp.float32, got {describe(dtype)}."
        ) from None
    is_python = any(dtype is kind for kind in (int, float, complex))
    if not is_python and np.dtype(dtype).newbyteorder("=") != canonical:
        warn(
            f"`{name}` is {np.dtype(dtype)}, but JAX uses {canonical}. Pass "
            f"{canonical}, or set `jax_enable_x64`."
        )
    return canonical


def as_unroll(parallel_iterations: object) -> int:
    """The number of steps to unroll per loop iteration, at most `MAX_UNROLL`.

    None and 0 select the default, which is one step. Unrolling may change results by
    rounding.

    Raises:
        TypeError: If `parallel_iterations` is negative or not an integer. For a
            non-integer, the error is also an `AssertionError`, as in TensorFlow.
    """
    if parallel_iterations is None:
        return 1
    try:
        steps = as_count("parallel_iterations", parallel_iterations, least=0)
    except TypeError as error:
        raise KindError(str(error)) from None
    except ValueError as error:
        raise TypeError(str(error)) from None
    return min(max(1, steps), MAX_UNROLL)


def as_count(
    name: str,
    count: Any,
    least: int = 1,
    fix: str = "Omit the argument to use the default.",
    most: int = INT32_MAX,
) -> int:
    """Returns `count` as an int; `most` defaults to the largest size of an axis.

    Raises:
        TypeError: If `count` is not an integer.
        ValueError: If `count` is not between `least` and `most`.
    """
    try:
        if isinstance(count, bool):
            raise TypeError
        number = operator.index(count)
    except TypeError:
        if is_traced(count) and "jit" not in fix:
            fix = STATIC
        raise TypeError(sentence(name, "be an integer", count, fix)) from None
    expect(number >= least, name, f"be at least {least}", number, fix)
    expect(number <= most, name, f"be at most {most}", number, fix)
    return number


def as_integers(
    name: str, values: Any, what: str, *shapes: tuple[int | None, ...]
) -> Any:
    """Converts integers to a NumPy array, or to a JAX array if they hold JAX arrays.

    Args:
        name: The name of the argument.
        values: The user's argument.
        what: A description of the expected integers, for messages.
        *shapes: The accepted shapes, in which None stands for any size.

    Raises:
        TypeError: If the values are not integers.
        ValueError: If their shape matches none of `shapes`.
    """
    try:
        array = numpy_or_jax_array(values)
    except (OverflowError, TypeError, ValueError):
        array = np.asarray(None)
    if not array.size and not is_array(values):  # NumPy reads [] as floats.
        array = array.astype(np.int32)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        is_list = isinstance(values, list | tuple) and array.dtype != object
        got = array if is_list else values
        raise TypeError(sentence(name, f"be {what}", got))
    for shape in shapes:
        sizes = zip(array.shape, shape, strict=False)
        if array.ndim == len(shape) and all(m in (n, None) for n, m in sizes):
            return array
    raise ValueError(sentence(name, f"be {what}", array))


def as_axis_size(name: str, size: AxisSize, fix: str = "") -> AxisSize:
    """Returns the size of an axis as an int; returns symbolic sizes unchanged.

    Raises:
        TypeError: If `size` is not an integer.
        ValueError: If `size` is negative or beyond int32.
    """
    if jax.export.is_symbolic_dim(size):
        return size
    return as_count(name, size, least=0, fix=fix)


def as_bool(name: str, value: object) -> bool:
    """Returns `value` as a Python bool.

    Raises:
        TypeError: If `value` is neither a Python nor a NumPy bool. Strings, numbers and
            traced arrays are rejected.
    """
    fix = STATIC if is_traced(value) else ""
    return bool(check_instance(name, value, bool | np.bool_, "True or False", fix))


def check_time_major(time_major: object) -> None:
    """Raises TypeError unless `time_major` is a bool."""
    as_bool("time_major", time_major)


def as_scope(scope: Any, default: str) -> str:
    """The name under which profiles show the loop's operations.

    Raises:
        TypeError: If `scope` is neither None nor a string.
    """
    scope = check_instance("scope", scope, str | None, "a string or None")
    return default if scope is None else scope


def check_both_lists(cells_fw: Any, cells_bw: Any) -> None:
    """Raises ValueError unless both lists have the same number of cells, 1 or more."""
    for name, cells in (("cells_fw", cells_fw), ("cells_bw", cells_bw)):
        if not isinstance(cells, Sequence) or not cells:
            is_list = isinstance(cells, Sequence)
            got = f"an empty {type(cells).__name__}" if is_list else describe(cells)
            raise ValueError(
                f"`{name}` must be a list of at least one cell, got {got}."
            )
    if len(cells_fw) != len(cells_bw):
        raise ValueError(
            "`cells_fw` and `cells_bw` must have the same depth, got "
            f"{len(cells_fw)} and {len(cells_bw)} cells."
        )
