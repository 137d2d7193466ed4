"""Reads arrays on the host: padded batches slice by slice, and lists of sequences.

Traced arrays are rejected.
"""

from collections.abc import Iterator
from typing import Any, TypeAlias

import jax
import numpy as np

from .._base.arguments import check_given, check_rank
from .._base.errors import (
    check_not_masked,
    counted,
    describe,
    describe_leaves,
    is_array,
    leaf_name,
)
from .._base.expect import expect
from .._base.inputs import (
    check_concrete,
    check_same_size,
    fix_of_objects,
    named_inputs,
)
from .._base.lengths import as_lengths
from .._base.like import check_structure
from .._base.trees import map_named, named_leaves
from .._base.typing import Lengths, PyTree

Leaves: TypeAlias = list[np.ndarray]
"""The arrays of one sequence, each `[length, ...]`."""


Source: TypeAlias = Any
"""An object with `shape`, `dtype` and slicing, such as an `np.memmap`."""


def host_lengths(lengths: Lengths, batch_size: int) -> np.ndarray:
    """The lengths as a NumPy array, int32 `[batch]`, not negative; see `as_lengths`."""
    check_concrete("sequence_length", lengths)
    with jax.ensure_compile_time_eval():  # Allows constants to be read inside a trace.
        return np.asarray(as_lengths(lengths, batch_size))


def as_sources(
    inputs: PyTree, time_major: bool, fix: str = ""
) -> tuple[PyTree, int, int]:
    """Arrays that can be read slice by slice, and their time and batch sizes.

    JAX arrays become NumPy arrays, because JAX would compile a program for each slice.

    Raises:
        TypeError: If a leaf is traced or not an array.
        ValueError: If there are no arrays, if an array has fewer than two axes, or if
            the arrays differ in the number of steps or the batch size.
    """
    axes = "[time, batch, ...]" if time_major else "[batch, time, ...]"

    def as_leaf(name: str, leaf: Any) -> Source:
        if leaf is None or isinstance(leaf, jax.Array | np.ndarray):
            leaf = as_host_array(name, leaf)
        has_all = all(hasattr(leaf, x) for x in ("shape", "dtype", "__getitem__"))
        of_a_list = "Convert a list to an array with `np.asarray`."
        of_leaf = of_a_list if isinstance(leaf, int | float | complex) else ""
        expect(has_all, name, "be an array", leaf, of_leaf, error=TypeError)
        check_rank(name, leaf, 2, axes, fix=fix)
        return leaf

    inputs = map_named("inputs", as_leaf, inputs)
    named = named_inputs(inputs)
    check_same_size(named, slice(2), "The first two axes", axes, fix)
    first, second = named[0][1].shape[:2]
    return (inputs, first, second) if time_major else (inputs, second, first)


def as_host_array(name: str, leaf: Any) -> np.ndarray:
    """A leaf as a NumPy array.

    Raises:
        TypeError: If the leaf is traced, or not an array.
        ValueError: If the leaf is None.
    """
    check_given(name, leaf, "", "an array")
    check_concrete(name, leaf)
    check_not_masked(name, leaf)
    try:
        array = np.asarray(leaf)
    except TypeError:  # Random keys cannot be converted to NumPy arrays.
        array = np.asarray(None)
    if not is_array(array):
        must = "be an array of numbers or booleans"
        fix = fix_of_objects(name, leaf)
        raise TypeError(f"`{name}` must {must}, got {describe(leaf)}. {fix}".rstrip())
    return array


def cut(sources: PyTree, start: int, size: int, time_major: bool) -> PyTree:
    """A copy of `size` steps from step `start`, padded with zeros at the end.

    Args:
        sources: Arrays, as `as_sources` returns them.
        start: The first step, less than the number of steps of `sources`.
        size: The number of steps of the result.
        time_major: Whether time is the first axis, rather than the second.
    """
    axis = 0 if time_major else 1
    before = (slice(None),) * axis

    def cut_one(source: Source) -> np.ndarray:
        steps = np.asarray(source[*before, start : start + size])
        shape = (*steps.shape[:axis], size, *steps.shape[axis + 1 :])
        window = np.zeros(shape, steps.dtype.newbyteorder("="))
        window[*before, : steps.shape[axis]] = steps
        return window

    return jax.tree.map(cut_one, sources)


def check_like(
    name: str, want: PyTree, got: PyTree, fix: str, skip: int = 0, strict: bool = True
) -> None:
    """Raises an error unless `got` has the structure, dtypes and shapes of `want`.

    Args:
        name: The name of `got`, for messages.
        want: The nest of arrays that `got` must match.
        got: The nest that is checked.
        fix: The end of each message, which tells the user what to do.
        skip: The number of leading axes that may differ.
        strict: Whether sequence types must agree. If False, a list may replace a tuple.
    """
    check_structure(f"`{name}`", want, got, strict=strict, fix=fix)
    leaves = jax.tree.leaves_with_path(got)
    for (path, leaf), like in zip(leaves, jax.tree.leaves(want), strict=True):
        if (leaf.shape[skip:], leaf.dtype) != (like.shape[skip:], like.dtype):
            full = leaf_name(name, path)
            sizes = ["..."] * bool(skip) + list(map(str, like.shape[skip:]))
            raise ValueError(
                f"`{full}` must be {like.dtype}[{', '.join(sizes)}], got "
                f"{describe(leaf)}. {fix}"
            )


def as_sequence(name: str, sequence: PyTree) -> PyTree:
    """A sequence with arrays `[length, ...]` as leaves.

    A number in the nest applies to the whole sequence, and is repeated at each step.

    Raises:
        TypeError: If a leaf is traced or not an array.
        ValueError: If there are no arrays, or if the arrays differ in length.
    """
    fix = "Each entry is one sequence."
    arrays = map_named(name, as_host_array, sequence)
    lengths = [leaf.shape[0] for leaf in jax.tree.leaves(arrays) if leaf.ndim]
    if not lengths:
        got = describe_leaves(sequence)
        if isinstance(sequence, list | tuple):
            got = describe(sequence)
            fix += " Convert a list to an array with `np.asarray`."
        raise ValueError(
            f"`{name}` must hold at least one array [length, ...], got {got}. {fix}"
        )

    def spread(leaf: np.ndarray) -> np.ndarray:
        return leaf if leaf.ndim else np.broadcast_to(leaf, lengths[:1])

    arrays = jax.tree.map(spread, arrays)
    if len(set(lengths)) > 1:
        named = list(named_leaves(name, arrays))
        check_same_size(named, what="The length", axes="[length, ...]", fix=fix)
    return arrays


def check_record(name: str, first: PyTree, first_name: str, record: PyTree) -> None:
    """Raises unless both sequences have the same structure, dtypes and step shapes."""
    fix = f"`{first_name}` sets the structure, dtypes and step shapes of all sequences."
    check_like(name, first, record, fix, skip=1, strict=False)


def from_list(inputs: PyTree) -> list[PyTree]:
    """The sequences in a list, as nests of arrays `[length, ...]`.

    Raises:
        TypeError: If `inputs` is not a list or tuple; if a leaf is traced or not an
            array.
        ValueError: If there are no arrays, or if sequences differ in more than their
            lengths.
    """
    # A named tuple is a nest, and therefore a single sequence.
    is_list = isinstance(inputs, list | tuple) and not hasattr(inputs, "_fields")
    fix = "For padded inputs, pass `sequence_length`."
    is_objects = isinstance(inputs, np.ndarray) and inputs.dtype == object
    if is_objects or isinstance(inputs, Iterator):
        fix = "Pass `list(inputs)`."
    expect(
        is_list,
        "inputs",
        "be a list or tuple of sequences",
        inputs,
        fix,
        error=TypeError,
    )
    if not inputs:
        named_inputs(inputs, "For an empty batch, pass padded inputs with no rows.")
    records = [as_sequence(f"inputs[{i}]", each) for i, each in enumerate(inputs)]
    for i, record in enumerate(records):
        check_record(f"inputs[{i}]", records[0], "inputs[0]", record)
    return records


def cut_padding(
    inputs: PyTree, sequence_length: Lengths, time_major: bool
) -> tuple[list[Leaves], int]:
    """The sequences of padded inputs, as lists of arrays, and the number of steps.

    Raises:
        TypeError: If a leaf is traced or not an array, or if lengths are not integers.
        ValueError: If there are no arrays, if an array has fewer than two axes, or if
            the sizes of axes do not match.
    """
    fix = ""
    if isinstance(inputs, list | tuple):
        fix = "For a list of sequences, omit `sequence_length`."
    inputs, time, batch_size = as_sources(inputs, time_major, fix)
    if _are_sequences(inputs, sequence_length, batch_size):
        raise ValueError(
            f"`sequence_length` must hold {counted(batch_size, 'length')}, one for "
            f"each row of padded inputs, got {len(inputs)}, one for each entry of a "
            "list. To pack a list of sequences, omit `sequence_length`, and pass each "
            "sequence without padding."
        )
    lengths = host_lengths(sequence_length, batch_size).clip(max=time)
    arrays = [np.asarray(x) for x in jax.tree.leaves(inputs)]
    if time_major:
        arrays = [x.swapaxes(0, 1) for x in arrays]
    return [[x[i, :n] for x in arrays] for i, n in enumerate(lengths.tolist())], time


def _are_sequences(inputs: PyTree, sequence_length: Lengths, batch_size: int) -> bool:
    """Whether there is one length per entry of a list, rather than one per row."""
    is_list = isinstance(inputs, list | tuple) and not hasattr(inputs, "_fields")
    return is_list and len(inputs) == np.size(sequence_length) != batch_size
