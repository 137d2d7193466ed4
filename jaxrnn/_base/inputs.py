"""Inputs and states as arrays: nests of sequences, lists of steps, initial states."""

from typing import Any

import jax
import jax.numpy as jnp

from .errors import EntryError, describe, describe_structure, is_array
from .trees import map_named, named_leaves
from .typing import Array, PyTree


def named_inputs(where: str, inputs: PyTree, fix: str = "") -> list[tuple[str, Any]]:
    """The leaves of `inputs` with their names, at least one.

    Raises:
        ValueError: If there is none.
    """
    named = list(named_leaves("inputs", inputs))
    if not named:
        raise EntryError(
            f"{where}: `inputs` must hold at least one array, got "
            f"{describe_structure(inputs)}. {fix}".rstrip()
        )
    return named


def as_sequences(where: str, inputs: Any, time_major: bool) -> PyTree:
    """The nest of inputs as arrays of rank 3 or more that agree in time and batch.

    Raises:
        ValueError: If there are none, a rank is below 3, or sizes disagree.
        TypeError: If a leaf is not an array.
    """
    if inputs is None:
        raise ValueError(
            f"{where}: `inputs` must be arrays: None values not supported."
        )
    named_inputs(where, inputs)
    axes = "[time, batch, ...]" if time_major else "[batch, time, ...]"
    inputs = map_named("inputs", lambda n, x: _as_sequence(where, n, x, axes), inputs)
    (first, leaf), *rest = named_leaves("inputs", inputs)
    for axis, what in (
        (0 if time_major else 1, "Time steps"),
        (int(time_major), "Batch size"),
    ):
        for name, other in rest:
            if other.shape[axis] != leaf.shape[axis]:
                raise ValueError(
                    f"{where}: {what} must be the same for all inputs {axes}: `{first}`"
                    f" is {describe(leaf)}, `{name}` is {describe(other)}."
                )
    return inputs


def _as_sequence(where: str, name: str, leaf: Any, axes: str) -> Array:
    array = as_array(where, name, leaf)
    if array.ndim < 3:
        fix = (
            "Stack one array per step by jnp.stack; embed integer ids first."
            if is_array(leaf)
            else "A list is a nest of its elements: make it one array by jnp.asarray."
        )
        raise ValueError(
            f"{where}: `{name}` must have rank at least 3, {axes}, got "
            f"{describe(leaf)} of rank {array.ndim}. {fix}"
        )
    return array


def as_steps(where: str, inputs: Any) -> list[PyTree]:
    """A nest of arrays for each step, all of rank 2 or more and of one batch size.

    If the first leaf has rank 1, as integer ids have, all may have rank 1.

    Raises:
        TypeError: If `inputs` are not a sequence, or a leaf is not an array.
        ValueError: If they are empty or a dict, if a rank is too low, or if batch sizes
            differ.
    """
    if jax.tree_util.all_leaves([inputs]) or inputs is None:
        raise TypeError(
            f"{where}: `inputs` must be a sequence, got {describe(inputs)}. "
            "`list(x)` holds the steps of an array [time, batch, ...]; `dynamic_rnn` "
            "takes the array itself."
        )
    if not isinstance(inputs, list | tuple):
        raise ValueError(
            f"{where}: `inputs` must be a list or tuple with one entry a step, got "
            f"{describe(inputs)}. Each step may be a nest."
        )
    steps = map_named("inputs", lambda n, x: as_array(where, n, x), list(inputs))
    leaves = list(named_leaves("inputs", steps))
    if not leaves:
        raise ValueError(
            f"{where}: `inputs` must not be empty, got {describe_structure(inputs)}."
        )
    least = 1 if leaves[0][1].ndim == 1 else 2
    for name, other in leaves:
        if other.ndim < least:
            raise ValueError(
                f"{where}: `{name}` must have rank at least {least}, [batch, ...], got "
                f"{describe(other)}."
            )
    check_same_batch(where, leaves)
    return steps


def check_same_batch(where: str, named: list[tuple[str, Array]]) -> None:
    """Raises ValueError if the first axes of named arrays differ in size."""
    (first, leaf), *rest = named
    for name, other in rest:
        if other.shape[0] != leaf.shape[0]:
            raise ValueError(
                f"{where}: Batch size must be the same for all inputs [batch, ...]: "
                f"`{first}` is {describe(leaf)}, `{name}` is {describe(other)}."
            )


def as_state(where: str, name: str, state: PyTree) -> PyTree:
    """The state with arrays as leaves; numbers are not weakly typed any more.

    Raises:
        ValueError: If it holds None.
        TypeError: If a leaf is not an array.
    """
    return map_named(name, lambda n, leaf: _as_state_leaf(where, n, leaf), state)


def _as_state_leaf(where: str, name: str, leaf: Any) -> Array:
    array = as_array(where, name, leaf)
    # A Python number would be weakly typed and change the carry's type at step 1.
    return array if is_array(leaf) else array.astype(array.dtype)


def as_array(where: str, name: str, leaf: Any) -> Array:
    """One leaf as an array.

    Raises:
        ValueError: If it is None.
        TypeError: If it is neither an array nor a number.
    """
    if leaf is None:
        raise ValueError(
            f"{where}: `{name}` must be an array: None values not supported."
        )
    try:
        return jnp.asarray(leaf)
    except TypeError:
        raise TypeError(
            f"{where}: `{name}` must be an array, got {describe(leaf)}."
        ) from None
