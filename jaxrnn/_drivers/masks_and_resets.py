"""Checks the arguments `mask`, `resets` and `reset_state`, and converts them.

A mask without gaps becomes lengths; resets become the restarts of a loop.
"""

import jax
import jax.numpy as jnp
import numpy as np

from .._base import arguments, trees
from .._base.expect import expect
from .._base.inputs import as_arrays, as_step_booleans
from .._base.like import check_structure, like
from .._base.math import concrete_or_none
from .._base.typing import (
    Array,
    ArrayLike,
    Lengths,
    PyTree,
)


def as_mask(
    mask: ArrayLike | None, lengths: Lengths | None, shape: tuple, axis: int
) -> tuple[Array | None, Lengths | None]:
    """Returns `(mask, sequence_length)`; at least one of the two is None.

    A mask without gaps is converted to lengths if its values are known, because lengths
    need no reordering of steps. The arguments are as in `check_mask`.
    """
    checked = check_mask(mask, lengths, shape, axis)
    if checked is None:
        return None, lengths
    known = concrete_or_none(mask if isinstance(mask, np.ndarray) else checked)
    if known is None or (np.diff(known.astype(np.int8), axis=axis) > 0).any():
        return checked, None
    return None, known.sum(axis)


def check_mask(
    mask: ArrayLike | None, lengths: Lengths | None, shape: tuple, axis: int
) -> Array | None:
    """Returns the mask as an array, or None if there is no mask.

    Args:
        mask: The user's argument `mask`.
        lengths: The user's argument `sequence_length`.
        shape: The sizes of the first two axes of the inputs.
        axis: The time axis, 0 or 1.

    Raises:
        ValueError: If both `mask` and `lengths` are given, or if shapes disagree.
        TypeError: If the mask does not hold booleans.
    """
    if mask is None:
        return None
    fix = "Omit `sequence_length`, and mask the steps past the lengths."
    must = "be None if `sequence_length` is given"
    expect(lengths is None, "mask", must, mask, fix)
    fix = "To mask a step if any of its features is masked, pass `mask.all(-1)`."
    must = "have one bool for each row and step"
    expect(getattr(mask, "ndim", 0) != 3, "mask", must, mask, fix)
    fix = "Convert numbers with `mask > 0`; pass lengths as `sequence_length`."
    return as_step_booleans("mask", mask, shape, axis, fix)


def as_resets(
    resets: ArrayLike | None, reset_state: PyTree, shape: tuple, axis: int | None
) -> tuple[Array | None, PyTree]:
    """Checks the user's arguments; returns them as arrays.

    Args:
        resets: The user's argument `resets`.
        reset_state: The user's argument `reset_state`.
        shape: The sizes of the first two axes of the inputs.
        axis: The time axis, 0 or 1; None if the resets belong to one step.

    Raises:
        ValueError: If shapes disagree, or if `reset_state` is given without `resets`.
        TypeError: If the resets are not booleans.
    """
    resets = check_resets(resets, shape, axis)
    if reset_state is not None:
        fix = "Pass booleans that are true where rows restart from `reset_state`."
        arguments.check_given("resets", resets, fix, "given with `reset_state`")
        reset_state = as_arrays("reset_state", reset_state)
    return resets, reset_state


def check_resets(
    resets: ArrayLike | None, shape: tuple, axis: int | None
) -> Array | None:
    """Checks `resets` like `as_resets`; returns an array, or None if there is none."""
    if resets is None:
        return None
    fix = "Convert numbers with `resets > 0`."
    return as_step_booleans("resets", resets, shape, axis, fix)


def as_reset_state(given: PyTree, zeros: PyTree, state: PyTree) -> PyTree:
    """Returns the state that rows are reset to, with the structure of `state`.

    Args:
        given: The user's argument `reset_state`; None for `zeros`.
        zeros: The zero state of the cell, which is cast to the dtypes of `state`.
        state: The initial state of the run.

    Raises:
        ValueError: If structures or shapes differ.
        TypeError: If dtypes differ.
    """
    if given is not None:
        return like("reset_state", given, state)
    name = "cell.zero_state()"
    fix = "Pass a `reset_state`."
    check_structure(f"`{name}`", state, zeros, strict=False, fix=fix)

    def cast(zero: Array, leaf: Array) -> Array:
        is_narrower = jnp.iscomplexobj(zero) and not jnp.iscomplexobj(leaf)
        return (zero.real if is_narrower else zero).astype(leaf.dtype)

    zeros = jax.tree.map(cast, trees.with_structure(state, zeros), state)
    return like(name, zeros, state, fix=fix)
