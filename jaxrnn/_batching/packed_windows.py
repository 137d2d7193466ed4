"""Windows of packed rows, which are packed rows again.

A window cuts sequences into parts. The part of a row that goes on from the window
before is a sequence of its own, numbered as the row; those that begin in the window
have the numbers after. Every window has room for as many as begin in any, so that all
have the same shapes; a part that is not there has length 0.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.errors import describe
from .._base.inputs import as_array
from .._base.trees import check_structure, map_named, named_leaves
from .._base.typing import Array, PyTree
from .host import check_known
from .packing import PackedSequences
from .slicing import Cuts, cut


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PackedWindow:
    """Some steps of packed rows: what `windows` yields for `PackedSequences`.

    A pytree of NumPy arrays, data to `jit`. `packed_rnn` runs it, and the state of each
    row goes on to the next window:

        start = window.start_from(row_state, cell.zero_state(1, dtype))
        outputs, states = packed_rnn(cell.bind(params), window.packed, start)
        row_state = window.row_state(states)

    Before the first window `row_state` may be anything of its shape, such as
    `cell.zero_state(window.rows, dtype)`: there all rows begin.

    Attributes:
        packed: The parts of sequences that lie in the window, as `PackedSequences` of
            `rows + new` sequences: of part r, for each row r, is what goes on from the
            window before; the rest begin here. Many have length 0.
        part_of: int32 `[parts]`, the number of the sequence that each is a part of, -1
            for those of length 0.
        ends: int32 `[parts]`, the same for a part that is its sequence's last, else -1.
            `.at[ends].set(states, wrap_negative_indices=False)` collects final states.
            A sequence of length 0 is in no window.
        last: int32 `[rows]`, the part that is the last of each row.
        start: int32, the number that the first of these steps has in the rows.
    """

    packed: PackedSequences
    part_of: Any
    ends: Any
    last: Any
    start: Any

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.last.shape[0]

    @property
    def new(self) -> int:
        """How many sequences may begin in a window."""
        return self.part_of.shape[0] - self.rows

    def start_from(self, row_state: PyTree, fresh_state: PyTree) -> PyTree:
        """The initial state of all parts, for `packed_rnn`.

        Args:
            row_state: The state of each row after the window before, `[rows, ...]`.
            fresh_state: The state that new sequences start from: `[1, ...]`, or
                `[new, ...]` for one of its own each, of sequence `part_of[rows:]`.

        Returns:
            The nest with leaves `[parts, ...]`.

        Raises:
            ValueError: If the two nests, shapes or dtypes do not fit.
            TypeError: If a leaf is no array.
        """
        where = "PackedWindow.start_from"
        old = map_named("row_state", lambda n, x: as_array(where, n, x), row_state)
        new = map_named("fresh_state", lambda n, x: as_array(where, n, x), fresh_state)
        fix = "So is `row_state`."
        check_structure(f"{where}: `fresh_state`", old, new, strict=True, fix=fix)
        pairs = zip(
            named_leaves("row_state", old),
            named_leaves("fresh_state", new),
            strict=True,
        )
        for (name, leaf), (fresh_name, fresh) in pairs:
            _check_first(where, name, leaf, "rows", self.rows)
            like = (fresh.shape[1:], fresh.dtype) == (leaf.shape[1:], leaf.dtype)
            if not (like and fresh.ndim and fresh.shape[0] in (1, self.new)):
                want = f"{leaf.dtype}{[self.new, *leaf.shape[1:]]}"
                raise ValueError(
                    f"{where}: `{fresh_name}` must be {want}, a row for each sequence "
                    f"that may begin, or have one row for all, got {describe(fresh)}."
                )
        return jax.tree.map(self._joined, old, new)

    def _joined(self, leaf: Array, fresh: Array) -> Array:
        fresh = jnp.broadcast_to(fresh, (self.new, *fresh.shape[1:]))
        return jnp.concatenate([leaf, fresh])

    def row_state(self, states: PyTree) -> PyTree:
        """The state of each row after its last step in the window.

        Args:
            states: The states of all parts that `packed_rnn` returned, `[parts, ...]`.

        Returns:
            The nest with leaves `[rows, ...]`; rows without a step keep what they had.

        Raises:
            ValueError: If a leaf does not begin with an axis of all parts.
            TypeError: If a leaf is no array.
        """
        where = "PackedWindow.row_state"

        def pick(name: str, leaf: Any) -> Array:
            leaf = as_array(where, name, leaf)
            _check_first(where, name, leaf, "parts", self.part_of.shape[0])
            # All rows that are asked for exist: no index is to be looked at again.
            return leaf.at[jnp.asarray(self.last)].get(mode="promise_in_bounds")

        return map_named("states", pick, states)

    def __repr__(self) -> str:
        return f"PackedWindow(start={self.start}, packed={self.packed})"


def packed_windows(where: str, packed: PackedSequences, size: int) -> Cuts:
    """The windows of packed rows, one after the other.

    Raises:
        TypeError: If `packed` is traced.
    """
    for name, leaf in named_leaves("inputs", packed):
        check_known(where, name, leaf)
    packed = jax.tree.map(np.asarray, packed)
    begin_in = packed.offset[packed.sequence_length > 0] // size
    new = np.bincount(begin_in, minlength=1).max().item()
    steps = packed.starts.shape[0 if packed.time_major else 1]
    return Cuts(lambda at: _window(packed, at, size, new), range(0, steps, size))


def _window(packed: PackedSequences, start: int, size: int, new: int) -> PackedWindow:
    end = packed.offset + packed.sequence_length
    begin, stop = np.maximum(packed.offset, start), np.minimum(end, start + size)
    here = np.flatnonzero(begin < stop)
    here = here[np.argsort(begin[here], kind="stable")]  # Sequences, by time.
    goes_on = packed.offset[here] < start
    row, at, count = packed.row[here], begin[here] - start, (stop - begin)[here]
    last = np.arange(len(packed.lengths), dtype=np.int32)
    part = np.where(goes_on, row, len(last) - 1 + np.cumsum(~goes_on))
    last[row] = part  # Of several in one row the latest stays.

    def of_parts(values: np.ndarray, fill: int) -> np.ndarray:
        made = np.full(len(last) + new, fill, np.int32)
        made[part] = values
        return made

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
    )
    return PackedWindow(
        packed=parts,
        part_of=of_parts(here, -1),
        ends=of_parts(np.where(end[here] <= start + size, here, -1), -1),
        last=last,
        start=np.int32(start),
    )


def _check_first(where: str, name: str, leaf: Array, what: str, count: int) -> None:
    if leaf.shape[:1] != (count,):
        raise ValueError(
            f"{where}: `{name}` must be [{what}, ...], for {count} {what}, got "
            f"{describe(leaf)}."
        )
