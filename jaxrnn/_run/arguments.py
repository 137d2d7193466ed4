"""Checks of the arguments of a run: its mask, its resets, and its states."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._base.arguments import check_instance
from .._base.errors import expect, is_key
from .._base.inputs import (
    as_arrays,
    as_step_booleans,
    check_structure,
    like,
    to_all_rows,
    warn_of_plain_pair,
)
from .._base.trees import has_read_only, is_tensor_array, named_leaves, with_structure
from .._base.typing import Array, ArrayLike, AxisSize, Lengths, PyTree, RNNCellLike
from .._tensor_array.carried import with_capacity_for
from .run import Choice

IMPLEMENTATIONS = "xla", "native"


def as_initial_state(
    cell: RNNCellLike, state: PyTree, time: AxisSize, strict: bool
) -> PyTree:
    """Returns the user's state, if any, as arrays with room for `time` writes.

    Warns of a plain pair instead of an `LSTMStateTuple`; if `strict`, `probe` raises an
    error later instead.
    """
    if state is None:
        return None
    state = as_arrays("initial_state", with_capacity_for(state, time))
    if not strict:
        warn_of_plain_pair("initial_state", cell.state_size, state)
    return state


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


def as_reset_state(given: PyTree, zeros: Callable[[], PyTree], state: PyTree) -> PyTree:
    """Returns the state that rows are reset to, with the structure of `state`.

    Args:
        given: The user's argument `reset_state`; None for the zero state.
        zeros: Returns the zero state of the cell, which is cast to the dtypes of
            `state`.
        state: The initial state of the run.

    Raises:
        ValueError: If structures or shapes differ, or if the state has no zero.
        TypeError: If dtypes differ.
    """
    if given is not None:
        fix = _fix_of_reset_state(given, state)
        return like("reset_state", given, state, fix=fix)
    must = "be given if the state has read-only parts, such as an attention memory"
    expect(not has_read_only(state), "reset_state", must, given)
    for path, leaf in named_leaves("initial_state", state, is_tensor_array):
        must = f"be given, because `{path}` holds random keys, which have no zero"
        fix = (
            "Pass the keys after a reset to `dynamic_rnn`, a module `RNN` or a stream."
        )
        expect(not is_key(leaf), "reset_state", must, given, fix)
    zero = zeros()
    fix = "Pass a state like the result of `cell.zero_state`, or also a `reset_state`."
    check_structure("`initial_state`", zero, state, strict=False, fix=fix)

    def cast(zero: Array, leaf: Array) -> Array:
        is_narrower = jnp.iscomplexobj(zero) and not jnp.iscomplexobj(leaf)
        return (zero.real if is_narrower else zero).astype(leaf.dtype)

    zero = jax.tree.map(cast, with_structure(state, zero), state)
    return like("cell.zero_state()", zero, state, fix="Pass a `reset_state`.")


def _fix_of_reset_state(given: PyTree, state: PyTree) -> str:
    """What to do if a leaf lacks the batch axis, or has a time axis."""
    leaves = jax.tree.leaves(given), jax.tree.leaves(state)
    for got, want in zip(*leaves, strict=False):
        if want.ndim and got.shape == want.shape[1:]:
            return to_all_rows(want.shape)
        if got.ndim == want.ndim + 1 and got.shape[2:] == want.shape[1:]:
            return (
                "A row has one reset state for all its resets. To start each sequence "
                "from its own state, use `pack_sequences` and `packed_rnn`."
            )
    return ""


def check_has_rows(state: PyTree) -> None:
    """Raises ValueError unless all leaves of the state have a batch axis.

    With a mask, the loop runs different steps of different rows at the same time, so a
    shared leaf has no value for a step of one row.
    """
    must = "be an array [batch, ...], with `mask` or `return_states`"
    fix = "Make it an output of the cell, or pass `sequence_length` instead of `mask`."
    for name, leaf in named_leaves("state", state, is_tensor_array):
        has_rows = not is_tensor_array(leaf) and leaf.ndim > 0
        expect(has_rows, name, must, leaf, fix)


def as_implementation(implementation: str | None) -> str | None:
    """Returns None or the name of a known implementation; raises otherwise."""
    what = f"None or one of {', '.join(IMPLEMENTATIONS)}"
    check_instance("implementation", implementation, str | None, what)
    is_known = implementation in (None, *IMPLEMENTATIONS)
    fix = ""
    if implementation == "cudnn":
        fix = "jaxrnn does not call cuDNN. Omit `implementation` to use XLA's loop, "
        fix += "which runs every cell on GPUs."
    expect(is_known, "implementation", f"be {what}", implementation, fix)
    return implementation


def check_implementation(asked: str | None, choice: Choice) -> None:
    """Raises ValueError if the requested implementation cannot run the cell."""
    if asked not in (None, "xla", choice.name):
        reason = choice.reason or f"the cell runs in the loop {choice.name!r}"
        raise ValueError(
            f"`implementation` {asked!r} cannot run this cell on these sequences: "
            f"{reason}. Omit `implementation` to use XLA's loop."
        )
