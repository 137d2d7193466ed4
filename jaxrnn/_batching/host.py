"""Arrays that are read on the host: never traced, and sliced when they are needed."""

from typing import Any

import jax
import numpy as np

from .._base.errors import check_not_masked, describe, is_array
from .._base.inputs import check_same_size, named_inputs
from .._base.lengths import as_lengths
from .._base.math import is_traced
from .._base.typing import Lengths, PyTree


def check_known(caller: str, name: str, leaf: Any) -> None:
    """Raises TypeError for a traced array."""
    if is_traced(leaf):
        raise TypeError(
            f"{caller}: `{name}` must be known, got traced {describe(leaf)}. Call "
            f"`{caller}` outside of jit, grad and vmap; what it yields can be passed "
            "in."
        )


def host_lengths(caller: str, lengths: Lengths, batch_size: int) -> np.ndarray:
    """The lengths as int32 `[batch]` in NumPy, none negative; see `as_lengths`."""
    for leaf in jax.tree.leaves(lengths):
        check_known(caller, "sequence_length", leaf)
    with jax.ensure_compile_time_eval():  # Works on constants inside a trace, too.
        return np.asarray(as_lengths(caller, lengths, batch_size))


def axes_of(time_major: bool) -> str:
    """The first axes of inputs, for messages."""
    return "[time, batch, ...]" if time_major else "[batch, time, ...]"


def time_and_batch(
    caller: str, inputs: PyTree, time_major: bool, fix: str = ""
) -> tuple[int, int]:
    """The number of steps and the batch size of a nest of arrays.

    Raises:
        ValueError: If there are no arrays, or they disagree in either.
    """
    named = named_inputs(caller, inputs)
    axes = axes_of(time_major)
    check_same_size(caller, named, slice(2), "Time and batch", axes, fix)
    shape = named[0][1].shape
    return shape[:2] if time_major else shape[1::-1]


def as_source(caller: str, name: str, leaf: Any, axes: str) -> Any:
    """A leaf of rank 2 or more that can be sliced without being read as a whole.

    A JAX array becomes a NumPy array: JAX would compile a program for each slice.

    Raises:
        TypeError: If it is traced or not an array.
        ValueError: If its rank is below 2.
    """
    if isinstance(leaf, jax.Array | np.ndarray):
        return as_host_array(caller, name, leaf, 2, axes)
    if not all(hasattr(leaf, x) for x in ("shape", "dtype", "__getitem__")):
        raise TypeError(
            f"{caller}: `{name}` must be an array, got {describe(leaf)}. A list is a "
            "nest of its elements: make it one array by np.asarray."
        )
    _check_rank(caller, name, leaf, leaf.shape, 2, axes)
    return leaf


def as_host_array(
    caller: str, name: str, leaf: Any, rank: int, axes: str
) -> np.ndarray:
    """A leaf as a NumPy array.

    Raises:
        TypeError: If it is traced, or not an array.
        ValueError: If it is None, or its rank is below `rank`.
    """
    if leaf is None:
        raise ValueError(
            f"{caller}: `{name}` must be an array: None values not supported."
        )
    check_known(caller, name, leaf)
    check_not_masked(caller, name, leaf)
    try:
        array = np.asarray(leaf)
    except TypeError:  # Random keys have no NumPy form.
        array = np.asarray(None)
    if not is_array(array):
        raise TypeError(f"{caller}: `{name}` must be an array, got {describe(leaf)}.")
    _check_rank(caller, name, leaf, array.shape, rank, axes)
    return array


def _check_rank(
    caller: str, name: str, leaf: Any, shape: tuple[int, ...], rank: int, axes: str
) -> None:
    if len(shape) < rank:
        raise ValueError(
            f"{caller}: `{name}` must have rank at least {rank}, got {describe(leaf)}, "
            f"not {axes}"
        )


def cut(source: Any, start: int, size: int, time_major: bool) -> np.ndarray:
    """A copy of `size` steps from step `start`, padded with zeros at the end.

    Args:
        source: An array, as `as_source` returns it.
        start: The first step, less than the number of steps of `source`.
        size: The number of steps of the result.
        time_major: Whether time is the first axis, rather than the second.
    """
    axis = 0 if time_major else 1
    before = (slice(None),) * axis
    steps = np.asarray(source[*before, start : start + size])
    shape = (*steps.shape[:axis], size, *steps.shape[axis + 1 :])
    window = np.zeros(shape, steps.dtype)
    window[*before, : steps.shape[axis]] = steps
    return window
