"""Arrays that are read on the host: never traced, and sliced when they are needed."""

from typing import Any

import jax
import numpy as np

from .._base.math import is_traced
from .._base.errors import check_not_masked, describe, is_array, is_key
from .._base.inputs import check_same_size, named_inputs
from .._base.lengths import as_lengths
from .._base.trees import map_named
from .._base.typing import Lengths, PyTree


def check_known(where: str, name: str, leaf: Any) -> None:
    """Raises TypeError for a traced array."""
    if is_traced(leaf):
        raise TypeError(
            f"{where}: `{name}` must be known, got traced {describe(leaf)}. Call "
            f"`{where}` outside of jit, grad and vmap; what it yields can be passed in."
        )


def host_lengths(where: str, lengths: Lengths, batch_size: int) -> np.ndarray:
    """The lengths as int32 `[batch]` in NumPy, none negative; see `as_lengths`."""
    for leaf in jax.tree.leaves(lengths):
        check_known(where, "sequence_length", leaf)
    with jax.ensure_compile_time_eval():  # Works on constants inside a trace, too.
        return np.asarray(as_lengths(where, lengths, batch_size))


def time_and_batch(
    where: str, inputs: PyTree, time_major: bool, fix: str = ""
) -> tuple[int, int]:
    """The number of steps and the batch size of a nest of arrays.

    Raises:
        ValueError: If there are no arrays, or they disagree in either.
    """
    named = named_inputs(where, inputs)
    axes = "[time, batch, ...]" if time_major else "[batch, time, ...]"
    check_same_size(where, named, slice(2), "Time and batch", axes, fix)
    shape = named[0][1].shape
    return shape[:2] if time_major else shape[1::-1]


def as_source(where: str, name: str, leaf: Any) -> Any:
    """A leaf of rank 2 or more that can be sliced without being read as a whole.

    A JAX array becomes a NumPy array: JAX would compile a program for each slice.

    Raises:
        TypeError: If it is traced or not an array.
        ValueError: If its rank is below 2.
    """
    check_known(where, name, leaf)
    check_not_masked(where, name, leaf)
    if isinstance(leaf, jax.Array) and not is_key(leaf):
        leaf = np.asarray(leaf)
    no_numbers = is_key(leaf) or (isinstance(leaf, np.ndarray) and not is_array(leaf))
    can_slice = all(hasattr(leaf, x) for x in ("shape", "dtype", "__getitem__"))
    if no_numbers or not can_slice:
        raise TypeError(
            f"{where}: `{name}` must be an array, got {describe(leaf)}. A list is a "
            "nest of its elements: make it one array by np.asarray."
        )
    if len(leaf.shape) < 2:
        raise ValueError(
            f"{where}: `{name}` must have rank at least 2, got {describe(leaf)}. Batch "
            "and time are its first axes."
        )
    return leaf


def cut(source: Any, start: int, size: int, axis: int) -> np.ndarray:
    """A copy of `size` steps from step `start`, padded with zeros at the end.

    Args:
        source: An array, as `as_source` returns it.
        start: The first step, less than the number of steps of `source`.
        size: The number of steps of the result.
        axis: The time axis, 0 or 1.
    """
    before = (slice(None),) * axis
    steps = np.asarray(source[*before, start : start + size])
    shape = (*steps.shape[:axis], size, *steps.shape[axis + 1 :])
    window = np.zeros(shape, steps.dtype)
    window[*before, : steps.shape[axis]] = steps
    return window


def from_padded(
    where: str, inputs: PyTree, sequence_length: Lengths, time_major: bool
) -> tuple[PyTree, np.ndarray, int]:
    """The valid steps of padded inputs, their lengths and the size of the time axis.

    Returns:
        `(steps, lengths, time)`, each leaf of `steps` `[sum(lengths), ...]`.

    Raises:
        TypeError: If a leaf is traced or not an array, or lengths are not integers.
        ValueError: If there are no arrays, a rank is below 2, or axes disagree.
    """
    axes = "[time, batch, ...]" if time_major else "[batch, time, ...]"
    fix = "A list of sequences goes without `sequence_length`."

    def check(name: str, leaf: Any) -> np.ndarray:
        return as_host_array(where, name, leaf, 2, f"{axes}. {fix}")

    arrays = map_named("inputs", check, inputs)
    time, batch_size = time_and_batch(where, arrays, time_major, fix)
    lengths = host_lengths(where, sequence_length, batch_size).clip(max=time)
    alive = np.arange(time) < lengths[:, None]
    rows_first = lambda x: np.swapaxes(x, 0, 1) if time_major else x
    return jax.tree.map(lambda x: rows_first(x)[alive], arrays), lengths, time


def as_host_array(where: str, name: str, leaf: Any, rank: int, fix: str) -> np.ndarray:
    """A leaf as a NumPy array.

    Raises:
        TypeError: If it is traced, or not an array.
        ValueError: If it is None, or its rank is below `rank`.
    """
    if leaf is None:
        raise ValueError(
            f"{where}: `{name}` must be an array: None values not supported."
        )
    check_known(where, name, leaf)
    check_not_masked(where, name, leaf)
    try:
        array = np.asarray(leaf)
    except TypeError:  # Random keys have no NumPy form.
        array = np.asarray(None)
    if not is_array(array):
        raise TypeError(f"{where}: `{name}` must be an array, got {describe(leaf)}.")
    if array.ndim < rank:
        raise ValueError(
            f"{where}: `{name}` must have rank at least {rank}, got {describe(leaf)}, "
            f"not {fix}"
        )
    return array
