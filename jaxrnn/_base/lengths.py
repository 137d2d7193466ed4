"""Sequence lengths, checked, clamped, and sharded like the rows of the inputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .arguments import check_shape
from .errors import check_not_masked, describe_leaves, is_array
from .expect import expect
from .math import clamped_to_int32, is_float, numpy_or_jax_array
from .sharding import as_rows_of
from .typing import Array, Lengths, PyTree

OF_A_MASK = (
    "Pass `mask` to `dynamic_rnn`, `bidirectional_dynamic_rnn` or a module. If a mask "
    "[batch, time] masks only the ends of rows, `mask.sum(-1)` gives the lengths."
)


def lengths_for(
    sequence_length: Lengths | None, xs: PyTree, time: int, batch_axis: int
) -> Array | None:
    """The lengths, clamped to `time` and sharded like the rows of `xs`, or None.

    Args:
        sequence_length: The user's argument.
        xs: Inputs with rows along `batch_axis` and time along the other of the first
            two axes.
        time: The number of steps.
        batch_axis: 0 or 1.

    Raises:
        TypeError, ValueError: See `as_lengths`.
    """
    batch_size = jax.tree.leaves(xs)[0].shape[batch_axis]
    lengths = as_lengths(sequence_length, batch_size, time=time)
    if lengths is None:
        return None
    return as_rows_of(xs, jnp.minimum(lengths, time), batch_axis)


def as_lengths(
    sequence_length: Lengths | None,
    batch_size: int,
    name: str = "sequence_length",
    time: int | None = None,
) -> Array | None:
    """The lengths as non-negative int32 `[batch]`, or None if there are no lengths.

    Values beyond int32 are clamped; in TensorFlow, such values wrap around.

    Args:
        sequence_length: The user's argument.
        batch_size: The number of rows.
        name: The argument's name in messages.
        time: The number of steps; if the number of lengths is wrong but equals `time`,
            the message suggests that `time_major` may be wrong.

    Raises:
        TypeError: If the lengths are not integers; booleans are refused.
        ValueError: If the lengths are not a vector of `batch_size` entries.
    """
    if sequence_length is None:
        return None
    return as_given_lengths(sequence_length, batch_size, name, time)


def as_given_lengths(
    given: Lengths,
    batch_size: int,
    name: str = "sequence_length",
    time: int | None = None,
) -> Array:
    """`as_lengths` for lengths that are not None."""
    lengths = as_integer_lengths(given, name)
    must = f"be a vector of length batch_size ({batch_size}), one entry per row"
    fix = ""
    if lengths.ndim == 0:
        fix = f"For rows of equal length n, pass `np.full({batch_size}, n)`."
    elif lengths.shape == (batch_size, 1):
        fix = f"Pass `{name}[:, 0]`."
    elif lengths.shape == (time,):
        fix = f"The inputs have {time} steps: check `time_major`."
    check_shape(name, lengths, (batch_size,), must, fix)
    clamped = _clamped_on_device if isinstance(lengths, jax.Array) else _clamped
    return jnp.asarray(clamped(lengths))


def _clamped(lengths: Any) -> Any:
    return clamped_to_int32(lengths).clip(0)


# Clamping is compiled, so that calls do not transfer the bounds to the device.
_clamped_on_device = jax.jit(_clamped)


def lengths_array(lengths: Any, name: str = "sequence_length") -> Array | np.ndarray:
    """Converts lists of lengths to NumPy or JAX arrays; returns arrays unchanged.

    A list becomes a JAX array only if it holds JAX arrays.

    Raises:
        ValueError: If a list is ragged.
        TypeError: If `lengths` is a string or a masked array.
    """
    check_not_masked(name, lengths)
    if is_array(lengths):
        return lengths
    is_text = isinstance(lengths, str)
    fix = "Pass one integer per row."
    expect(not is_text, name, "hold integers", lengths, fix, error=TypeError)
    try:
        array = numpy_or_jax_array(lengths)
    except (ValueError, TypeError):
        raise ValueError(
            f"`{name}` must hold one integer for each row, got "
            f"{describe_leaves(lengths)}."
        ) from None
    return array if array.size else array.astype(np.int32)


def as_integer_lengths(
    given: Lengths, name: str = "sequence_length"
) -> Array | np.ndarray:
    """`lengths_array` for integers; raises TypeError for other dtypes."""
    lengths = lengths_array(given, name)
    fix = _fix_of_dtype(lengths)
    is_integer = jnp.issubdtype(lengths.dtype, jnp.integer)
    # NumPy makes an array of one object from a value that it cannot convert.
    is_object = lengths.dtype == object and lengths.ndim == 0
    expect(
        is_integer,
        name,
        "hold integers",
        given if is_object else lengths,
        fix,
        error=TypeError,
    )
    return lengths


def _fix_of_dtype(lengths: Array | np.ndarray) -> str:
    """What to do about lengths that are not integers, for messages."""
    if lengths.dtype == bool:
        cast = "For lengths of 0 and 1, cast the array to jnp.int32."
        return cast if lengths.ndim < 2 else OF_A_MASK
    if lengths.ndim > 1:
        return "Pass one integer per row. Drivers take a state as `initial_state=`."
    if lengths.dtype == object:
        is_one = lengths.ndim == 0
        fix = "Pass one integer per row."
        return f"{fix} Drivers take a dtype as `dtype=`." if is_one else fix
    return "Cast the array to jnp.int32."


def check_not_inputs(sequence_length: Any, call: str) -> None:
    """Raises TypeError for inputs in place of lengths, as in `rnn(carry, inputs)`."""
    array = sequence_length
    is_inputs = is_array(array) and array.ndim > 2 and is_float(array)
    fix = f"Inputs come first: `{call}`."
    expect(
        not is_inputs, "sequence_length", "hold integers", array, fix, error=TypeError
    )
