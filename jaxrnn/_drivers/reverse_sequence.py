"""Reversal of the valid steps of each row, for runs in the backward direction."""

from typing import Any

import jax
import jax.numpy as jnp

from .._base.arguments import as_count, check_given, check_instance, check_shape
from .._base.errors import InvalidValue, describe
from .._base.inputs import as_array, check_same_size
from .._base.lengths import as_given_lengths, lengths_array
from .._base.math import concrete_or_none
from .._base.sharding import as_rows_of
from .._base.trees import map_named, named_leaves
from .._base.typing import Array, Lengths, PyTree
from .._batching.packed_sequences import check_not_packed
from .._loops import masking


def reverse_sequence(
    input: PyTree,
    seq_lengths: Lengths,
    seq_axis: int | None = None,
    batch_axis: int | None = None,
    name: str | None = None,
) -> PyTree:
    """Reverses the first `seq_lengths[b]` steps of each row b.

    The other steps, which are padding, stay in place. To run only a backward direction,
    reverse the inputs, run `dynamic_rnn` with the same lengths, and reverse the
    outputs. The final state needs no reversal.

    Args:
        input: An array of any dtype, for example `[batch, time, ...]`; or a nest of
            such arrays, each of which is reversed.
        seq_lengths: The length of each row, `[batch]`, integers. Lengths outside of
            `[0, time]` raise an error, as in TensorFlow, unless they are traced. Traced
            lengths are clamped to `[0, time]`, as in drivers.
        seq_axis: The time axis; required. Negative axes are not allowed.
        batch_axis: The axis of the rows; None for 0.
        name: The name of the operation in profiles; "ReverseSequence" by default.

    Returns:
        An array with the shape and dtype of `input`, or a nest of such arrays.

    Raises:
        TypeError: If `input` is not an array or a nest of arrays, the lengths are not
            integers, or an axis is not an integer.
        ValueError: If an axis is out of range, both axes are equal, the number of
            lengths is not the number of rows, a known length is out of range, or the
            arrays of a nest differ in the number of rows or steps, or an explicit mesh
            divides the steps.

    Example:
        >>> import jax.numpy as jnp, jaxrnn
        >>> x = jnp.array([[1, 2, 3, 4], [5, 6, 7, 8]])
        >>> print(jaxrnn.reverse_sequence(x, [3, 2], seq_axis=1))
        [[3 2 1 4]
         [6 5 7 8]]

    Source: `tf.reverse_sequence`. TensorFlow stacks a list of arrays to one array; this
    function reverses a nest leaf by leaf.
    """
    check_not_packed(input)
    check_instance("name", name, str | None, "a string")
    time, rows = _axes(seq_axis, 0 if batch_axis is None else batch_axis)
    arrays = _arrays(input, time, rows)
    shape = jax.tree.leaves(arrays)[0].shape
    lengths = _lengths(seq_lengths, shape, time, rows)
    with jax.named_scope(name or "ReverseSequence"):
        if {rows, time} == {0, 1}:
            lengths = as_rows_of(arrays, lengths, rows)
            return masking.reverse_sequence(arrays, lengths, time_major=time == 0)
        arrays = jax.tree.map(lambda x: jnp.moveaxis(x, (rows, time), (0, 1)), arrays)
        lengths = as_rows_of(arrays, lengths)
        arrays = masking.reverse_sequence(arrays, lengths, time_major=False)
        return jax.tree.map(lambda x: jnp.moveaxis(x, (0, 1), (rows, time)), arrays)


def _axes(seq_axis: Any, batch_axis: Any) -> tuple[int, int]:
    """The checked axes of time and rows."""
    fix = (
        "Count axes from the first one, 0; inputs `[batch, time, ...]` have time at 1."
    )
    time = as_count("seq_axis", seq_axis, 0, fix)
    rows = as_count("batch_axis", batch_axis, 0, fix)
    if time == rows:
        raise InvalidValue(
            f"`seq_axis` must differ from `batch_axis`, got {time} for "
            "both. Omitted, `batch_axis` is 0; for `[time, batch, ...]` arrays, pass "
            "`seq_axis=0` and `batch_axis=1`."
        )
    return time, rows


def _arrays(input: Any, time: int, rows: int) -> PyTree:
    """The nest with arrays as leaves, which have equal numbers of rows and steps.

    Raises:
        TypeError: If a leaf is not an array.
        ValueError: If there is no array, if the arrays lack an axis or differ in size
            along it, or if an explicit mesh divides the steps.
    """
    arrays = map_named("input", lambda n, x: as_array(n, x), input)
    named = list(named_leaves("input", arrays))
    if not named:
        raise InvalidValue(
            f"`input` must hold at least one array, got {describe(input)}."
        )
    for name, array in named:
        for own, axis in (("seq_axis", time), ("batch_axis", rows)):
            if axis >= array.ndim:
                raise InvalidValue(
                    f"`{own}` must be less than the rank of `{name}`, "
                    f"{array.ndim}, got {axis} for {describe(array)}."
                )
        divided = jax.typeof(array).sharding.spec[time]
        if divided is not None:
            raise InvalidValue(
                f"`{name}` must not be divided along axis {time}, its time, "
                f"got {describe(array)} divided over {divided!r}. Divide the rows: use "
                "`jax.sharding.reshard`."
            )
    for axis, what in ((time, "The number of steps"), (rows, "The number of rows")):
        check_same_size(named, axis, what, f"along axis {axis}")
    return arrays


def _lengths(seq_lengths: Any, shape: tuple[int, ...], time: int, rows: int) -> Array:
    """The lengths as int32 `[batch]`, at most the number of steps.

    Raises:
        TypeError: If the lengths are not integers.
        ValueError: If there is not one length for each row, or a known length is out of
            range.
    """
    fix = "To reverse all steps of all rows, use `jnp.flip(input, seq_axis)`."
    check_given("seq_lengths", seq_lengths, fix)
    given, steps = lengths_array(seq_lengths, "seq_lengths"), shape[time]
    must = f"be a vector of {shape[rows]} lengths, one for each row along axis {rows}"
    check_shape("seq_lengths", given, (shape[rows],), must)
    lengths = as_given_lengths(given, shape[rows], "seq_lengths")
    known = concrete_or_none(given)
    if known is not None and isinstance(steps, int):
        wrong = known[(known < 0) | (known > steps)]
        if wrong.size:
            raise InvalidValue(
                f"`seq_lengths` must be between 0 and {steps}, the size of "
                f"axis {time}, got {wrong[0]}. Clamp them: "
                f"`np.clip(seq_lengths, 0, {steps})`."
            )
    return jnp.minimum(lengths, steps)
