"""What may be packed: padded inputs, or a list of sequences, as steps end to end.

All of it on the host, in NumPy.
"""

from typing import Any

import jax
import numpy as np

from .._autodiff.jax_internals import Tracer
from .._base.arguments import as_lengths
from .._base.errors import EntryError, describe, describe_structure, is_array
from .._base.trees import check_structure, map_named, named_leaves
from .._base.typing import ArrayLike, PyTree


def from_padded(
    where: str, inputs: PyTree, sequence_length: ArrayLike, time_major: bool
) -> tuple[PyTree, np.ndarray, int]:
    """The steps that count, each leaf `[steps, ...]`; the lengths; the time axis.

    Raises:
        TypeError: If something is traced or no array, or lengths are no integers.
        ValueError: If there are no arrays, a rank is below 2, or axes disagree.
    """
    axes = "[time, batch, ...]" if time_major else "[batch, time, ...]"
    fix = "A list of sequences goes without `sequence_length`."

    def check(name: str, leaf: Any) -> np.ndarray:
        return _as_host_array(where, name, leaf, 2, f"{axes}. {fix}")

    arrays = map_named("inputs", check, inputs)
    _check_not_empty(where, arrays)
    (first, leaf), *rest = named_leaves("inputs", arrays)
    for name, other in rest:
        if other.shape[:2] != leaf.shape[:2]:
            raise ValueError(
                f"{where}: all inputs must agree in time and batch, {axes}: `{first}` "
                f"is {describe(leaf)}, `{name}` is {describe(other)}. {fix}"
            )
    time, batch_size = leaf.shape[:2] if time_major else leaf.shape[1::-1]
    lengths = _as_host_lengths(where, sequence_length, batch_size).clip(max=time)
    alive = np.arange(time) < lengths[:, None]
    rows_first = lambda x: np.swapaxes(x, 0, 1) if time_major else x
    return jax.tree.map(lambda x: rows_first(x)[alive], arrays), lengths, time


def from_list(where: str, inputs: Any) -> tuple[PyTree, np.ndarray]:
    """The steps of sequences in a list, each leaf `[steps, ...]`; their lengths.

    Raises:
        TypeError: If `inputs` are no list or tuple, or a leaf is traced or no array.
        ValueError: If there are no arrays, or sequences differ in more than length.
    """
    # A named tuple is a nest.
    if not isinstance(inputs, list | tuple) or hasattr(inputs, "_fields"):
        raise TypeError(
            f"{where}: `inputs` without `sequence_length` must be a list or tuple of "
            f"sequences, got {describe(inputs)}. Padded inputs need `sequence_length`."
        )
    fix = "[length, ...]. Each entry is a sequence; if it is a list, use np.asarray."

    def check(name: str, leaf: Any) -> np.ndarray:
        return _as_host_array(where, name, leaf, 1, fix)

    sequences = map_named("inputs", check, list(inputs))
    _check_not_empty(where, sequences[:1])
    structure = jax.tree.structure(sequences[0])
    for i, sequence in enumerate(sequences):
        if jax.tree.structure(sequence) != structure:
            name, fix = f"{where}: `inputs[{i}]`", "So has `inputs[0]`."
            check_structure(name, sequences[0], sequence, strict=False, fix=fix)
    leaves, width = jax.tree.leaves(sequences), structure.num_leaves
    _check_leaves(where, inputs, leaves, width)
    steps = [np.concatenate(leaves[i::width]) for i in range(width)]
    lengths = np.asarray([leaf.shape[0] for leaf in leaves[::width]])
    return jax.tree.unflatten(structure, steps), lengths


def _check_leaves(where: str, inputs: Any, leaves: list, width: int) -> None:
    """Holds a sequence's leaves to its first in length, those of all to one kind."""
    for i, leaf in enumerate(leaves):
        own, first = leaves[i - i % width], leaves[i % width]
        if leaf.shape[0] != own.shape[0]:
            like, what = i - i % width, "length"
        elif leaf.dtype != first.dtype or leaf.shape[1:] != first.shape[1:]:
            like, what = i % width, "dtype and shape of a step"
        else:
            continue
        names = [name for name, _ in named_leaves("inputs", list(inputs))]
        raise ValueError(
            f"{where}: `{names[i]}` must have the {what} of `{names[like]}`, "
            f"{describe(leaves[like])}, got {describe(leaf)}."
        )


def _as_host_array(where: str, name: str, leaf: Any, rank: int, fix: str) -> np.ndarray:
    if leaf is None:
        raise ValueError(
            f"{where}: `{name}` must be an array: None values not supported."
        )
    _refuse_tracer(where, name, leaf)
    try:
        array = np.asarray(leaf)
    except TypeError:  # Random keys are nothing on the host.
        array = np.asarray(None)
    if not is_array(array):
        raise TypeError(f"{where}: `{name}` must be an array, got {describe(leaf)}.")
    if array.ndim < rank:
        raise ValueError(
            f"{where}: `{name}` must have rank at least {rank}, got {describe(leaf)}, "
            f"not {fix}"
        )
    return array


def _as_host_lengths(where: str, lengths: ArrayLike, batch_size: int) -> np.ndarray:
    for leaf in jax.tree.leaves(lengths):
        _refuse_tracer(where, "sequence_length", leaf)
    with jax.ensure_compile_time_eval():  # Constants may be packed while one traces.
        return np.asarray(as_lengths(where, lengths, batch_size))


def _refuse_tracer(where: str, name: str, leaf: Any) -> None:
    if isinstance(leaf, Tracer):
        raise TypeError(
            f"{where}: `{name}` must be known, got traced {describe(leaf)}. Pack "
            "outside of jit, grad and vmap, and pass the result in."
        )


def _check_not_empty(where: str, inputs: Any) -> None:
    if not jax.tree.leaves(inputs):
        raise EntryError(
            f"{where}: `inputs` must hold at least one array, got "
            f"{describe_structure(inputs)}. A batch may be of 0 rows, padded."
        )
