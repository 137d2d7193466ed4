"""Arrays as they are read on the host: nothing traced, sliced when they are needed."""

from typing import Any

import jax
import numpy as np

from .._autodiff.jax_internals import Tracer
from .._base.errors import describe, is_array, is_key
from .._base.inputs import check_same_size, named_inputs
from .._base.lengths import as_lengths
from .._base.typing import ArrayLike, PyTree


def check_known(where: str, name: str, leaf: Any) -> None:
    """Raises TypeError for a traced array."""
    if isinstance(leaf, Tracer):
        raise TypeError(
            f"{where}: `{name}` must be known, got traced {describe(leaf)}. Call "
            f"`{where}` outside of jit, grad and vmap, and pass the result in."
        )


def host_lengths(where: str, lengths: ArrayLike, batch_size: int) -> np.ndarray:
    """The lengths as int32 `[batch]` in NumPy, none negative; see `as_lengths`."""
    for leaf in jax.tree.leaves(lengths):
        check_known(where, "sequence_length", leaf)
    with jax.ensure_compile_time_eval():  # Works on constants inside of a trace, too.
        return np.asarray(as_lengths(where, lengths, batch_size))


def time_and_batch(
    where: str, inputs: PyTree, time_major: bool, fix: str = ""
) -> tuple[int, int]:
    """The time steps and batch size of a nest of arrays.

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

    A JAX array becomes a NumPy array: each of its slices would be a program.

    Raises:
        TypeError: If it is traced or not an array.
        ValueError: If its rank is below 2.
    """
    check_known(where, name, leaf)
    if isinstance(leaf, jax.Array) and not is_key(leaf):
        leaf = np.asarray(leaf)
    is_odd = is_key(leaf) or (isinstance(leaf, np.ndarray) and not is_array(leaf))
    slices = all(hasattr(leaf, x) for x in ("shape", "dtype", "__getitem__"))
    if is_odd or not slices:
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
