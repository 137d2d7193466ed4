"""Checks the arguments `mask`, `resets` and `reset_state`, and converts them.

A mask without gaps becomes lengths; resets become the restarts of a loop.
"""

import jax
import jax.numpy as jnp
import numpy as np

from .._base.expect import expect
from .._base.inputs import as_arrays, as_step_booleans
from .._base.like import check_structure, like
from .._base.math import concrete_or_none
from .._base.trees import with_structure
from .._base.typing import Array, ArrayLike, Lengths, PyTree


def mask_or_lengths(
    mask: ArrayLike | None, lengths: Lengths | None, shape: tuple, axis: int
) -> tuple[Array | None, Lengths | None]:
    """Returns `(mask, sequence_length)`; at least one of the two is None.

    A mask without gaps is converted to lengths if its values are known, because lengths
    need no reordering of steps. The arguments are as in `as_mask`.
    """
    array = as_mask(mask, lengths, shape, axis)
    if array is None:
        return None, lengths
    known = concrete_or_none(mask if isinstance(mask, np.ndarray) else array)
    if known is None or (np.diff(known.astype(np.int8), axis=axis) > 0).any():
        return array, None
    return None, known.sum(axis)


def as_mask(
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
    must = "be None if `sequence_length` is given"
    expect(lengths is None, "mask", must, mask)
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
    if resets is not None:
        fix = "Convert numbers with `resets > 0`."
        resets = as_step_booleans("resets", resets, shape, axis, fix)
    if reset_state is not None:
        must = "be given with `reset_state`"
        expect(resets is not None, "resets", must, resets)
        reset_state = as_arrays("reset_state", reset_state)
    return resets, reset_state


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

    zeros = jax.tree.map(cast, with_structure(state, zeros), state)
    return like(name, zeros, state, fix=fix)
