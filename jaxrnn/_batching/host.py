"""Functions that read arrays on the host, slice by slice; they reject traced arrays."""

from typing import Any

import jax
import numpy as np

from .._base.errors import (
    InvalidType,
    InvalidValue,
    check_not_masked,
    describe,
    is_array,
)
from .._base.inputs import check_same_size, named_inputs
from .._base.lengths import as_lengths
from .._base.math import is_traced
from .._base.trees import check_structure, map_named, named_leaves
from .._base.typing import Lengths, PyTree


def check_known(name: str, tree: Any) -> None:
    """Raises TypeError for a traced array."""
    for full, leaf in named_leaves(name, tree):
        if is_traced(leaf):
            raise InvalidType(
                f"`{full}` must be concrete, got traced {describe(leaf)}. "
                "Call this function outside of jit, grad and vmap, and pass in its "
                "results."
            )


def host_lengths(lengths: Lengths, batch_size: int) -> np.ndarray:
    """The lengths as a NumPy array, int32 `[batch]`, not negative; see `as_lengths`."""
    check_known("sequence_length", lengths)
    with jax.ensure_compile_time_eval():  # Allows constants to be read inside a trace.
        return np.asarray(as_lengths(lengths, batch_size))


def as_sources(
    inputs: PyTree, time_major: bool, fix: str = ""
) -> tuple[PyTree, int, int]:
    """Arrays that can be read slice by slice, and their time and batch sizes.

    JAX arrays become NumPy arrays, because JAX would compile a program for each slice.

    Raises:
        TypeError: If a leaf is traced or not an array.
        ValueError: If there are no arrays, if an array has fewer than two axes, or if
            the arrays differ in the number of steps or the batch size.
    """
    axes = "[time, batch, ...]" if time_major else "[batch, time, ...]"
    as_leaf = lambda name, leaf: _as_source(name, leaf, f"{axes}. {fix}")
    inputs = map_named("inputs", as_leaf, inputs)
    named = named_inputs(inputs)
    check_same_size(named, slice(2), "Time and batch", axes, fix)
    shape = named[0][1].shape
    return inputs, *(shape[:2] if time_major else shape[1::-1])


def _as_source(name: str, leaf: Any, axes: str) -> Any:
    if leaf is None or isinstance(leaf, jax.Array | np.ndarray):
        return as_host_array(name, leaf, 2, axes)
    if not all(hasattr(leaf, x) for x in ("shape", "dtype", "__getitem__")):
        raise InvalidType(
            f"`{name}` must be an array, got {describe(leaf)}. A list is a "
            "nest of its elements; convert it with np.asarray."
        )
    _check_rank(name, leaf, leaf.shape, 2, axes)
    return leaf


def as_host_array(name: str, leaf: Any, rank: int, axes: str) -> np.ndarray:
    """A leaf as a NumPy array.

    Raises:
        TypeError: If the leaf is traced, or not an array.
        ValueError: If the leaf is None, or its rank is below `rank`.
    """
    if leaf is None:
        reason = "None values not supported"
        raise InvalidValue(f"`{name}` must be an array: {reason}.")
    check_known(name, leaf)
    check_not_masked(name, leaf)
    try:
        array = np.asarray(leaf)
    except TypeError:  # Random keys cannot be converted to NumPy arrays.
        array = np.asarray(None)
    if not is_array(array):
        raise InvalidType(f"`{name}` must be an array, got {describe(leaf)}.")
    _check_rank(name, leaf, array.shape, rank, axes)
    return array


def _check_rank(
    name: str, leaf: Any, shape: tuple[int, ...], rank: int, axes: str
) -> None:
    if len(shape) < rank:
        raise InvalidValue(
            f"`{name}` must have rank at least {rank}, got {describe(leaf)}. "
            f"The axes must be {axes}".rstrip()
        )


def cut(sources: PyTree, start: int, size: int, time_major: bool) -> PyTree:
    """A copy of `size` steps from step `start`, padded with zeros at the end.

    Args:
        sources: Arrays, as `as_sources` returns them.
        start: The first step, less than the number of steps of `sources`.
        size: The number of steps of the result.
        time_major: Whether time is the first axis, rather than the second.
    """
    axis = 0 if time_major else 1
    before = (slice(None),) * axis

    def cut_one(source: Any) -> np.ndarray:
        steps = np.asarray(source[*before, start : start + size])
        shape = (*steps.shape[:axis], size, *steps.shape[axis + 1 :])
        window = np.zeros(shape, steps.dtype.newbyteorder("="))
        window[*before, : steps.shape[axis]] = steps
        return window

    return jax.tree.map(cut_one, sources)


def check_like(name: str, want: PyTree, got: PyTree, fix: str, skip: int = 0) -> None:
    """Raises an error unless `got` has the structure, dtypes and shapes of `want`.

    Args:
        name: The name of `got`, for messages.
        want: The nest of arrays that `got` must match.
        got: The nest that is checked.
        fix: The end of each message, which tells the user what to do.
        skip: The number of leading axes that may differ.
    """
    check_structure(f"`{name}`", want, got, strict=True, fix=fix)
    what = "have the dtype and step shape of" if skip else "be"
    kind = lambda leaf: leaf if leaf is None else (leaf.shape[skip:], leaf.dtype)
    pairs = zip(named_leaves(name, want), named_leaves(name, got), strict=True)
    for (full, like), (_, leaf) in pairs:
        if kind(like) != kind(leaf):
            raise InvalidValue(
                f"`{full}` must {what} {describe(like)}, got "
                f"{describe(leaf)}. {fix}".rstrip()
            )
