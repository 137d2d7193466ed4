"""Slices of long arrays on the host, read only when they are needed."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from .._base.errors import describe, is_array, is_key
from .host import check_known


class LazyWindows(Sequence[Any]):
    """A sequence of windows, each computed on access and not stored."""

    def __init__(self, window_at: Callable[[int], Any], starts: range) -> None:
        self._window_at, self._starts = window_at, starts

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return LazyWindows(self._window_at, self._starts[i])
        return self._window_at(self._starts[i])

    def __iter__(self) -> Iterator[Any]:
        return map(self._window_at, self._starts)

    def __repr__(self) -> str:
        return f"<{len(self)} windows>"


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
    slices = all(hasattr(leaf, x) for x in ("shape", "dtype", "__getitem__"))
    if (isinstance(leaf, np.ndarray) and not is_array(leaf)) or is_key(leaf):
        slices = False
    if not slices:
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
