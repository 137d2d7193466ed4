"""Steps cut out of arrays on the host, so that no more of them is read."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from .._autodiff.jax_internals import Tracer
from .._base.errors import describe, is_array, is_key


class Cuts(Sequence[Any]):
    """Windows that are cut when they are asked for, and not kept."""

    def __init__(self, cut_at: Callable[[int], Any], starts: range) -> None:
        self._cut_at, self._starts = cut_at, starts

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return Cuts(self._cut_at, self._starts[i])
        return self._cut_at(self._starts[i])

    def __iter__(self) -> Iterator[Any]:
        return map(self._cut_at, self._starts)

    def __repr__(self) -> str:
        return f"<{len(self)} windows>"


def as_source(where: str, name: str, leaf: Any) -> Any:
    """A leaf of rank 2 or more that is read no further than it is indexed.

    An array of JAX becomes NumPy's, whole: each of its slices would be a program.

    Raises:
        TypeError: If it is traced or no array.
        ValueError: If its rank is below 2.
    """
    check_known(where, name, leaf)
    if isinstance(leaf, jax.Array) and not is_key(leaf):
        leaf = np.asarray(leaf)
    can_be_cut = all(hasattr(leaf, x) for x in ("shape", "dtype", "__getitem__"))
    if (isinstance(leaf, np.ndarray) and not is_array(leaf)) or is_key(leaf):
        can_be_cut = False
    if not can_be_cut:
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


def check_known(where: str, name: str, leaf: Any) -> None:
    """Raises TypeError for what is traced."""
    if isinstance(leaf, Tracer):
        raise TypeError(
            f"{where}: `{name}` must be known, got traced {describe(leaf)}. Cut "
            "outside of jit, grad and vmap, and pass the windows in."
        )


def cut(source: Any, start: int, size: int, axis: int) -> np.ndarray:
    """A copy of `size` steps from step `start`, zeros where `source` has ended.

    Args:
        source: As `as_source` gives it.
        start: A step that it has.
        size: How many steps there are to be.
        axis: Its time axis, 0 or 1.
    """
    before = (slice(None),) * axis
    steps = np.asarray(source[*before, start : start + size])
    shape = (*steps.shape[:axis], size, *steps.shape[axis + 1 :])
    window = np.zeros(shape, steps.dtype)
    window[*before, : steps.shape[axis]] = steps
    return window
