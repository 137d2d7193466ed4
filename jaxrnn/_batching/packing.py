"""Packs sequences end to end in rows, with little padding.

`pack_sequences` packs a batch, and `packed_batches` the records of an input pipeline.
Both run on the host, in NumPy, because shapes depend on the lengths. Reading a pack
(`Packed.unpack`, `Packed.at_ends`) runs in JAX, as a gather.
"""

import bisect
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_count, as_integers, check_shape
from .._base.errors import expect
from .._base.inputs import as_array
from .._base.math import clamped_to_int32, concrete_or_none
from .._base.mesh import varying_like
from .._base.sharding import read_at, replicated_on_explicit_mesh
from .._base.trees import map_named, serializable, with_structure
from .._base.typing import Array, Lengths, PyTree
from .._run import masking
from .host import Leaves, as_sequence, as_sources, from_list, host_lengths

State: TypeAlias = dict[str, Any]
"""The position in `records`, and the number of records before this position."""


@serializable
class Packed(NamedTuple):
    """Sequences that are stored end to end in rows.

    The fields have the same names and meanings as in T5X, maxtext and Grain, so you can
    wrap their batches: `Packed(inputs, segment_ids, positions)`. Run a pack with any
    function or module that accepts `resets`::

        outputs, _, states = jaxrnn.dynamic_rnn(
            cell.bind(params), packed.inputs, packed.lengths, dtype=jnp.float32,
            resets=packed.resets, return_states=True)
        finals = packed.at_ends(states, count)

    A pack is a pytree. Its rows may be split, or divided over devices.

    For a time-major run, swap the first two axes of the inputs and of the resets, but
    pass the lengths of the original pack. Swap the outputs back before you unpack them.

    `unpack` and `at_ends` require a different id for each sequence of the pack. Grain
    and T5X start again from 1 in each row. With such ids, both methods raise an error
    outside of `jit`. Under `jit`, where the ids are not known, they return wrong
    results. Renumber such a pack first, with `number_over_rows` from the guide to
    packing.

    Attributes:
        inputs: A nest of `[rows, row_length, ...]`, zeros at unused steps.
        segment_ids: Integers `[rows, row_length]`: the id of the sequence at each step,
            which is `i + 1` for sequence i; 0 or less at unused steps.
        positions: Integers `[rows, row_length]`: the index of each step in its
            sequence; 0 at unused steps.
    """

    inputs: PyTree
    segment_ids: Array | np.ndarray
    positions: Array | np.ndarray

    @property
    def lengths(self) -> Array | np.ndarray:
        """int32 `[rows]`, the number of used steps, at the front of each row."""
        return (self._integers("segment_ids") > 0).sum(-1, dtype=np.int32)

    @property
    def resets(self) -> Array | np.ndarray:
        """Bool `[rows, row_length]`, true at the first step of each sequence.

        Unused steps are false. If a window continues a sequence of the window before,
        all its steps of this sequence are false.
        """
        return (self._integers("positions") == 0) & (self._integers("segment_ids") > 0)

    def unpack(
        self, outputs: PyTree, count: int | None = None, time: int | None = None
    ) -> PyTree:
        """Returns the outputs of each sequence in a separate row, padded with zeros.

        The values of `outputs` at unused steps, including NaN, affect neither the
        result nor gradients.

        Args:
            outputs: A nest in the layout of `inputs`, `[rows, row_length, ...]`.
            count: The number of sequences; by default, the largest id. Sequences of
                length 0 have no steps, so the default leaves them out at the end.
                Sequences with ids above `count` are left out. Under `jit`, `count` and
                `time` must be given, because they are sizes of the result.
            time: The number of steps; by default, the length of the longest sequence.
                Steps beyond this number are left out.

        Returns:
            The nest with leaves `[count, time, ...]`, with zeros past the end of each
            sequence.

        Raises:
            ValueError: If the first two axes of a leaf differ from `segment_ids`, or if
                the pack is traced, and `count` or `time` is not given.
            TypeError: If a leaf is not an array; if `segment_ids` or `positions` are
                not integers.
        """
        return self._read("outputs", outputs, count=count, time=time)

    def at_ends(self, tree: PyTree, count: int | None = None) -> PyTree:
        """Reads the last step of each sequence, such as the final state.

        Args:
            tree: A nest in the layout of `inputs`, `[rows, row_length, ...]`.
            count: As in `unpack`.

        Returns:
            The nest with leaves `[count, ...]`, zeros for a sequence without steps.

        Raises:
            ValueError, TypeError: As in `unpack`.
        """
        return self._read("tree", tree, count=count)

    def _integers(self, name: str) -> Any:
        """Converts a field of integers, which may be a list, to an array."""
        what = "integers [rows, row_length]"
        return as_integers(name, getattr(self, name), what, (None, None))

    def _read(self, name: str, tree: PyTree, **sizes: int | None) -> PyTree:
        """Reads each sequence from `tree`.

        `sizes` has `count` and `time` to read all steps, or `count` to read the last.
        """

        def checked(name: str, leaf: object) -> Array:
            array = as_array(name, leaf)
            check_shape(name, array, (*ids.shape, ...))
            return array

        ids, positions = map(self._integers, ("segment_ids", "positions"))
        must = f"have the shape of `segment_ids`, {list(ids.shape)}"
        check_shape("positions", positions, ids.shape, must)
        tree = map_named(name, checked, tree)
        known, places = map(concrete_or_none, (ids, positions))
        if known is not None and places is not None:
            firsts = known[(places == 0) & (known > 0)]
            fix = "Number sequences over all rows, as `pack_sequences` does. For packs "
            fix += "of other libraries, see `number_over_rows` in the guide to packing."
            must = "have a different id for each sequence"
            is_own = np.unique(firsts).size == firsts.size
            expect(is_own, "segment_ids", must, known, fix)

        # For each step of the pack, the index of its sequence and of its step in the
        # result. Unused steps have the sequence -1. The indices are int32, because a
        # narrow id such as int8 cannot represent every `count`, and they are clamped,
        # because an id that wraps around would be the id of another sequence.
        index = clamped_to_int32(ids).clip(0) - 1, clamped_to_int32(positions)
        pairs = zip(sizes.items(), index, strict=False)
        shape = [_size(*named, indices) for named, indices in pairs]
        given = tuple(map(jnp.asarray, index[: len(shape)]))
        index = replicated_on_explicit_mesh(given, tree)

        # For each step of the result, the step of the pack to read; -1 for none.
        steps = jnp.arange(ids.size, dtype=jnp.int32).reshape(ids.shape)
        none = varying_like(index, jnp.full(shape, -1, jnp.int32))
        options = {"mode": "drop", "wrap_negative_indices": False}
        step = none.at[index].max(steps, **options)
        row, t = jnp.divmod(jnp.maximum(step, 0), ids.shape[1])
        read = jax.tree.map(lambda leaf: read_at(leaf, row, t), tree)
        return masking.zero_unless(step >= 0, read)


def _size(name: str, size: int | None, indices: object) -> int:
    """Returns the given size, or 1 plus the largest index."""
    if size is not None:
        return as_count(name, size, 0)
    known: Any = concrete_or_none(indices)
    must = "be given if the pack is traced, as under jit"
    expect(known is not None, name, must, size)
    return 1 + int(np.max(known, initial=-1))


def pack_sequences(
    inputs: PyTree,
    sequence_length: Lengths | None = None,
    *,
    rows: int | None = None,
    row_length: int | None = None,
) -> Packed:
    """Packs sequences end to end into few rows, with little padding.

    The cost of a padded batch is the batch size times the longest length. The cost of
    packed sequences is usually a few percent more than the sum of the lengths.

    Sequences are packed by the best-fit rule, longest sequence first. Packing runs on
    the host, outside of jit. On one CPU core, packing ten thousand sequences of 100
    steps on average, with 8 features, takes about 0.3 seconds.

    Args:
        inputs: With `sequence_length`, padded sequences: `[batch, time, ...]`, or a
            nest of such arrays that have the same time and batch sizes. Without
            `sequence_length`, a list or tuple of sequences, each an array
            `[length, ...]` or a nest of such arrays that have the same length. All
            sequences must have the same structure, dtypes and step shapes. A tuple
            without `sequence_length` is read as a list of sequences. The nest may also
            hold data that the cell does not read, such as a label per step. In a list,
            the nest of a sequence may also hold numbers, such as a label of the whole
            sequence. A number is stored at each step of the sequence; `at_ends` returns
            one number per sequence again.
        sequence_length: The length of each sequence, `[batch]`, integers, clamped to
            `[0, time]`. Default: `inputs` is a list or tuple of sequences.
        rows: The number of rows; by default as few as needed, at least one.
        row_length: The number of steps in a row; by default the longest length, at
            least 1. If `rows` and `row_length` are given, all batches have the same
            shapes and share one compilation.

    Returns:
        The packed sequences, in NumPy arrays. Sequence i has the id `i + 1`. Sequences
        of length 0 take no steps.

    Raises:
        TypeError: If an argument is traced (pack outside of jit) or has the wrong type.
        ValueError: If `inputs` contains no array, or if structures, shapes or dtypes do
            not match; if a sequence is longer than a row; if there are too few rows
            (the message gives the number needed).

    Example:
        >>> import numpy as np, jaxrnn
        >>> x = np.ones((4, 7, 3), np.float32)
        >>> packed = jaxrnn.pack_sequences(x, [5, 0, 3, 4])
        >>> print(packed.segment_ids)
        [[1 1 1 1 1]
         [4 4 4 4 0]
         [3 3 3 0 0]]
        >>> packed.unpack(packed.inputs).shape
        (4, 5, 3)

    Source: Johnson 1973, "Near-optimal bin packing algorithms".
    """
    if sequence_length is None:
        records = from_list(inputs)
        like, sequences = records[0], list(map(jax.tree.leaves, records))
        lengths = np.asarray([len(leaves[0]) for leaves in sequences])
    else:
        inputs, time, batch_size = as_sources(inputs, time_major=False)
        lengths = host_lengths(sequence_length, batch_size, time)
        arrays = [np.asarray(x) for x in jax.tree.leaves(inputs)]
        like = jax.tree.map(lambda x: np.empty((0, *x.shape[2:]), x.dtype), inputs)
        sequences = [[x[i, :n] for x in arrays] for i, n in enumerate(lengths.tolist())]
    longest = int(lengths.max(initial=1))
    fix = "Increase `row_length`, or split the sequences that are longer."
    row_length = longest if row_length is None else row_length
    row_length = as_count("row_length", row_length, longest, fix)

    # Best fit, longest first, needs at most about 11/9 of the minimum number of rows.
    row_of = [0] * len(sequences)
    needed = 0
    frees: list[tuple[int, int]] = []  # `(free steps, row)`, ascending.
    for i in np.argsort(-lengths, kind="stable").tolist():
        at = bisect.bisect_left(frees, (int(lengths[i]), 0))
        if at == len(frees):
            frees.append((row_length, needed))
            needed += 1
        free, row_of[i] = frees.pop(at)
        bisect.insort(frees, (free - int(lengths[i]), row_of[i]))
    fix = "Increase `rows` or `row_length`, or pack fewer sequences."
    least = max(needed, 1)
    rows = as_count("rows", least if rows is None else rows, least, fix)
    return _packed(sequences, row_of, like, rows, row_length)


def _packed(
    sequences: list[Leaves], row_of: list[int], like: PyTree, rows: int, row_length: int
) -> Packed:
    """Copies each sequence to its row of a new pack; `row_of` contains the rows.

    `like` is a nest of arrays `[length, ...]`, whose dtypes and step shapes the pack
    gets. The length does not matter.
    """
    leaves = [
        np.zeros((rows, row_length, *x.shape[1:]), x.dtype.newbyteorder("="))
        for x in jax.tree.leaves(like)
    ]
    segment_ids, positions = np.zeros((2, rows, row_length), np.int32)
    used, ts = [0] * rows, np.arange(row_length)
    for i, (sequence, row) in enumerate(zip(sequences, row_of, strict=True)):
        length = len(sequence[0])
        steps = slice(used[row], used[row] + length)
        used[row] += length
        segment_ids[row, steps] = i + 1
        positions[row, steps] = ts[:length]
        for leaf, values in zip(leaves, sequence, strict=True):
            leaf[row, steps] = values
    return Packed(with_structure(like, leaves), segment_ids, positions)


class PackedBatches(Iterator[Packed]):
    """An iterator over packs of one shape, returned by `packed_batches`.

    `source` reads the records. For `rows`, `row_length` and `sequences`, see
    `packed_batches`.
    """

    def __init__(self, source: Any, rows: int, row_length: int, sequences: int) -> None:
        self._source = source
        self._shape = rows, row_length
        self._most = sequences
        self._number = 0  # The number of records read so far.
        self._first: PyTree = None  # The first record, which all others are like.
        # Records that are not in a batch yet, each with the `State` from before the
        # record was read.
        self._waiting: list[tuple[State, Leaves]] = []

    def __next__(self) -> Packed:
        rows, row_length = self._shape
        row_of: list[int] = []
        free = [row_length] * rows
        # `_waiting` may contain a record that did not fit into the last batch. After an
        # error, `_waiting` contains the records of the batch that was not returned.
        while len(self._waiting) > len(row_of) or self._read():
            length = len(self._waiting[len(row_of)][1][0])
            row = next((r for r, steps in enumerate(free) if length <= steps), None)
            if row is None or len(row_of) == self._most:
                break
            row_of.append(row)
            free[row] -= length
        if not row_of:
            raise StopIteration
        sequences = [record for _, record in self._waiting[: len(row_of)]]
        del self._waiting[: len(row_of)]
        return _packed(sequences, row_of, self._first, *self._shape)

    def _read(self) -> bool:
        """Reads the next record into `_waiting`; returns False at the end."""
        state = self._state()
        try:
            record = next(self._source)
        except StopIteration:
            return False
        name = f"records[{self._number}]"
        self._number += 1
        record = as_sequence(name, record, self._first)
        self._first = record if self._first is None else self._first
        # Copy the leaves, because the source may write its next record into the same
        # buffer.
        leaves = [np.array(leaf) for leaf in jax.tree.leaves(record)]
        most = self._shape[1]
        must = f"have at most `row_length` ({most}) steps"
        fix = "Increase `row_length`, or split the record."
        expect(len(leaves[0]) <= most, name, must, leaves[0], fix)
        self._waiting.append((state, leaves))
        return True

    def _state(self) -> State:
        position = self._source.get_state() if _has_state(self._source) else None
        if isinstance(position, bytes):  # A Grain `DataLoader` returns JSON as bytes.
            position = position.decode()
        return {"records": position, "number": self._number}

    def get_state(self) -> State:
        """The position at which the next batch starts, for `set_state`.

        Returns:
            `{"records": position, "number": count}` for the first record of the next
            batch. `position` is the index of this record in `records`, or the result of
            the records' own `get_state`. `count` is the number of records before this
            record. The state can be stored as JSON if `position` can.

        Raises:
            TypeError: If `records` has no position.
        """
        state = self._waiting[0][0] if self._waiting else self._state()
        is_known = state["records"] is not None
        must = "be a sequence, or have `get_state` and `set_state`"
        expect(is_known, "records", must, self._source, error=TypeError)
        return state

    def set_state(self, state: State) -> None:
        """Moves to the position of `state`, so that the same batches follow again.

        Args:
            state: A state from `get_state` of an iterator over the same records.

        Raises:
            TypeError: If `records` has no position, or if `state` is not a result of
                `get_state`.
            ValueError: If the position is past the end of `records`.
        """
        self.get_state()  # Raises an error if `records` has no position.
        is_state = isinstance(state, dict) and {"records", "number"} <= state.keys()
        expect(is_state, "state", "be a result of `get_state`", state, error=TypeError)
        position = state["records"]
        is_bytes = isinstance(self._source.get_state(), bytes)
        self._source.set_state(position.encode() if is_bytes else position)
        self._number = state["number"]
        self._waiting = []


def packed_batches(
    records: Iterable[PyTree],
    rows: int,
    row_length: int,
    *,
    sequences: int | None = None,
) -> PackedBatches:
    """Packs the records of an input pipeline into batches of one shape.

    All batches share one compilation. Records are packed by the first-fit rule: a
    record goes into the first row of the batch into which it fits. If it fits into no
    row, or if the batch already has `sequences` sequences, the record begins the next
    batch. Records are never cut, and batches keep the order of the records. The last
    batch may be less full than the others.

    Args:
        records: A Grain dataset or iterator, a sequence (anything with `__len__` and
            `__getitem__`), or any iterable. Each record is one sequence, in the form
            of an entry of a list for `pack_sequences`: an array `[length, ...]` or a
            nest of such arrays. A number in the nest, such as a label, is stored at
            each step.
        rows: The number of rows in a batch.
        row_length: The number of steps in a row, at least the length of the longest
            record. Rows much longer than the records need less padding.
        sequences: The largest number of sequences in a batch, by default
            `rows * ceil(row_length / 4)`. Pass the same number as `count` to
            `Packed.unpack` and `Packed.at_ends`. If records have fewer than 4 steps on
            average, pass a larger number.

    Returns:
        An iterator over `Packed`. Like Grain's iterators, this iterator has
        `get_state()` and `set_state(state)`, so an interrupted run can continue with
        the same batches. For several epochs, repeat the records or call
        `packed_batches` again.

    Raises:
        TypeError: If an argument has the wrong type; on iteration, if a leaf of a
            record is traced or not an array.
        ValueError: If a number is below 1; on iteration, if a record is longer than a
            row, or differs from the first record in structure, dtypes or the shape of a
            step.

    Example:
        >>> import numpy as np, jaxrnn
        >>> records = [np.ones((n, 3), np.float32) for n in [5, 2, 7, 4, 1, 8, 6]]
        >>> for packed in jaxrnn.packed_batches(records, rows=2, row_length=8):
        ...     print(packed.inputs.shape, packed.lengths)
        (2, 8, 3) [7 7]
        (2, 8, 3) [5 8]
        (2, 8, 3) [6 0]
    """
    rows = as_count("rows", rows, fix="")
    row_length = as_count("row_length", row_length, fix="")
    sequences = rows * -(-row_length // 4) if sequences is None else sequences
    sequences = as_count("sequences", sequences)
    can_iterate = hasattr(records, "__iter__") or hasattr(records, "__getitem__")
    fits = can_iterate and not isinstance(records, dict)
    expect(fits, "records", "be an iterable of records", records, error=TypeError)
    iterator = iter(records)
    can_index = hasattr(records, "__len__") and hasattr(records, "__getitem__")
    source = _Indexed(records) if can_index and not _has_state(iterator) else iterator
    return PackedBatches(source, rows, row_length, sequences)


class _Indexed(Iterator[PyTree]):
    """An iterator over a sequence of records, with an index as its position."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self._next = 0

    def __next__(self) -> PyTree:
        if self._next >= len(self._records):
            raise StopIteration
        self._next += 1
        return self._records[self._next - 1]

    def get_state(self) -> int:
        return self._next

    def set_state(self, state: int) -> None:
        self._next = as_count("state['records']", state, 0, "", len(self._records))


def _has_state(iterator: object) -> bool:
    return hasattr(iterator, "get_state") and hasattr(iterator, "set_state")
