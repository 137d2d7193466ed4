"""Reversal of the valid steps of each row, for runs in the backward direction."""

import jax

from .._base.arguments import as_count, check_instance
from .._base.errors import expect
from .._base.hints import with_hints
from .._base.inputs import as_array
from .._base.math import move_axes
from .._base.sharding import as_rows_of
from .._base.trees import map_named
from .._base.typing import Lengths, PyTree
from .._run import reorder
from .arguments import as_reversed_lengths, check_reversible


@with_hints
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
        seq_lengths: The length of each row, `[batch]`, integers. As in TensorFlow,
            lengths outside of `[0, time]` raise an error. Traced lengths are instead
            clamped to `[0, time]`, as in `dynamic_rnn`.
        seq_axis: The time axis; required. Negative axes are not allowed.
        batch_axis: The axis of the rows. Default: 0.
        name: The name of the operation in profiles; "ReverseSequence" by default.

    Returns:
        An array with the shape and dtype of `input`, or a nest of such arrays.

    Raises:
        TypeError: If `input` is not an array or a nest of arrays, the lengths are not
            integers, or an axis is not an integer.
        ValueError: If an axis is out of range, both axes are equal, the number of
            lengths is not the number of rows, a known length is out of range, the
            arrays of a nest differ in the number of rows or steps, or an explicit mesh
            divides the steps.

    Example:
        >>> import jax.numpy as jnp, jaxrnn
        >>> x = jnp.array([[1, 2, 3, 4], [5, 6, 7, 8]])
        >>> print(jaxrnn.reverse_sequence(x, [3, 2], seq_axis=1))
        [[3 2 1 4]
         [6 5 7 8]]

    Source: `tf.reverse_sequence`. TensorFlow stacks a list of arrays into one array;
    this function reverses a nest leaf by leaf.
    """
    check_instance("name", name, str | None, "a string or None")
    fix = "For inputs `[batch, time, ...]`, pass `seq_axis=1` and `batch_axis=0`."
    time = as_count("seq_axis", seq_axis, least=0, fix=fix)
    rows = 0 if batch_axis is None else as_count("batch_axis", batch_axis, 0, fix)
    must = f"differ from `batch_axis`, {rows}"
    expect(time != rows, "seq_axis", must, time, fix)
    arrays = map_named("input", as_array, input)
    check_reversible(arrays, time, rows)
    shape = jax.tree.leaves(arrays)[0].shape
    lengths = as_reversed_lengths(seq_lengths, shape[time], shape[rows])
    # Move rows and time to the first two axes, without swapping rows and time.
    first_axes = (1, 0) if time < rows else (0, 1)
    with jax.named_scope(name or "ReverseSequence"):
        arrays = move_axes(arrays, (rows, time), first_axes)
        lengths = as_rows_of(arrays, lengths, first_axes[0])
        arrays = reorder.reverse_sequence(arrays, lengths, time_major=time < rows)
        return move_axes(arrays, first_axes, (rows, time))
