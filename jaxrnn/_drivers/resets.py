"""The arguments `resets` and `reset_state`: checked, and as restarts of a run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._base import arguments
from .._base.inputs import as_state, as_step_booleans
from .._base.read_only import has_read_only, without_read_only
from .._base.trees import check_structure, is_tensor_array, named_leaves
from .._base.typing import Array, DType, PyTree
from .._tensor_array.carried import with_capacity_for
from .._time.steps import Restarts
from .initial_state import zero_state


class Resets(NamedTuple):
    """The resets that a user asks for; as `Restarts` a loop can take them.

    Attributes:
        where: Bool `[batch, time]`, the steps before which a row's state is reset.
        state: The state that it is reset to, each leaf `[batch, ...]`; None for the
            zero state. It is not the initial state: that of a part of a rollout is the
            state after the part before.
    """

    where: Array
    state: PyTree

    def with_state_like(
        self, caller: str, cell: Any, like: PyTree, time: Any, dtype: DType
    ) -> "Resets":
        """The same resets, to a state of the structure and the dtypes of `like`.

        Args:
            caller: The driver, for messages.
            cell: The cell, which may make the zero state.
            like: The initial state.
            time: The number of steps.
            dtype: The dtype of the zero state.

        Raises:
            ValueError: If structures or shapes differ; if there is no zero state.
            TypeError: If dtypes do.
        """
        zeros = None
        if self.state is None:
            if has_read_only(like):
                what = "given for a cell whose state has read-only parts"
                arguments.check_given(caller, "reset_state", None, "", what)
            zeros = zero_state(caller, cell, self.where.shape[0], dtype)
        state, zeros = with_capacity_for((self.state, zeros), time)
        return self._replace(state=as_reset_state(caller, state, zeros, like))

    def as_restarts(self, lengths: Array | None, axis: int) -> Restarts:
        """Those before the rows' lengths as a loop takes them, time along `axis`."""
        where, (batch_size, time) = self.where, self.where.shape
        if lengths is not None:
            where &= jnp.arange(time, dtype=jnp.int32)[None, :] < lengths[:, None]
        rows = jnp.arange(batch_size, dtype=jnp.int32)[:, None]
        numbers = jnp.swapaxes(jnp.where(where, rows, jnp.int32(-1)), 1, axis)
        return Restarts(numbers, without_read_only(self.state), are_resets=True)


def as_resets(
    caller: str, resets: Any, reset_state: PyTree, shape: tuple, axis: int | None
) -> Resets | None:
    """The resets as a driver's loop takes them; None if there are none.

    Args:
        caller: The driver, for messages.
        resets: Its argument.
        reset_state: Its argument.
        shape: The first two axes of the inputs.
        axis: The time axis, 0 or 1; None if the resets are those of one step.

    Raises:
        ValueError: If shapes disagree, or there is a state and no resets.
        TypeError: If the resets are not booleans.
    """
    resets = check_resets(caller, resets, shape, axis)
    if reset_state is not None:
        what, fix = "given with a `reset_state`", "They tell where rows go to it."
        arguments.check_given(caller, "resets", resets, fix, what)
        reset_state = as_state(caller, "reset_state", reset_state)
    if resets is None:
        return None
    return Resets(jnp.swapaxes(resets, 1, axis) if axis == 0 else resets, reset_state)


def check_resets(
    caller: str, resets: Any, shape: tuple, axis: int | None
) -> Array | None:
    """The resets as an array, checked as by `as_resets`; None stays None."""
    if resets is None:
        return None
    fix = "Compare numbers: `done > 0`."
    return as_step_booleans(caller, "resets", resets, shape, axis, fix)


def as_reset_state(caller: str, state: PyTree, zeros: PyTree, like: PyTree) -> PyTree:
    """The state that resets go to, with the structure of another.

    Args:
        caller: The driver, for messages.
        state: What the user gave; None for `zeros`.
        zeros: The zero state of the cell.
        like: The state of the run, whose dtypes the zeros get.

    Raises:
        ValueError: If structures or shapes differ.
        TypeError: If dtypes do.
    """
    if state is None:
        return _zeros_like(caller, zeros, like)
    check_structure(f"{caller}: `reset_state`", like, state, strict=False)

    def checked(name: str, leaf: Any, like: Any) -> Any:
        if is_tensor_array(leaf):
            return leaf
        must = f"have the shape of the initial state, {like.shape}"
        fix = "`jnp.broadcast_to` makes rows of one state."
        arguments.check_shape(caller, name, leaf, like.shape, must, fix)
        must = f"have the dtype of the initial state, {like.dtype}"
        arguments.check_dtype(caller, name, leaf, like.dtype, must, "Cast it.")
        return leaf

    return _map_leaves(checked, "reset_state", state, like)


def _zeros_like(caller: str, zeros: PyTree, state: PyTree) -> PyTree:
    """The zero state with the dtypes of an initial state, which must be like it."""
    check_structure(f"{caller}: `initial_state`", zeros, state, strict=False)

    def cast(name: str, leaf: Any, zero: Any) -> Any:
        if is_tensor_array(zero):
            return zero
        must = f"have the shape of the cell's zero state, {zero.shape}"
        arguments.check_shape(caller, name, leaf, zero.shape, must)
        return zero.astype(leaf.dtype)

    return _map_leaves(cast, "initial_state", state, zeros)


def _map_leaves(fn: Callable, name: str, tree: PyTree, like: PyTree) -> PyTree:
    """`fn(name, leaf, leaf of like)` of each leaf, in the structure of `like`."""
    leaves, structure = jax.tree.flatten(like, is_leaf=is_tensor_array)
    named = zip(named_leaves(name, tree, is_tensor_array), leaves, strict=True)
    return structure.unflatten([fn(*pair, leaf) for pair, leaf in named])
