"""Checks the arguments `mask`, `resets` and `reset_state`, and converts them.

A mask without gaps becomes lengths; resets become the restarts of a loop.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._base import arguments
from .._base.expect import expect
from .._base.inputs import as_arrays, as_step_booleans, to_all_rows
from .._base.like import check_structure
from .._base.math import concrete_or_none
from .._base.trees import (
    has_read_only,
    is_tensor_array,
    named_leaves,
    without_read_only,
)
from .._base.typing import (
    Array,
    ArrayLike,
    AxisSize,
    DType,
    Lengths,
    PyTree,
    RNNCellLike,
)
from .._loops.steps import Restarts
from .._tensor_array.carried import with_capacity_for
from .first_step import zero_state


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


class Resets(NamedTuple):
    """The resets that a user requests; `as_restarts` converts them for a loop.

    Attributes:
        where: Bool `[batch, time]`, true where a row's state is reset before the step.
        state: The state that rows are reset to, each leaf `[batch, ...]`; None for the
            zero state. The reset state can differ from the initial state: if a rollout
            is split into windows, a window starts from the final state of the previous
            window.
    """

    where: Array
    state: PyTree

    def with_state_like(
        self, cell: RNNCellLike, like: PyTree, time: AxisSize, dtype: DType
    ) -> "Resets":
        """Returns the resets with a state in the structure and dtypes of `like`.

        Raises:
            ValueError: If structures or shapes differ; if the cell needs a
                `reset_state` and none is given.
            TypeError: If dtypes differ.
        """
        zeros = None
        if self.state is None:
            if has_read_only(like):
                what = (
                    "given if the state has read-only parts, such as an attention "
                    "memory"
                )
                arguments.check_given("reset_state", None, "", what)
            zeros = zero_state(cell, self.where.shape[0], dtype)
        state, zeros = with_capacity_for((self.state, zeros), time)
        return self._replace(state=as_reset_state(state, zeros, like))

    def as_restarts(
        self, lengths: Array | None, axis: int, are_zeros: bool
    ) -> Restarts:
        """Converts resets within the rows' lengths to restarts.

        Args:
            lengths: The length of each row; None if all steps are valid.
            axis: The time axis of the inputs, 0 or 1.
            are_zeros: Whether the reset state is known to be zeros.
        """
        where = self.where
        batch_size, time = where.shape
        if lengths is not None:
            where &= jnp.arange(time, dtype=jnp.int32)[None, :] < lengths[:, None]
        rows = jnp.arange(batch_size, dtype=jnp.int32)[:, None]
        numbers = jnp.swapaxes(jnp.where(where, rows, jnp.int32(-1)), 1, axis)
        state = without_read_only(self.state)
        return Restarts(numbers, state, are_resets=True, are_zeros=are_zeros)


def as_resets(
    resets: ArrayLike | None, reset_state: PyTree, shape: tuple, axis: int | None
) -> Resets | None:
    """Checks the user's arguments; returns the resets, or None if there are none.

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
    if resets is None:
        return None
    return Resets(jnp.swapaxes(resets, 1, axis) if axis == 0 else resets, reset_state)


def check_resets(
    resets: ArrayLike | None, shape: tuple, axis: int | None
) -> Array | None:
    """Checks `resets` like `as_resets`; returns an array, or None if there is none."""
    if resets is None:
        return None
    fix = "Convert numbers with `resets > 0`."
    return as_step_booleans("resets", resets, shape, axis, fix)


def as_reset_state(state: PyTree, zeros: PyTree, like: PyTree) -> PyTree:
    """Returns the state that rows are reset to, with the structure of `like`.

    Args:
        state: The user's argument `reset_state`; None for `zeros`.
        zeros: The zero state of the cell, which is cast to the dtypes of `like`.
        like: The initial state of the run.

    Raises:
        ValueError: If structures or shapes differ.
        TypeError: If dtypes differ.
    """
    is_given = state is not None
    reset_state = state if is_given else zeros
    name = "reset_state" if is_given else "cell.zero_state()"
    fix = "" if is_given else "Pass a `reset_state`."
    check_structure(f"`{name}`", like, reset_state, strict=is_given, fix=fix)
    leaves, structure = jax.tree.flatten(like, is_leaf=is_tensor_array)
    named = named_leaves(name, reset_state, is_tensor_array)
    checked = []
    for (name, leaf), of_run in zip(named, leaves, strict=True):
        if not is_tensor_array(leaf):
            must = f"have the shape of the initial state, {of_run.shape}"
            fix = "Pass a `reset_state`."
            if is_given:
                fix = to_all_rows(of_run.shape)
            arguments.check_shape(name, leaf, of_run.shape, must, fix)
            if is_given:
                must = f"have the dtype of the initial state, {of_run.dtype}"
                expect(leaf.dtype == of_run.dtype, name, must, leaf, error=TypeError)
            is_narrower = jnp.iscomplexobj(leaf) and not jnp.iscomplexobj(of_run)
            leaf = (leaf.real if is_narrower else leaf).astype(of_run.dtype)
        checked.append(leaf)
    return structure.unflatten(checked)
