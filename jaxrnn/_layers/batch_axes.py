"""Merges the batch axes of sequences into one axis, and splits this axis again.

The drivers (`dynamic_rnn` and the other functions that run cells) require one batch
axis. Arrays that have one batch axis are not reshaped, so they keep their sharding.
"""

import math
from typing import TypeAlias

import jax
import numpy as np

from .._base.errors import counted, describe
from .._base.expect import expect
from .._base.inputs import OF_A_LIST, as_array, named_inputs, to_all_rows
from .._base.lengths import as_integer_lengths, check_not_inputs
from .._base.trees import map_named
from .._base.typing import Array, ArrayLike, DType, Lengths, PyTree
from .._batching.packed_sequences import check_not_packed
from .._cells.base import RNNCell

Shape: TypeAlias = tuple[int, ...]


def merge_inputs(
    cell: RNNCell,
    inputs: PyTree,
    sequence_length: Lengths | None,
    start: int,
    dtype: DType | None,
) -> tuple[PyTree, Array | None, Shape]:
    """The inputs and lengths with merged batch axes, and the sizes before merging.

    Args:
        cell: The cell that reads the inputs.
        inputs: As in the module's call.
        sequence_length: As in the module's call.
        start: The first batch axis: 1 if time is the first axis, otherwise 0.
        dtype: The dtype of the computation, or None.

    Raises:
        TypeError: If the lengths are not integers.
        ValueError: If the inputs do not have the axes that the cell and the lengths
            require.
    """
    check_not_packed(inputs)
    inputs = cast_integers(cell, dtype, map_named("inputs", as_array, inputs))
    lengths = None
    if sequence_length is not None:
        check_not_inputs(sequence_length, "rnn(inputs, lengths, initial_state=state)")
        lengths = as_integer_lengths(sequence_length)
    shape = _batch_shape(cell, inputs, lengths, start)
    inputs = merge("inputs", inputs, shape, start)
    return inputs, merge("sequence_length", lengths, shape), shape


def merge(name: str, tree: PyTree, shape: Shape, start: int = 0) -> PyTree:
    """Merges batch axes of sizes `shape` that follow `start` axes.

    None stays None, as in a pair of initial states. Scalars are shared by all rows, and
    stay unchanged.

    Raises:
        ValueError: If `shape` has several axes, and an array has other batch axes. The
            drivers check a single batch axis.
    """
    end = start + len(shape)

    def merged(name: str, leaf: ArrayLike | None) -> Array | np.ndarray | None:
        if leaf is None:
            return None
        # Keep NumPy arrays, because functions such as `dynamic_rnn` read the values of
        # lengths and masks that are not traced.
        array = leaf if type(leaf) is np.ndarray else as_array(name, leaf)
        if len(shape) == 1 or (end and not array.ndim):
            return array
        if array.shape[start:end] != shape:
            must = f"have the batch axes {list(shape)}{' after the time axis' * start}"
            fix = ""
            if array.ndim == 1 and not start:
                fix = to_all_rows((*shape, *array.shape))
            expect(False, name, must, array, fix)
        rows = math.prod(shape)
        return array.reshape(*array.shape[:start], rows, *array.shape[end:])

    return map_named(name, merged, tree)


def split(tree: PyTree, shape: Shape, start: int = 0) -> PyTree:
    """Splits the merged axis again; the inverse of `merge`."""

    def split(array: Array) -> Array:
        if array.ndim <= start:
            return array
        return array.reshape(*array.shape[:start], *shape, *array.shape[start + 1 :])

    return tree if len(shape) == 1 else jax.tree.map(split, tree)


def first_step(inputs: PyTree, batch_axis: int) -> PyTree:
    """The types of one step of `inputs`, which have one batch axis and a time axis."""

    def of_leaf(x: Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((x.shape[batch_axis], *x.shape[2:]), x.dtype)

    return jax.tree.map(of_leaf, inputs)


def _batch_shape(
    cell: RNNCell, inputs: PyTree, lengths: Array | np.ndarray | None, start: int
) -> Shape:
    """The batch axes: the axes of `lengths`, or all axes except time and features."""
    (name, first), *_ = named_inputs(inputs)
    features = getattr(cell, "feature_axes", None)
    if lengths is not None:
        count = lengths.ndim
    else:
        count = 1 if features is None else max(0, first.ndim - 1 - features)
    own = first.ndim - 1 - count
    if own < 1 if features is None else own != features:
        must = _axes_of_inputs(start, count, features, lengths)
        fix = _fix_of_axes(name, first, lengths, start, features or 1)
        fix = OF_A_LIST if isinstance(inputs, list) else fix
        if lengths is not None:
            given = f"`sequence_length` ({describe(lengths)})"
            fix = f"{given} sets the number of batch axes. {fix}"
        raise ValueError(f"`{name}` must {must}, got {describe(first)}. {fix}".rstrip())
    return first.shape[start : start + count]


def _fix_of_axes(
    name: str,
    inputs: Array,
    lengths: Array | np.ndarray | None,
    start: int,
    features: int,
) -> str:
    """What to do about inputs and lengths that differ in their batch axes."""
    shape = inputs.shape[start:]
    rows = shape[: inputs.ndim - 1 - features]
    if lengths is not None and inputs.ndim > features:
        if not lengths.ndim:
            return f"For rows of equal length n, pass `np.full({rows}, n)`."
        if lengths.shape == (*rows, 1):
            return "Pass `sequence_length[..., 0]`."
    batch = rows if lengths is None else lengths.shape
    has_batch = shape[: len(batch)] == batch
    if has_batch and inputs.ndim == len(batch) + features:
        return f"For one number per step, pass `{name}[..., None]`."
    return ""


def _axes_of_inputs(
    start: int, count: int, features: int | None, lengths: Array | np.ndarray | None
) -> str:
    """What the axes of inputs must be, for messages; there are `count` batch axes."""
    axes = "[time, *batch, ...]" if start else "[*batch, time, ...]"
    is_free = lengths is None and features is not None
    batch = counted(count, "batch axis", "batch axes")
    if is_free:
        batch = "any number of batch axes"
    of_row = "at least 1 feature axis"
    if features is not None:
        of_row = counted(features, "feature axis", "feature axes")
    return f"be {axes} with {batch}, 1 time axis and {of_row}"


def cast_integers(cell: RNNCell, dtype: DType | None, inputs: PyTree) -> PyTree:
    """The inputs; if the cell reads vectors, integers and bools are cast to `dtype`."""
    if dtype is None or getattr(cell, "feature_axes", None) != 1:
        return inputs

    def cast(x: Array) -> Array:
        return x.astype(dtype) if x.dtype.kind in "iub" else x

    return jax.tree.map(cast, inputs)
