"""Sequence lengths, checked, clamped, and sharded like the rows of the inputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import check_not_masked, describe, describe_leaves, is_array
from .math import clamped_to_int32
from .sharding import as_rows_of
from .typing import Array, PyTree

OF_A_MASK = (
    "Pass a mask `[batch, time]` as `mask` of `dynamic_rnn`; the lengths of a mask "
    "without gaps are `mask.sum(-1)`."
)


def lengths_for(
    caller: str, sequence_length: Any, xs: PyTree, time: int, batch_axis: int
) -> Array | None:
    """The lengths, clamped to `time` and sharded like the rows of `xs`, or None.

    Args:
        caller: The driver, for messages.
        sequence_length: The driver's argument.
        xs: Inputs with rows along `batch_axis` and time along the other of the first
            two axes.
        time: The number of steps.
        batch_axis: 0 or 1.

    Raises:
        TypeError, ValueError: See `as_lengths`.
    """
    batch_size = jax.tree.leaves(xs)[0].shape[batch_axis]
    lengths = as_lengths(caller, sequence_length, batch_size)
    if lengths is None:
        return None
    return as_rows_of(xs, jnp.minimum(lengths, time), batch_axis)


def as_lengths(
    caller: str, sequence_length: Any, batch_size: int, name: str = "sequence_length"
) -> Array | None:
    """The lengths as non-negative int32 `[batch]`, or None if there are no lengths.

    Values beyond int32 are clamped; in TensorFlow, such values wrap around. `name` is
    the argument's name in messages.

    Raises:
        TypeError: If the lengths are not integers. TensorFlow's `dynamic_rnn` casts
            booleans to 0 and 1; its `bidirectional_dynamic_rnn` also raises TypeError.
        ValueError: If the lengths are not a vector of `batch_size` entries.
    """
    if sequence_length is None:
        return None
    lengths = lengths_array(caller, sequence_length, name)
    _check_integers(caller, lengths, name)
    if lengths.ndim != 1:
        fix = f"Pass one length per row; `np.full({batch_size}, n)` is n for every row."
        raise ValueError(
            f"{caller}: `{name}` must be a vector of length batch_size "
            f"({batch_size}), got {describe(lengths)}. {fix}"
        )
    if lengths.shape[0] != batch_size:
        axis = ", or the second with `time_major`" if name == "sequence_length" else ""
        raise ValueError(
            f"{caller}: `{name}` must have {batch_size} entries, one per row, "
            f"got {describe(lengths)}. Nothing is broadcast; rows are the first "
            f"axis{axis}."
        )
    clamped = _clamped_on_device if isinstance(lengths, jax.Array) else _clamped
    return jnp.asarray(clamped(lengths))


def _clamped(lengths: Any) -> Any:
    return clamped_to_int32(lengths).clip(0)


# Clamping is compiled, so that calls do not transfer the bounds to the device.
_clamped_on_device = jax.jit(_clamped)


def lengths_array(
    caller: str, lengths: Any, name: str = "sequence_length"
) -> Array | np.ndarray:
    """Converts lists of lengths to NumPy or JAX arrays; returns arrays unchanged.

    A list becomes a JAX array only if it holds JAX arrays.

    Raises:
        ValueError: If a list is ragged.
        TypeError: If `lengths` is a string or a masked array.
    """
    check_not_masked(caller, name, lengths)
    if is_array(lengths):
        return lengths
    if isinstance(lengths, str):
        raise TypeError(
            f"{caller}: `{name}` must hold integers, got {describe(lengths)}. Pass "
            "one integer per row."
        )
    holds_jax_arrays = any(isinstance(x, jax.Array) for x in jax.tree.leaves(lengths))
    try:
        # NumPy keeps 64-bit integers even if x64 is off.
        array = jnp.asarray(lengths) if holds_jax_arrays else np.asarray(lengths)
    except (ValueError, TypeError):
        raise ValueError(
            f"{caller}: `{name}` must hold one integer for each row, got "
            f"{describe_leaves(lengths)}."
        ) from None
    return array if array.size else array.astype(np.int32)


def _check_integers(caller: str, lengths: Array | np.ndarray, name: str) -> None:
    if jnp.issubdtype(lengths.dtype, jnp.integer):
        return
    fix = "Cast it to jnp.int32."
    if lengths.dtype == bool:
        fix = OF_A_MASK
    elif lengths.dtype == object or lengths.ndim != 1:
        fix = (
            "Pass one integer per row; pass a dtype as `dtype=`, and a state as "
            "`initial_state=`."
        )
    got = describe(lengths)
    raise TypeError(f"{caller}: `{name}` must hold integers, got {got}. {fix}")
