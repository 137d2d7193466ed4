"""`PackedSequences`: sequences of unequal length, stored end to end in rows.

Unpacking runs in JAX, as a gather followed by a select. `concat_packed` and
`stack_packed` join packs on the host, in NumPy.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import check_instance, check_shape
from .._base.errors import Verbatim, counted, describe, expect, is_array
from .._base.inputs import as_array, check_concrete, check_like
from .._base.math import is_traced
from .._base.sharding import read_at
from .._base.trees import map_named, serializable
from .._base.typing import Array, PyTree
from .._run import masking


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
        return masking.zero_unless(inside, tree)

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

    def checked(name: str, leaf: Any) -> Array:
        array = as_array(name, leaf)
        check_shape(name, array, (*sizes, ...), fix=fix)
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
    fix = "Pass `packed.inputs`, and `resets=packed.starts >= 0`."
    expect(not is_pack, "inputs", "be padded", inputs, fix, error=TypeError)


def concat_packed(packs: Iterable[PackedSequences]) -> PackedSequences:
    """Concatenates the rows of several packs into one pack, outside of jit.

    The rows and sequences stay in the order of the packs. The function adjusts the
    numbers of sequences and rows in `starts` and `row`.

    Args:
        packs: Packs with rows of the same length. The packs may have different numbers
            of rows and sequences.

    Returns:
        A pack with the rows and sequences of all packs. `unpack` pads the sequences to
        the largest `time` of the packs.

    Raises:
        TypeError: If `packs` is not a list of packs, or if a pack is traced.
        ValueError: If there are no packs; if packs disagree in structure, dtypes, the
            shape of a step, `row_length` or `time_major`; if an entry is the result of
            `stack_packed`.

    Example:
        >>> import numpy as np, jaxrnn
        >>> pack = lambda *lengths: jaxrnn.pack_sequences(
        ...     [np.ones((n, 3), np.float32) for n in lengths], row_length=8
        ... )
        >>> jaxrnn.concat_packed([pack(8, 5, 3), pack(7)])
        PackedSequences(4 sequences in 3 rows of 8 steps, 96% full)
    """
    packs = _as_packs(packs)
    counts = [(pack.lengths.shape[0], pack.row.shape[0]) for pack in packs]
    before = np.cumsum([(0, 0), *counts], axis=0, dtype=np.int32)
    packs = [_renumbered(*each) for each in zip(packs, before[:-1], strict=True)]
    axis = 1 if packs[0].time_major else 0
    rows, sequences = before[-1].tolist()
    vectors = "lengths", "row", "offset", "sequence_length"
    return dataclasses.replace(
        packs[0],
        inputs=_joined([pack.inputs for pack in packs], axis),
        starts=_joined([pack.starts for pack in packs], axis),
        rows=rows,
        sequences=sequences,
        **{name: _joined([getattr(pack, name) for pack in packs]) for name in vectors},
    )


def _joined(trees: list[PyTree], axis: int = 0) -> PyTree:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis), *trees)


def _renumbered(pack: PackedSequences, before: np.ndarray) -> PackedSequences:
    """The pack with row and sequence numbers increased by `before`."""
    rows, sequences = before
    return dataclasses.replace(
        pack,
        starts=np.where(pack.starts >= 0, pack.starts + sequences, -1),
        row=np.where(pack.sequence_length > 0, pack.row + rows, 0),
    )


def stack_packed(packs: Iterable[PackedSequences]) -> PackedSequences:
    """Stacks packs of one shape along a new first axis of each array, outside of jit.

    `jax.vmap` and `jax.lax.scan` split the result into packs again. On several devices,
    stack one pack per device, and shard the first axis of all arrays.

    Args:
        packs: Packs of the same shapes, for example from `packed_batches`.

    Returns:
        The arrays of all packs, each leaf `[packs, ...]`.

    Raises:
        TypeError: If `packs` is not a list of packs, or if a pack is traced.
        ValueError: If there are no packs; if packs disagree in structure, dtypes,
            shapes or `time_major`; if an entry is already the result of `stack_packed`.

    Example:
        >>> import jax, numpy as np, jaxrnn
        >>> pack = lambda *lengths: jaxrnn.pack_sequences(
        ...     [np.ones((n, 3), np.float32) for n in lengths], rows=2, row_length=8
        ... )
        >>> stack = jaxrnn.stack_packed([pack(8, 5, 3), pack(7, 2, 4)])
        >>> jax.vmap(lambda packed: packed.unpack(packed.inputs))(stack).shape
        (2, 3, 8, 3)
    """
    packs = _as_packs(packs)
    sizes = [(pack.lengths.size, pack.row.size) for pack in packs]
    must = "have equal numbers of rows and sequences"
    fix = "Create them with `packed_batches`, or join them with `concat_packed`."
    expect(len(set(sizes)) == 1, "packs", must, sizes, fix)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *packs)


def _as_packs(packs: Iterable[PackedSequences]) -> list[PackedSequences]:
    """The packs as NumPy arrays; raises an error for packs that cannot be joined."""
    packs = list(packs)
    expect(packs, "packs", "hold at least one pack", packs)
    for i, pack in enumerate(packs):
        name = f"packs[{i}]"
        check_instance(name, pack, PackedSequences, "the result of `pack_sequences`")
        check_whole(name, pack)
        check_concrete(name, pack)
        for field in ("time_major", "row_length"):
            value, first = getattr(pack, field), getattr(packs[0], field)
            must = f"be {first}, as in `packs[0]`"
            expect(value == first, f"{name}.{field}", must, value)
        like = packs[0].inputs
        check_like(f"{name}.inputs", pack.inputs, like, 2, error=ValueError)
    time = max(pack.time for pack in packs)
    packs = [dataclasses.replace(pack, time=time) for pack in packs]
    return jax.tree.map(np.asarray, packs)
