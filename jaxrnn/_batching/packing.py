"""Sequences of unequal length laid end to end in rows, so that few steps are padding.

The layout is found on the host, in NumPy, as its shape depends on the lengths. To read
results back out of it is a gather and a select, and goes through JAX.
"""

import bisect
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_count, check_time_major
from .._base.errors import describe, is_array
from .._base.inputs import as_array
from .._base.known import as_known
from .._base.trees import map_named
from .._base.typing import Array, ArrayLike, PyTree
from .._time import masking
from .packing_inputs import from_list, from_padded

_WHERE = "pack_sequences"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PackedSequences:
    """Sequences laid end to end in rows: what `pack_sequences` returns.

    A pytree of NumPy arrays, data to `jit`, `vmap` and `device_put`. Its static part is
    the two last attributes alone. Where nothing lies there are zeros.

    Attributes:
        inputs: A nest of `[rows, row_length, ...]`, `[row_length, rows, ...]` if
            `time_major`.
        lengths: int32 `[rows]`, how many steps of each row are used, from its first.
        starts: int32 `[rows, row_length]`, `[row_length, rows]` if `time_major`: the
            number of the sequence that starts at a step, else -1.
        row: int32 `[sequences]`, the row in which each sequence lies.
        offset: int32 `[sequences]`, the step of that row at which it starts. Sequences
            of length 0 lie nowhere, and have row and offset 0.
        sequence_length: int32 `[sequences]`, how many steps it has.
        time: The time axis that `unpack` gives back.
        time_major: Whether time is the first axis here and in all that is unpacked.
    """

    inputs: PyTree
    lengths: Any
    starts: Any
    row: Any
    offset: Any
    sequence_length: Any
    time: int = dataclasses.field(metadata={"static": True})
    time_major: bool = dataclasses.field(metadata={"static": True})

    @property
    def fill(self) -> float:
        """The share of steps that are used, in [0, 1].

        Raises:
            TypeError: If `lengths` are traced.
        """
        lengths = as_known(self.lengths)
        if lengths is None:
            raise TypeError(
                "PackedSequences.fill: `lengths` must be known, got traced "
                f"{describe(self.lengths)}. Under jit sum them."
            )
        return lengths.sum(dtype=np.int64).item() / self.starts.size

    def unpack(self, outputs: PyTree) -> PyTree:
        """The padded form of what was computed step by step.

        What `outputs` hold where no sequence lies (NaN included) changes no value and
        no gradient.

        Args:
            outputs: A nest of `[rows, row_length, ...]`, as `inputs` lie.

        Returns:
            The nest with leaves `[sequences, time, ...]` (`[time, sequences, ...]` if
            `time_major`), zeros past the end of each sequence.

        Raises:
            ValueError: If a leaf does not begin with the axes of `starts`.
            TypeError: If a leaf is no array.
        """
        t = jnp.arange(self.time, dtype=jnp.int32)[None, :]
        row, offset, length = (
            jnp.asarray(x)[:, None]
            for x in (self.row, self.offset, self.sequence_length)
        )
        inside = t < length
        step = jnp.where(inside, offset + t, 0)
        row = jnp.broadcast_to(row, step.shape)
        if self.time_major:
            inside, step, row = inside.T, step.T, row.T
        tree = self._read("PackedSequences.unpack", "outputs", outputs, row, step)
        return masking.zero_dead(inside, tree)

    def at_ends(self, tree: PyTree) -> PyTree:
        """What stands at the last step of each sequence.

        Args:
            tree: A nest of `[rows, row_length, ...]`, as `inputs` lie.

        Returns:
            The nest with leaves `[sequences, ...]`. For a sequence of length 0 it holds
            what stands at step 0 of row 0, which is to be replaced.

        Raises:
            ValueError: If a leaf does not begin with the axes of `starts`.
            TypeError: If a leaf is no array.
        """
        last = jnp.asarray(self.offset) + jnp.asarray(self.sequence_length) - 1
        row, step = jnp.asarray(self.row), jnp.maximum(last, 0)
        return self._read("PackedSequences.at_ends", "tree", tree, row, step)

    def _read(
        self, where: str, name: str, tree: PyTree, row: Array, step: Array
    ) -> PyTree:
        index = (step, row) if self.time_major else (row, step)
        axes = (
            "[row_length, rows, ...]" if self.time_major else "[rows, row_length, ...]"
        )

        def read(name: str, leaf: Any) -> Array:
            leaf = as_array(where, name, leaf)
            if leaf.shape[:2] != self.starts.shape:
                raise ValueError(
                    f"{where}: `{name}` must be {axes}, as `starts`, which is "
                    f"{describe(self.starts)}; got {describe(leaf)}. What is unpacked "
                    "was computed from `inputs` of this very object, step by step."
                )
            # All steps that are asked for exist: no index is to be looked at again.
            return leaf.at[index].get(mode="promise_in_bounds")

        return map_named(name, read, tree)

    def __repr__(self) -> str:
        starts, row, lengths = self.starts, self.row, self.lengths
        if not (all(map(is_array, (starts, row, lengths))) and starts.ndim == 2):
            # JAX puts what it likes in the place of leaves, and so does vmap's caller.
            return f"PackedSequences(starts={describe(starts)}, row={describe(row)})"
        steps, rows = starts.shape if self.time_major else starts.shape[::-1]
        full = "" if as_known(lengths) is None else f", {self.fill:.0%} full"
        return (
            f"PackedSequences({row.size} sequences in {rows} rows of {steps} "
            f"steps{full})"
        )


def pack_sequences(
    inputs: PyTree,
    sequence_length: ArrayLike | None = None,
    *,
    rows: int | None = None,
    row_length: int | None = None,
    time_major: bool = False,
) -> PackedSequences:
    """Lays sequences end to end in as few rows as a good guess finds.

    A padded batch costs batch times longest row. Packed, it costs the steps that there
    are, and some percent. `packed_rnn` runs a cell over the result.

    It runs on the host, outside of jit: ten thousand sequences take some hundredths of
    a second. Each goes, the longest first, into the row whose room it fills best.

    Args:
        inputs: With `sequence_length` padded sequences: `[batch, time, ...]`,
            `[time, batch, ...]` if `time_major`, or a nest of such arrays that agree in
            both. Without it a list or tuple of sequences, each an array `[length, ...]`
            or a nest of such arrays that agree in length; all of one nest, one dtype
            and one shape of a step. So a tuple of padded arrays needs its lengths. What
            is made of the inputs step by step (labels, say) may come along in the nest.
        sequence_length: `[batch]`, integers. Lengths beyond the time axis count as all
            of it, negative ones as 0.
        rows: How many rows there are; as few as needed by default, one at least.
        row_length: How many steps a row has; those of the longest sequence by default,
            one at least. With `rows` and `row_length` given every batch of as many
            sequences has the same shapes, and one compilation serves all. Sequences of
            length 0 take no room: a list can be filled up with them.
        time_major: Whether time is the first axis, of padded inputs, of the rows and
            of what is unpacked. Sequences in a list are `[length, ...]` regardless.

    Returns:
        The packed sequences. Their `time`, to which `unpack` pads, is that of padded
        inputs, and `row_length` for a list.

    Raises:
        TypeError: If an argument is traced (pack outside of jit) or of the wrong kind.
        ValueError: If `inputs` hold no array, or disagree in nests, shapes or dtypes;
            if a sequence is longer than a row; if there are too few rows, with the
            number that is needed.

    Example:
        >>> import numpy as np, jaxrnn
        >>> x = np.ones((4, 7, 3), np.float32)
        >>> packed = jaxrnn.pack_sequences(x, [7, 0, 3, 4])
        >>> packed
        PackedSequences(4 sequences in 2 rows of 7 steps, 100% full)
        >>> packed.unpack(packed.inputs).shape
        (4, 7, 3)
    """
    check_time_major(_WHERE, time_major)
    if rows is not None:
        rows = as_count(_WHERE, "rows", rows)
    if row_length is not None:
        row_length = as_count(_WHERE, "row_length", row_length)
    if sequence_length is None:
        steps, lengths = from_list(_WHERE, inputs)
        row_length = time = _fitting_row_length(lengths, row_length)
    else:
        steps, lengths, time = from_padded(_WHERE, inputs, sequence_length, time_major)
        row_length = _fitting_row_length(lengths, row_length)
    row, offset, used = _lay_out(lengths, row_length)
    rows = _fitting_rows(len(used), rows, row_length)

    which = np.repeat(np.arange(len(lengths)), lengths)
    nth = np.arange(len(which)) - (np.cumsum(lengths) - lengths)[which]
    some = np.flatnonzero(lengths).astype(np.int32)
    order = slice(None, None, -1 if time_major else 1)  # Of the first two axes.

    def put(x: np.ndarray, row: np.ndarray, step: np.ndarray, fill: int) -> np.ndarray:
        laid = np.full((rows, row_length)[order] + x.shape[1:], fill, x.dtype)
        laid[(row, step)[order]] = x
        return laid

    place = row[which], offset[which] + nth
    return PackedSequences(
        inputs=jax.tree.map(lambda x: put(x, *place, 0), steps),
        lengths=np.pad(used, (0, rows - len(used))),
        starts=put(some, row[some], offset[some], -1),
        row=row,
        offset=offset,
        sequence_length=lengths.astype(np.int32),
        time=time,
        time_major=bool(time_major),
    )


def _lay_out(lengths: np.ndarray, room: int) -> tuple[np.ndarray, ...]:
    """Row and offset of each sequence, and the steps used in each row; all int32.

    Best fit, the longest first: at worst some 11/9 of the fewest rows. Rows wait in
    groups of equal room, so that a sequence costs one search among the groups.
    """
    row, offset, used = [0] * len(lengths), [0] * len(lengths), []
    waiting: dict[int, list[int]] = {}  # Rows by the room that is left in them.
    rooms: list[int] = []  # Those in which rows wait, in order.
    longest_first = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
    for i, length in zip(
        longest_first.tolist(), lengths[longest_first].tolist(), strict=True
    ):
        at = bisect.bisect_left(rooms, length)
        if at == len(rooms):
            r = len(used)
            used.append(0)
        else:
            group = waiting[rooms[at]]
            r = group.pop()
            if not group:
                del rooms[at]
        row[i], offset[i] = r, used[r]
        used[r] += length
        group = waiting.setdefault(room - used[r], [])
        if not group:
            bisect.insort(rooms, room - used[r])
        group.append(r)
    return tuple(np.asarray(x, np.int32) for x in (row, offset, used))


def _fitting_row_length(lengths: np.ndarray, row_length: int | None) -> int:
    longest = int(lengths.max(initial=1))
    if row_length is None or row_length >= longest:
        return row_length or longest
    raise ValueError(
        f"{_WHERE}: `row_length` must be at least {longest}, the length of sequence "
        f"{lengths.argmax()}, got {row_length}. Make rows longer, or cut the sequence."
    )


def _fitting_rows(needed: int, rows: int | None, row_length: int) -> int:
    if rows is None or rows >= needed:
        return rows or max(needed, 1)
    raise ValueError(
        f"{_WHERE}: `rows` must be at least {needed} for these sequences in rows of "
        f"{row_length} steps, got {rows}. Pack fewer sequences, or make more rows, or "
        "longer ones."
    )
