"""`PackedSequences`: sequences of unequal length, stored end to end in rows.

Packing runs on the host, in NumPy. Unpacking runs in JAX, as a gather followed by a
select.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.errors import Verbatim, counted, describe, is_array
from .._base.expect import expect
from .._base.inputs import as_array
from .._base.math import is_traced
from .._base.sharding import read_at
from .._base.trees import map_named, serializable
from .._base.typing import Array, PyTree
from .._loops import masking


@serializable
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PackedSequences:
    """Sequences packed end to end in rows, as `pack_sequences` returns them.

    The object, called a pack, is a pytree of NumPy arrays, which `jit`, `vmap` and
    `device_put` accept. Fields that are not arrays are static. Unused steps are zeros.

    The numbers in `starts` and `row` are valid only within one pack. Do not concatenate
    the arrays of several packs, or split the arrays of one pack, as `shard_map` would.
    Use `concat_packed` and `stack_packed` instead. `unpack`, `at_ends` and `packed_rnn`
    raise an error if shapes disagree with `rows` and `sequences`.

    Attributes:
        inputs: A nest of `[rows, row_length, ...]`, or `[row_length, rows, ...]` if
            `time_major`.
        lengths: int32 `[rows]`, the number of used steps at the start of each row.
        starts: int32 `[rows, row_length]`, or `[row_length, rows]` if `time_major`: the
            number of the sequence that starts at each step; -1 where no sequence
            starts.
        row: int32 `[sequences]`, the row of each sequence; 0 if its length is 0.
        offset: int32 `[sequences]`, the step of the row at which each sequence starts;
            0 for a sequence of length 0.
        sequence_length: int32 `[sequences]`, the number of steps of each sequence.
        time: The size of the time axis that `unpack` returns.
        time_major: Whether time is the first axis of packed and of unpacked arrays.
        rows: The number of rows. If `rows` or `sequences` is None, as required for
            symbolic sizes in `jax.export`, sizes are not checked.
        sequences: The number of sequences, including sequences of length 0.
    """

    inputs: PyTree
    lengths: Array | np.ndarray
    starts: Array | np.ndarray
    row: Array | np.ndarray
    offset: Array | np.ndarray
    sequence_length: Array | np.ndarray
    time: int = dataclasses.field(metadata={"static": True})
    time_major: bool = dataclasses.field(metadata={"static": True})
    rows: int | None = dataclasses.field(default=None, metadata={"static": True})
    sequences: int | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def row_length(self) -> int:
        """The size of the time axis, unused steps included."""
        return self.starts.shape[0 if self.time_major else 1]

    @property
    def fill(self) -> float:
        """The fraction of steps that are used, in [0, 1]; outside of jit."""
        lengths = np.asarray(self.lengths)
        return lengths.sum(dtype=np.int64).item() / self.starts.size

    def unpack(self, outputs: PyTree) -> PyTree:
        """The outputs of each sequence, padded.

        The values of `outputs` at unused steps, including NaN, affect neither the
        result nor gradients.

        Args:
            outputs: A nest in the layout of `inputs`: `[rows, row_length, ...]`, or
                `[row_length, rows, ...]` if `time_major`.

        Returns:
            The nest with leaves `[sequences, time, ...]`, or `[time, sequences, ...]`
            if `time_major`, with zeros past the end of each sequence.

        Raises:
            ValueError: If the first two axes of a leaf do not match `starts`; if the
                pack is a stack of packs, or shapes disagree with `rows` and
                `sequences`.
            TypeError: If a leaf is not an array.
        """
        check_whole("packed", self)
        t = jnp.arange(self.time, dtype=jnp.int32)[None, :]
        inside = t < jnp.asarray(self.sequence_length)[:, None]
        step = jnp.where(inside, jnp.asarray(self.offset)[:, None] + t, 0)
        row = jnp.broadcast_to(jnp.asarray(self.row)[:, None], step.shape)
        if self.time_major:
            inside = inside.T
            step = step.T
            row = row.T
        tree = self._read("outputs", outputs, row, step)
        return masking.zero_dead(inside, tree)

    def at_ends(self, tree: PyTree) -> PyTree:
        """The values at the last step of each sequence.

        Args:
            tree: A nest in the layout of `inputs`: `[rows, row_length, ...]`, or
                `[row_length, rows, ...]` if `time_major`.

        Returns:
            The nest with leaves `[sequences, ...]`. A sequence of length 0 has no last
            step; the caller must replace the entry of such a sequence, which holds the
            value of row 0 at step 0.

        Raises:
            ValueError: If the first two axes of a leaf do not match `starts`; if the
                pack is a stack of packs, or shapes disagree with `rows` and
                `sequences`.
            TypeError: If a leaf is not an array.
        """
        check_whole("packed", self)
        last = jnp.asarray(self.offset) + jnp.asarray(self.sequence_length) - 1
        return self._read("tree", tree, jnp.asarray(self.row), jnp.maximum(last, 0))

    def _read(self, name: str, tree: PyTree, row: Array, step: Array) -> PyTree:
        index = (step, row) if self.time_major else (row, step)
        fix = "Pass arrays in the layout of this pack."
        tree = with_first_axes(name, tree, self.starts.shape, fix)
        # The index is in bounds by construction.
        return jax.tree.map(lambda leaf: read_at(leaf, *index), tree)

    def __repr__(self) -> str:
        if not is_array(self.starts) or self.starts.ndim != 2:
            # JAX may replace leaves with other objects, such as the in_axes of vmap.
            return f"PackedSequences(starts={describe(self.starts)})"
        full = "" if is_traced(self.lengths) else f", {self.fill:.0%} full"
        rows = self.starts.shape[1 if self.time_major else 0]
        sequences = counted(self.row.size, "sequence")
        steps = counted(self.row_length, "step")
        sizes = f"{sequences} in {counted(rows, 'row')} of {steps}"
        return f"PackedSequences({sizes}{full})"


def with_first_axes(
    name: str, tree: PyTree, sizes: tuple[int, ...], fix: str = ""
) -> PyTree:
    """The nest with arrays `[*sizes, ...]` as leaves.

    Raises:
        ValueError: If a leaf has other first axes.
        TypeError: If a leaf is not an array.
    """
    must = f"be [{', '.join(map(str, sizes))}, ...]"

    def checked(name: str, leaf: Any) -> Array:
        array = as_array(name, leaf)
        expect(array.shape[: len(sizes)] == sizes, name, must, array, fix)
        return array

    return map_named(name, checked, tree)


def check_whole(name: str, packed: PackedSequences) -> None:
    """Raises ValueError unless the arrays of `packed` have the shapes of one pack."""
    if packed.rows is None or packed.sequences is None:
        return
    shape = packed.starts.shape
    rows = shape[1:] if packed.time_major else shape[:-1]
    fits = rows == (packed.rows,) and packed.row.shape == (packed.sequences,)
    must = f"be one pack of {packed.rows} rows and {packed.sequences} sequences"
    got = f"`starts` {describe(packed.starts)} and `row` {describe(packed.row)}"
    fix = "Join packs with `concat_packed`; run a stack of packs with `jax.vmap`."
    expect(fits, name, must, Verbatim(got), fix)


def check_not_packed(inputs: object) -> None:
    """Raises TypeError for `PackedSequences`."""
    is_pack = isinstance(inputs, PackedSequences)
    fix = "Use `packed_rnn`."
    expect(not is_pack, "inputs", "be padded", inputs, fix, error=TypeError)
