"""`windows`: cuts long sequences along time, one window at a time."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from .._base.arguments import as_count, check_time_major
from .._base.errors import describe_leaves
from .._base.trees import serializable
from .._base.typing import Array, Lengths, PyTree
from .host import as_sources, cut, host_lengths


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LazyWindows(Sequence["Window"]):
    """A sequence of windows, each of which is computed on access and not stored.

    Attributes:
        window_at: A function that computes the window that begins at a given step. The
            function must support pickling, e.g. as a partial of a module's function.
        starts: The index of the first step of each window.
    """

    window_at: Callable[[int], "Window"]
    starts: range

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return LazyWindows(self.window_at, self.starts[i])
        return self.window_at(self.starts[i])

    def __iter__(self) -> Iterator["Window"]:
        # `Sequence.__iter__` would stop without an error if reading the data raised an
        # IndexError.
        return map(self.window_at, self.starts)

    def __repr__(self) -> str:
        return f"<{len(self)} windows>"


@serializable
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Window:
    """Consecutive steps of a batch of long sequences, as `windows` yields them.

    A `Window` is a pytree of NumPy arrays.

    Attributes:
        inputs: The nest with leaves `[batch, size, ...]`, or `[size, batch, ...]` if
            `time_major`; zeros past the end of the time axis.
        sequence_length: int32 `[batch]`, the length of each row in this window. None if
            `windows` received no lengths and `size` divides the number of steps.
        start: int32, the index of the window's first step in the sequences.
    """

    inputs: PyTree
    sequence_length: Array | np.ndarray | None
    start: Array | np.int32

    def __repr__(self) -> str:
        return f"Window(start={self.start}, inputs={describe_leaves(self.inputs)})"


def windows(
    inputs: PyTree,
    size: int,
    sequence_length: Lengths | None = None,
    *,
    time_major: bool = False,
) -> Sequence[Window]:
    """Cuts sequences into windows of `size` steps, in NumPy, outside of jit.

    All windows have the same structure and shapes, so they share one compilation. Each
    window is read on access. If `inputs` is an `np.memmap`, or any object with `shape`,
    `dtype` and slicing, only the windows in use are in memory.

    Args:
        inputs: `[batch, time, ...]`, or `[time, batch, ...]` if `time_major`; or a nest
            of such arrays (with labels, for example) that have the same time and batch
            sizes. If `inputs` is a `Packed`, the inputs of each window are a `Packed`.
        size: The number of steps in a window. If `size` does not divide the number of
            steps, the last window is padded with zeros.
        sequence_length: The length of each row, `[batch]`, integers, clamped to
            `[0, time]`. If None, all steps are valid.
        time_major: Whether time is the first axis.

    Returns:
        A sequence of `ceil(time / size)` windows. The result supports `len` and slices.
        For example, `windows(x, 25)[k:]` resumes an interrupted run at window k.

    Raises:
        TypeError: If an argument is traced or has the wrong type.
        ValueError: If `inputs` contains no array, if an array has fewer than two axes,
            or if the sizes of axes do not match; if `size` is below 1.

    Example:
        >>> import numpy as np, jaxrnn
        >>> x, ids = np.ones((2, 10, 3), np.float32), np.ones((2, 10), np.int32)
        >>> made = jaxrnn.windows((x, ids), 4, [10, 5])
        >>> len(made)
        3
        >>> for window in made:
        ...     print(window, window.sequence_length)
        Window(start=0, inputs=(float32[2, 4, 3], int32[2, 4])) [4 4]
        Window(start=4, inputs=(float32[2, 4, 3], int32[2, 4])) [4 1]
        Window(start=8, inputs=(float32[2, 4, 3], int32[2, 4])) [2 0]
    """
    size = as_count("size", size, fix="Pass the number of steps of a window.")
    check_time_major(time_major)
    inputs, time, batch_size = as_sources(inputs, time_major)
    if sequence_length is None:
        lengths = np.full(batch_size, time) if time % size else None
    else:
        lengths = host_lengths(sequence_length, batch_size, time)
    window_at = functools.partial(
        _window, inputs=inputs, size=size, lengths=lengths, time_major=time_major
    )
    return LazyWindows(window_at, range(0, time, size))


def _window(
    start: int,
    inputs: PyTree,
    size: int,
    lengths: np.ndarray | None,
    time_major: bool,
) -> Window:
    if lengths is not None:
        lengths = (lengths - start).clip(0, size).astype(np.int32)
    return Window(cut(inputs, start, size, time_major), lengths, np.int32(start))
