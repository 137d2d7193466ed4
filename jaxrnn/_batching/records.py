"""Readers of sequences, each an array `[length, ...]` or a nest of such arrays."""

from typing import Any, NamedTuple

import jax
import numpy as np

from .._base.errors import InvalidType, InvalidValue, describe, describe_structure
from .._base.inputs import named_inputs
from .._base.trees import check_structure, map_named, named_leaves
from .._base.typing import Lengths, PyTree
from .host import as_host_array, as_sources, host_lengths


class RecordReader:
    """Reads sequences as lists of arrays, and checks them against the first sequence.

    A number in a nest applies to the whole sequence; it is repeated at each step.

    Attributes:
        structure: The structure of the first sequence; None before it is read.
    """

    def __init__(self) -> None:
        self.structure: Any = None
        self._first: list[np.ndarray] = []
        self._name = ""

    def leaves(self, name: str, sequence: PyTree) -> list[np.ndarray]:
        """The leaves of a sequence, each `[length, ...]`.

        Raises:
            TypeError: If a leaf is traced or not an array.
            ValueError: If there are no arrays, if the arrays differ in length, or if
                the sequence differs from the first in more than its length.
        """
        fix = "Each entry must be one sequence; convert lists with np.asarray."
        axes = f"[length, ...]. {fix}"

        def read(rank: int) -> PyTree:
            as_leaf = lambda name, x: as_host_array(name, x, rank, axes)
            return map_named(name, as_leaf, sequence)

        arrays = read(0)
        leaves, structure = jax.tree.flatten(arrays)
        lengths = [leaf.shape[0] for leaf in leaves if leaf.ndim]
        if not lengths:
            read(1)  # Raises an error for a number.
            raise InvalidValue(
                f"`{name}` must hold at least one array, got "
                f"{describe_structure(sequence)}."
            )
        spread = lambda x: x if x.ndim else np.broadcast_to(x, lengths[:1])
        leaves = list(map(spread, leaves))
        if self.structure is None:
            self.structure, self._first, self._name = structure, leaves, name
        if structure != self.structure:
            want = jax.tree.unflatten(self.structure, self._first)
            fix = f"It must match `{self._name}`."
            check_structure(f"`{name}`", want, arrays, strict=False, fix=fix)
        self._check(name, leaves)
        return leaves

    def _check(self, name: str, leaves: list[np.ndarray]) -> None:
        for i, (leaf, first) in enumerate(zip(leaves, self._first, strict=True)):
            if leaf.shape[0] != leaves[0].shape[0]:
                what, of, like = "length", (name, 0), leaves[0]
            elif leaf.dtype != first.dtype or leaf.shape[1:] != first.shape[1:]:
                what, of, like = "dtype and step shape", (self._name, i), first
            else:
                continue
            raise InvalidValue(
                f"`{self._leaf_name(name, i)}` must have the {what} of "
                f"`{self._leaf_name(*of)}` ({describe(like)}), got {describe(leaf)}."
            )

    def _leaf_name(self, name: str, i: int) -> str:
        indices = jax.tree.unflatten(self.structure, self._first)
        return [full for full, _ in named_leaves(name, indices)][i]


class Records(NamedTuple):
    """Sequences as lists of arrays `[length, ...]`.

    Attributes:
        leaves: The arrays of each sequence.
        like: Arrays with the dtypes and step shapes of the sequences.
        structure: The nest that the arrays of each sequence form.
        time: The size of the time axis of padded sequences; None for a list.
    """

    leaves: list[list[np.ndarray]]
    like: list[np.ndarray]
    structure: Any
    time: int | None = None

    @property
    def lengths(self) -> np.ndarray:
        """The length of each sequence."""
        return np.asarray([len(leaves[0]) for leaves in self.leaves], np.int32)


def from_list(inputs: Any) -> Records:
    """The sequences in a list.

    Raises:
        TypeError: If `inputs` is not a list or tuple; if a leaf is traced or not an
            array.
        ValueError: If there are no arrays, or if sequences differ in more than their
            lengths.
    """
    # A named tuple is a nest, and therefore a single sequence.
    if not isinstance(inputs, list | tuple) or hasattr(inputs, "_fields"):
        raise InvalidType(
            "`inputs` must be a list or tuple of sequences, got "
            f"{describe(inputs)}. Padded inputs need `sequence_length`."
        )
    if not inputs:
        named_inputs(inputs, "Pass an empty batch as padded inputs.")
    reader = RecordReader()
    leaves = [reader.leaves(f"inputs[{i}]", x) for i, x in enumerate(inputs)]
    return Records(leaves, leaves[0], reader.structure)


def from_padded(inputs: PyTree, sequence_length: Lengths, time_major: bool) -> Records:
    """The sequences of padded inputs.

    Raises:
        TypeError: If a leaf is traced or not an array, or if lengths are not integers.
        ValueError: If there are no arrays, if an array has fewer than two axes, or if
            the sizes of axes do not match.
    """
    fix = "Leave out `sequence_length` for a list of sequences."
    inputs, time, batch_size = as_sources(inputs, time_major, fix)
    if _are_sequences(inputs, sequence_length, batch_size):
        raise InvalidValue(
            "`sequence_length` must be None for a list of sequences, got "
            f"{len(inputs)} lengths. Leave it out, and cut padding off the sequences."
        )
    lengths = host_lengths(sequence_length, batch_size).clip(max=time)
    arrays, structure = jax.tree.flatten(inputs)
    arrays = [np.asarray(x).swapaxes(0, 1 if time_major else 0) for x in arrays]
    leaves = [[x[i, :n] for x in arrays] for i, n in enumerate(lengths.tolist())]
    like = [np.empty((0, *x.shape[2:]), x.dtype) for x in arrays]
    return Records(leaves, like, structure, time)


def _are_sequences(inputs: Any, sequence_length: Lengths, batch_size: int) -> bool:
    """Whether there is one length per entry of a list, rather than one per row."""
    is_list = isinstance(inputs, list | tuple) and not hasattr(inputs, "_fields")
    return is_list and len(inputs) == np.size(sequence_length) != batch_size
