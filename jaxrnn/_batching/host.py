"""Reads arrays on the host: padded batches slice by slice, and lists of sequences.

Traced arrays are rejected.
"""

from typing import Any, TypeAlias

import jax
import numpy as np

from .._base.arguments import check_given, check_rank
from .._base.errors import (
    Verbatim,
    check_not_masked,
    describe_leaves,
    expect,
    is_array,
)
from .._base.inputs import (
    check_concrete,
    check_like,
    check_same_size,
    named_inputs,
)
from .._base.trees import map_named
from .._base.typing import Lengths, PyTree
from .._run.arguments import as_integer_lengths, as_lengths

Leaves: TypeAlias = list[np.ndarray]
"""The arrays of one sequence, each `[length, ...]`."""


Source: TypeAlias = Any
"""An object with `shape`, `dtype` and slicing, such as an `np.memmap`."""


def host_lengths(lengths: Lengths, batch_size: int, time: int) -> np.ndarray:
    """The lengths as a NumPy array, int32 `[batch]`, clamped to `[0, time]`."""
    check_concrete("sequence_length", lengths)
    with jax.ensure_compile_time_eval():  # Allows constants to be read inside a trace.
        known = np.asarray(as_integer_lengths(lengths))
        return np.asarray(as_lengths(known, batch_size, time=time))


def as_sources(inputs: PyTree, time_major: bool) -> tuple[PyTree, int, int]:
    """Arrays that can be read slice by slice, and their time and batch sizes.

    JAX arrays become NumPy arrays, because JAX would compile a program for each slice.

    Raises:
        TypeError: If a leaf is traced or not an array.
        ValueError: If there are no arrays, if an array has fewer than two axes, or if
            the arrays differ in the number of steps or the batch size.
    """
    axes = "[time, batch, ...]" if time_major else "[batch, time, ...]"
    fix = "For a list of sequences, call `pack_sequences(inputs)` without lengths."

    def as_leaf(name: str, leaf: object) -> Source:
        if leaf is None or isinstance(leaf, jax.Array | np.ndarray):
            leaf = as_host_array(name, leaf)
        has_all = all(hasattr(leaf, x) for x in ("shape", "dtype", "__getitem__"))
        expect(has_all, name, f"be an array {axes}", leaf, fix, error=TypeError)
        check_rank(name, leaf, 2, axes, fix)
        return leaf

    inputs = map_named("inputs", as_leaf, inputs)
    named = named_inputs(inputs)
    check_same_size(named, slice(2), f"first two sizes, {axes},", fix)
    first, second = named[0][1].shape[:2]
    return (inputs, first, second) if time_major else (inputs, second, first)


def as_host_array(name: str, leaf: object) -> np.ndarray:
    """A leaf as a NumPy array.

    Raises:
        TypeError: If the leaf is traced, or not an array.
        ValueError: If the leaf is None.
    """
    check_given(name, leaf, "", "an array")
    check_concrete(name, leaf)
    check_not_masked(name, leaf)
    array = np.asarray(leaf)
    must = "be an array of numbers or booleans"
    expect(is_array(array), name, must, leaf, error=TypeError)
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


def as_sequence(name: str, sequence: PyTree, first: PyTree = None) -> PyTree:
    """A sequence with arrays `[length, ...]` as leaves.

    A number in the nest applies to the whole sequence, and is repeated at each step.

    Args:
        name: The name of the sequence, for messages.
        sequence: The nest.
        first: The first sequence, which this sequence must match in structure, dtypes
            and step shapes; None if this sequence is the first.

    Raises:
        TypeError: If a leaf is traced or not an array.
        ValueError: If there are no arrays, if the arrays differ in length, or if the
            structure, a dtype or the shape of a step differs from `first`.
    """
    arrays = map_named(name, as_host_array, sequence)
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(arrays) if leaf.ndim}
    fix = "Each entry of `inputs` is one sequence."
    if not lengths:
        fix += " Convert a list of numbers to an array with `np.asarray`."
    must = "hold one or more arrays [length, ...] of one length"
    expect(len(lengths) == 1, name, must, Verbatim(describe_leaves(arrays)), fix)

    def spread(leaf: np.ndarray) -> np.ndarray:
        return leaf if leaf.ndim else np.broadcast_to(leaf, tuple(lengths))

    arrays = jax.tree.map(spread, arrays)
    if first is not None:
        fix = "All sequences must match the first in structure, dtypes and step shapes."
        check_like(name, arrays, first, 1, strict=False, fix=fix, error=ValueError)
    return arrays


def from_list(inputs: PyTree) -> list[PyTree]:
    """The sequences in a list, as nests of arrays `[length, ...]`.

    Raises:
        TypeError: If `inputs` is not a list or tuple, or if a leaf is traced or not an
            array.
        ValueError: If there are no arrays, or if sequences differ in more than their
            lengths.
    """
    # A named tuple is a nest, and therefore a single sequence.
    is_list = isinstance(inputs, list | tuple) and not hasattr(inputs, "_fields")
    must = "be a list or tuple of sequences"
    fix = "For padded inputs, pass `sequence_length`; otherwise, pass `list(inputs)`."
    expect(is_list, "inputs", must, inputs, fix, error=TypeError)
    expect(inputs, "inputs", "hold at least one sequence", inputs)
    first = as_sequence("inputs[0]", inputs[0])
    return [as_sequence(f"inputs[{i}]", each, first) for i, each in enumerate(inputs)]
