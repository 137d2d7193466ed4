"""`windows`: long sequences, cut along time one window at a time."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from .._base.arguments import as_count, check_time_major
from .._base.errors import describe_leaves
from .._base.serialization import serializable
from .._base.trees import map_named
from .._base.typing import Lengths, PyTree
from .host import as_source, cut, host_lengths, time_and_batch
from .packed_sequences import PackedSequences
from .packed_windows import packed_windows

_WHERE = "windows"


class LazyWindows(Sequence[Any]):
    """A sequence of windows, each computed on access and not stored."""

    def __init__(
        self, window_at: Callable[[int], Any], starts: range, make: Callable[[], Any]
    ) -> None:
        self._window_at, self._starts, self._make = window_at, starts, make

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return LazyWindows(self._window_at, self._starts[i], self._make)
        return self._window_at(self._starts[i])

    def __iter__(self) -> Iterator[Any]:
        return map(self._window_at, self._starts)

    def __repr__(self) -> str:
        return f"<{len(self)} windows>"

    def __reduce__(self) -> tuple:
        """Pickled as a call of `windows`, and which of these windows there are."""
        return self._make, (), {"_starts": self._starts}


@serializable
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Window:
    """Consecutive steps of a batch of long sequences, as `windows` yields them.

    A pytree of NumPy arrays.

    Attributes:
        inputs: The nest with leaves `[batch, size, ...]`, or `[size, batch, ...]` if
            `time_major`; zeros past the end of the time axis.
        sequence_length: int32 `[batch]`, the length of each row in this window; None if
            all rows fill all windows.
        start: int32, the step of the sequences at which the window starts.
    """

    inputs: PyTree
    sequence_length: Any
    start: Any

    def __repr__(self) -> str:
        return f"Window(start={self.start}, inputs={describe_leaves(self.inputs)})"


def windows(
    inputs: PyTree,
    size: int,
    sequence_length: Lengths | None = None,
    *,
    time_major: bool = False,
) -> Sequence[Any]:
    """Cuts sequences along time into windows, on the host, outside jit.

    All windows have the same structure and shapes, and so share one compilation. A
    window is read when it is accessed: of an `np.memmap`, or any object with `shape`,
    `dtype` and slicing, only one window is in memory at a time.

    Args:
        inputs: `[batch, time, ...]`, or `[time, batch, ...]` if `time_major`; or a nest
            of such arrays that agree in time and batch (labels, for example). Or
            `PackedSequences`.
        size: The number of steps of a window. The last one is padded with zeros.
        sequence_length: `[batch]`, integers, clamped to `[0, time]`; None for `time`.
        time_major: Whether time is the first axis.

    Returns:
        A sequence of `ceil(time / size)` windows: of `Window`, or of `PackedWindow` for
        `PackedSequences`. It has a length and slices: `windows(x, 25)[k:]` resumes an
        interrupted run.

    Raises:
        TypeError: If an argument is traced or of the wrong kind.
        ValueError: If `inputs` hold no array, a rank is below 2, or axes disagree; if
            `size` is below 1; if `sequence_length` or `time_major` are given with
            `PackedSequences`.

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
    size = as_count(_WHERE, "size", size, fix="It is the number of steps of a window.")
    check_time_major(_WHERE, time_major)
    if isinstance(inputs, PackedSequences):
        if sequence_length is not None or time_major:
            raise ValueError(
                f"{_WHERE}: `sequence_length` and `time_major` must not be given with "
                "PackedSequences, which have their own. Leave them out."
            )
        make = functools.partial(windows, inputs, size)
        return LazyWindows(*packed_windows(_WHERE, inputs, size), make)
    axis = 0 if time_major else 1
    inputs = map_named("inputs", lambda n, x: as_source(_WHERE, n, x), inputs)
    time, batch_size = time_and_batch(_WHERE, inputs, time_major)
    if sequence_length is None:
        lengths = np.full(batch_size, time) if time % size else None
    else:
        lengths = host_lengths(_WHERE, sequence_length, batch_size).clip(max=time)

    def window(start: int) -> Window:
        steps = jax.tree.map(lambda x: cut(x, start, size, axis), inputs)
        in_window = lambda lengths: (lengths - start).clip(0, size).astype(np.int32)
        return Window(steps, jax.tree.map(in_window, lengths), np.int32(start))

    make = functools.partial(
        windows, inputs, size, sequence_length, time_major=time_major
    )
    return LazyWindows(window, range(0, time, size), make)
