"""Functions that join packs into one pack with more rows, or stack packs."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from .._base.errors import InvalidType, InvalidValue, describe
from .host import check_known, check_like
from .packed_sequences import PackedSequences, check_whole


def concat_packed(packs: Iterable[PackedSequences]) -> PackedSequences:
    """Concatenates the rows of several packs into one pack, outside of jit.

    The rows and sequences of the first pack come first, followed by those of the second
    pack, and so on. The sequence and row numbers in `starts` and `row` are adjusted.

    Args:
        packs: Packs with rows of the same length. The packs may have different numbers
            of rows and sequences.

    Returns:
        A pack with the rows and sequences of all packs. `unpack` pads its sequences to
        the longest `time` of the packs.

    Raises:
        TypeError: If `packs` is not a list of packs, or if a pack is traced.
        ValueError: If there are no packs; if packs disagree in structure, dtypes, the
            shape of a step, `row_length` or `time_major`; if a pack is a stack.

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
    join = lambda *leaves: np.concatenate(leaves, axis)
    flat: dict[str, Any] = {
        name: np.concatenate([getattr(pack, name) for pack in packs])
        for name in ("lengths", "row", "offset", "sequence_length")
    }
    flat["rows"], flat["sequences"] = before[-1].tolist()
    in_rows = ((pack.inputs, pack.starts) for pack in packs)
    inputs, starts = jax.tree.map(join, *in_rows)
    return dataclasses.replace(packs[0], inputs=inputs, starts=starts, **flat)


def _renumbered(pack: PackedSequences, before: np.ndarray) -> PackedSequences:
    """The pack with row and sequence numbers increased by `before`."""
    rows, sequences = before
    return dataclasses.replace(
        pack,
        starts=np.where(pack.starts >= 0, pack.starts + sequences, -1),
        row=np.where(pack.sequence_length > 0, pack.row + rows, 0),
    )


def stack_packed(packs: Iterable[PackedSequences]) -> PackedSequences:
    """Stacks packs of one shape along a new first axis of all arrays, outside of jit.

    `jax.vmap` and `jax.lax.scan` split the result into packs again. On several devices,
    stack one pack per device, and shard the first axis of all arrays.

    Args:
        packs: Packs of the same shapes, for example from `packed_batches`.

    Returns:
        The arrays of all packs, each leaf `[packs, ...]`.

    Raises:
        TypeError: If `packs` is not a list of packs, or if a pack is traced.
        ValueError: If there are no packs; if packs disagree in structure, dtypes,
            shapes or `time_major`; if a pack is a stack.

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
    sizes = [(pack.lengths.shape, pack.row.shape) for pack in packs]
    for i, pack in enumerate(packs):
        if sizes[i] != sizes[0]:
            raise InvalidValue(
                f"`packs[{i}]` must have as many rows and sequences as "
                f"`packs[0]`: expected {packs[0]!r}, got {pack!r}. Create packs of one "
                "shape with `packed_batches`, or use `concat_packed`."
            )
    return jax.tree.map(lambda *leaves: np.stack(leaves), *packs)


def _as_packs(packs: Any) -> list[PackedSequences]:
    """The packs as NumPy arrays; raises an error for packs that cannot be joined."""
    if isinstance(packs, PackedSequences) or not isinstance(packs, Iterable):
        raise InvalidType(f"`packs` must be a list of packs, got {describe(packs)}.")
    packs = list(packs)
    if not packs:
        raise InvalidValue("`packs` must hold at least one pack, got none.")
    for i, pack in enumerate(packs):
        _check_pack(f"packs[{i}]", pack)
        _check_like(f"packs[{i}]", packs[0], pack)
    time = max(pack.time for pack in packs)
    packs = [dataclasses.replace(pack, time=time) for pack in packs]
    return jax.tree.map(np.asarray, packs)


def _check_pack(name: str, pack: Any) -> None:
    if not isinstance(pack, PackedSequences):
        raise InvalidType(
            f"`{name}` must come from `pack_sequences` or `packed_batches`, "
            f"got {describe(pack)}."
        )
    check_whole(name, pack)
    check_known(name, pack)


def _check_like(name: str, first: PackedSequences, pack: PackedSequences) -> None:
    """Raises ValueError if `pack` and `first` differ in more than their sizes."""
    time = lambda pack: pack.starts.shape[0 if pack.time_major else 1]
    for what, has in ("time_major", lambda pack: pack.time_major), ("row_length", time):
        if has(pack) != has(first):
            raise InvalidValue(
                f"the `{what}` of `{name}` must be the same as in "
                f"`packs[0]` ({has(first)}), got {has(pack)}."
            )
    name, fix = f"{name}.inputs", "It must match `packs[0].inputs`."
    check_like(name, first.inputs, pack.inputs, fix, skip=2)
