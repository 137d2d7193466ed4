"""Windows of packed rows, which are packed rows themselves.

Windows cut sequences into parts. In a window the parts are numbered as sequences: first
one for each row, which continues the last sequence of the previous window, then the
sequences that start in the window. So that all windows have the same shapes, each has
as many parts as the one with most sequences; absent parts have length 0.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.errors import describe
from .._base.inputs import as_state
from .._base.serialization import serializable
from .._base.trees import check_structure, named_leaves
from .._base.typing import PyTree
from .._time.restarts import rows_of
from .host import check_known, cut
from .packed_sequences import PackedSequences, check_first_axis, check_whole


@serializable
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PackedWindow:
    """Consecutive steps of packed rows, as `windows` yields them.

    A pytree of NumPy arrays. `packed_rnn` runs it, and the state of each row is passed
    on to the next window:

        start = window.start_from(row_state, cell.zero_state(1, dtype))
        outputs, states = packed_rnn(cell.bind(params), window.packed, start)
        row_state = window.row_state(states)

    In the first window all sequences start, and the values of `row_state` do not
    matter: pass `cell.zero_state(window.rows, dtype)`.

    Attributes:
        packed: The parts of sequences in the window, as `PackedSequences` of
            `rows + new` sequences: part r, for each row r, continues a sequence of the
            previous window; the others start in this one. Absent parts have length 0.
        part_of: int32 `[parts]`, the sequence to which each part belongs; -1 for parts
            of length 0.
        ends: int32 `[parts]`, `part_of` for parts at which a sequence ends, else -1.
            `.at[ends].set(states, wrap_negative_indices=False)` collects final states.
            Sequences of length 0 are in no window.
        last: int32 `[rows]`, the last part of each row.
        start: int32, the step of the rows at which the window starts.
    """

    packed: PackedSequences
    part_of: Any
    ends: Any
    last: Any
    start: Any

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.last.shape[0]

    @property
    def new(self) -> int:
        """The largest number of sequences that start in any window."""
        return self.part_of.shape[0] - self.rows

    def start_from(self, row_state: PyTree, fresh_state: PyTree) -> PyTree:
        """The initial state of all parts, for `packed_rnn`.

        Args:
            row_state: The state of each row after the previous window, `[rows, ...]`.
            fresh_state: The state from which new sequences start: `[1, ...]`, one for
                all, or `[new, ...]`, one for each of the sequences `part_of[rows:]`.

        Returns:
            The nest with leaves `[parts, ...]`.

        Raises:
            ValueError: If the two disagree in structure, shapes or dtypes.
            TypeError: If a leaf is not an array.
        """
        where = "PackedWindow.start_from"
        old = as_state(where, "row_state", row_state)
        new = as_state(where, "fresh_state", fresh_state)
        fix = "So is `row_state`."
        check_structure(f"{where}: `fresh_state`", old, new, strict=True, fix=fix)
        named_new = named_leaves("fresh_state", new)
        pairs = zip(named_leaves("row_state", old), named_new, strict=True)
        for (name, leaf), (fresh_name, fresh) in pairs:
            check_first_axis(where, name, leaf, "rows", self.rows)
            like = (fresh.shape[1:], fresh.dtype) == (leaf.shape[1:], leaf.dtype)
            if not (like and fresh.ndim and fresh.shape[0] in (1, self.new)):
                want = f"{leaf.dtype}{[self.new, *leaf.shape[1:]]}"
                raise ValueError(
                    f"{where}: `{fresh_name}` must be {want}, a row for each sequence "
                    f"that may start, or have one row for all, got {describe(fresh)}."
                )
        each = lambda fresh: jnp.broadcast_to(fresh, (self.new, *fresh.shape[1:]))
        join = lambda leaf, fresh: jnp.concatenate([leaf, each(fresh)])
        return jax.tree.map(join, old, new)

    def row_state(self, states: PyTree) -> PyTree:
        """The state of each row after its last step in the window.

        Args:
            states: The states of all parts that `packed_rnn` returned, `[parts, ...]`.

        Returns:
            The nest with leaves `[rows, ...]`; rows without a step keep their state.

        Raises:
            ValueError: If the first axis of a leaf is not that of all parts.
            TypeError: If a leaf is not an array.
        """
        where = "PackedWindow.row_state"
        states = as_state(where, "states", states)
        for name, leaf in named_leaves("states", states):
            check_first_axis(where, name, leaf, "parts", self.part_of.shape[0])
        return rows_of(states, jnp.asarray(self.last))

    def __repr__(self) -> str:
        return f"PackedWindow(start={self.start}, packed={self.packed})"


def packed_windows(
    where: str, packed: PackedSequences, size: int
) -> tuple[Callable[[int], PackedWindow], range]:
    """A function from a step to the window that starts there, and all such steps.

    Raises:
        TypeError: If `packed` is traced.
        ValueError: If it is a stack, or not whole.
    """
    check_whole(where, "inputs", packed)
    for name, leaf in named_leaves("inputs", packed):
        check_known(where, name, leaf)
    packed = jax.tree.map(np.asarray, packed)
    starts_in = packed.offset[packed.sequence_length > 0] // size
    new = np.bincount(starts_in, minlength=1).max().item()
    steps = packed.starts.shape[0 if packed.time_major else 1]
    return lambda start: _window(packed, start, size, new), range(0, steps, size)


def _window(packed: PackedSequences, start: int, size: int, new: int) -> PackedWindow:
    end = packed.offset + packed.sequence_length
    begin, stop = np.maximum(packed.offset, start), np.minimum(end, start + size)
    here = np.flatnonzero(begin < stop)
    here = here[np.argsort(begin[here], kind="stable")]  # Sequences, by time.
    continues = packed.offset[here] < start
    row, at, count = packed.row[here], begin[here] - start, (stop - begin)[here]
    last = np.arange(len(packed.lengths), dtype=np.int32)
    part = np.where(continues, row, len(last) - 1 + np.cumsum(~continues))
    last[row] = part  # The latest of several in one row is assigned last.

    def of_parts(values: np.ndarray, fill: int) -> np.ndarray:
        all_parts = np.full(len(last) + new, fill, np.int32)
        all_parts[part] = values
        return all_parts

    axis, starts = 1, np.full((len(last), size), -1, np.int32)
    starts[row, at] = part
    if packed.time_major:
        axis, starts = 0, starts.T
    parts = PackedSequences(
        inputs=jax.tree.map(lambda x: cut(x, start, size, axis), packed.inputs),
        lengths=(packed.lengths - start).clip(0, size),
        starts=starts,
        row=of_parts(row, 0),
        offset=of_parts(at, 0),
        sequence_length=of_parts(count, 0),
        time=size,
        time_major=packed.time_major,
        rows=len(last),
        sequences=len(last) + new,
    )
    return PackedWindow(
        packed=parts,
        part_of=of_parts(here, -1),
        ends=of_parts(np.where(end[here] <= start + size, here, -1), -1),
        last=last,
        start=np.int32(start),
    )
