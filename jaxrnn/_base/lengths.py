"""Sequence lengths, checked, clamped, and sharded like the rows of the inputs."""

from typing import Any

import jax
import jax.numpy as jnp

from .arguments import as_integers, check_shape
from .errors import check_not_masked, is_array
from .expect import expect
from .math import clamped_to_int32, is_float
from .sharding import as_rows_of
from .typing import Array, Lengths, PyTree

FIX = (
    "Cast lengths to jnp.int32. Pass a mask as `mask=`, a state as `initial_state=`, "
    "and a dtype as `dtype=`."
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
    lengths = as_integer_lengths(sequence_length, name)
    must = f"be a vector of length batch_size ({batch_size}), one entry per row"
    is_time = lengths.shape == (time,)
    fix = f"The inputs have {time} steps: check `time_major`." if is_time else ""
    fix = fix or f"For rows of equal length n, pass `[n] * {batch_size}`."
    check_shape(name, lengths, (batch_size,), must, fix)
    clamped = _clamped_on_device if isinstance(lengths, jax.Array) else _clamped
    return jnp.asarray(clamped(lengths))


def _clamped(lengths: Any) -> Any:
    return clamped_to_int32(lengths).clip(0)


# Clamping is compiled, so that calls do not transfer the bounds to the device.
_clamped_on_device = jax.jit(_clamped)


def as_integer_lengths(given: Lengths, name: str = "sequence_length") -> Any:
    """Lengths of any shape as a NumPy or JAX array of integers.

    Raises:
        ValueError: If a list is ragged.
        TypeError: If the lengths are not integers, or a masked array.
    """
    check_not_masked(name, given)
    return as_integers(name, given, "integers, one for each row", fix=FIX)


def check_not_inputs(sequence_length: Any, call: str) -> None:
    """Raises TypeError for inputs in place of lengths, as in `rnn(carry, inputs)`."""
    given = sequence_length
    is_inputs = is_array(given) and given.ndim > 2 and is_float(given)
    must = f"be integers, one for each row, after the inputs: `{call}`"
    expect(not is_inputs, "sequence_length", must, given, error=TypeError)
