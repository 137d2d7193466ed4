"""Checks the arguments `resets` and `reset_state`, and converts them to restarts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._base import arguments
from .._base.inputs import as_state, as_step_booleans
from .._base.read_only import has_read_only, without_read_only
from .._base.trees import check_structure, is_tensor_array, named_leaves
from .._base.typing import Array, DType, PyTree
from .._loops.steps import Restarts
from .._tensor_array.carried import with_capacity_for
from .initial_state import zero_state


class Resets(NamedTuple):
    """The resets that a user requests; `as_restarts` converts them for a loop.

    Attributes:
        where: Bool `[batch, time]`, true where a row's state is reset before the step.
        state: The state that rows are reset to, each leaf `[batch, ...]`; None for the
            zero state. The reset state can differ from the initial state: if a rollout
            is split into segments, a segment starts from the final state of the
            previous segment.
    """

    where: Array
    state: PyTree

    def with_state_like(
        self, cell: Any, like: PyTree, time: Any, dtype: DType
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
                what = "given for a cell whose state has read-only parts"
                arguments.check_given("reset_state", None, "", what)
            zeros = zero_state(cell, self.where.shape[0], dtype)
        state, zeros = with_capacity_for((self.state, zeros), time)
        return self._replace(state=as_reset_state(state, zeros, like))

    def as_restarts(self, lengths: Array | None, axis: int) -> Restarts:
        """Converts resets within the rows' lengths to restarts."""
        where, (batch_size, time) = self.where, self.where.shape
        if lengths is not None:
            where &= jnp.arange(time, dtype=jnp.int32)[None, :] < lengths[:, None]
        rows = jnp.arange(batch_size, dtype=jnp.int32)[:, None]
        numbers = jnp.swapaxes(jnp.where(where, rows, jnp.int32(-1)), 1, axis)
        return Restarts(numbers, without_read_only(self.state), are_resets=True)


def as_resets(
    resets: Any, reset_state: PyTree, shape: tuple, axis: int | None
) -> Resets | None:
    """Checks a driver's arguments; returns the resets, or None if there are none.

    Args:
        resets: The driver's argument `resets`.
        reset_state: The driver's argument `reset_state`.
        shape: The sizes of the first two axes of the inputs.
        axis: The time axis, 0 or 1; None if the resets belong to one step.

    Raises:
        ValueError: If shapes disagree, or if `reset_state` is given without `resets`.
        TypeError: If the resets are not booleans.
    """
    resets = check_resets(resets, shape, axis)
    if reset_state is not None:
        what, fix = "given with a `reset_state`", "They mark where rows are reset."
        arguments.check_given("resets", resets, fix, what)
        reset_state = as_state("reset_state", reset_state)
    if resets is None:
        return None
    return Resets(jnp.swapaxes(resets, 1, axis) if axis == 0 else resets, reset_state)


def check_resets(resets: Any, shape: tuple, axis: int | None) -> Array | None:
    """Checks `resets` like `as_resets`; returns an array, or None if there is none."""
    if resets is None:
        return None
    fix = "Convert numbers with `done > 0`."
    return as_step_booleans("resets", resets, shape, axis, fix)


def as_reset_state(state: PyTree, zeros: PyTree, like: PyTree) -> PyTree:
    """Returns the state that rows are reset to, with the structure of `like`.

    Args:
        state: The user's argument `reset_state`; None for `zeros`.
        zeros: The zero state of the cell.
        like: The initial state of the run; zeros are cast to its dtypes.

    Raises:
        ValueError: If structures or shapes differ.
        TypeError: If dtypes differ.
    """
    if state is None:
        return _zeros_like(zeros, like)
    check_structure("`reset_state`", like, state, strict=False)

    def checked(name: str, leaf: Any, like: Any) -> Any:
        if is_tensor_array(leaf):
            return leaf
        must = f"have the shape of the initial state, {like.shape}"
        fix = "Repeat one state for all rows with `jnp.broadcast_to`."
        arguments.check_shape(name, leaf, like.shape, must, fix)
        must = f"have the dtype of the initial state, {like.dtype}"
        arguments.check_dtype(name, leaf, like.dtype, must, "Cast it.")
        return leaf

    return _map_leaves(checked, "reset_state", state, like)


def _zeros_like(zeros: PyTree, state: PyTree) -> PyTree:
    """Casts the zero state to the dtypes of an initial state of the same shapes."""
    check_structure("`initial_state`", zeros, state, strict=False)

    def cast(name: str, leaf: Any, zero: Any) -> Any:
        if is_tensor_array(zero):
            return zero
        must = f"have the shape of the cell's zero state, {zero.shape}"
        arguments.check_shape(name, leaf, zero.shape, must)
        return zero.astype(leaf.dtype)

    return _map_leaves(cast, "initial_state", state, zeros)


def _map_leaves(fn: Callable, name: str, tree: PyTree, like: PyTree) -> PyTree:
    """Maps `fn(name, leaf, other)` over the leaves of `tree` and `like`."""
    leaves, structure = jax.tree.flatten(like, is_leaf=is_tensor_array)
    named = zip(named_leaves(name, tree, is_tensor_array), leaves, strict=True)
    return structure.unflatten([fn(*pair, leaf) for pair, leaf in named])
