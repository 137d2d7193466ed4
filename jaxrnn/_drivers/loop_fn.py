"""Checks the values that `raw_rnn`'s `loop_fn` returns, at time 0 and later."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import is_list_of
from .._base.errors import EntryError, counted, is_array, is_key
from .._base.expect import expect
from .._base.inputs import (
    as_array,
    as_arrays,
    check_rows_of_state,
    check_same_size,
    named_inputs,
)
from .._base.like import check_structure, like
from .._base.trees import (
    is_tensor_array,
    map_named,
    opaque,
    types_of_size,
    without_read_only,
)
from .._base.typing import Array, PyTree, RNNCellLike

EMIT_FIX = (
    "At time 0, `emit_output` describes one row: return arrays without a batch axis, "
    "`()` to emit nothing, or None to emit outputs of `cell.output_size`."
)
SAME_FIX = "Return the same structure as at time 0."
STATE_FIX = "To start all rows from one state, apply `jnp.broadcast_to` at time 0."
NAMES = ("finished", "next_input", "next_cell_state", "emit_output", "next_loop_state")

FirstCall = tuple[Array, PyTree, PyTree, PyTree, PyTree]
"""`(finished, next_input, initial_state, emit_types, loop_state)`."""


class Carry(NamedTuple):
    """The values that each step reads and replaces."""

    finished: Array
    next_input: PyTree
    state: PyTree
    loop_state: PyTree


def first_values(cell: RNNCellLike, returned: PyTree) -> FirstCall:
    """Checks the values that `loop_fn` returned at time 0, and converts them to arrays.

    Args:
        cell: The cell, which defines the sizes.
        returned: The return value of `loop_fn`.

    Returns:
        `(finished, next_input, initial_state, emit_types, loop_state)`. `finished` has
        dtype bool and shape `[batch]`, or is a bool scalar. The first input and the
        initial state have leaves `[batch, ...]`. `emit_types` has a
        `jax.ShapeDtypeStruct` `[batch, ...]` for each leaf that a step emits. The
        initial loop state may be None.

    Raises:
        ValueError: If `loop_fn` did not return five values; if the state does not have
            the structure of `cell.state_size`; if batch sizes disagree.
        EntryError: If `next_input` holds no array, or holds a scalar.
        TypeError: If `finished` is not bool; if a leaf is not an array.
    """
    finished, next_input, state, template, loop_state = _five(returned)
    next_input = as_arrays("next_input", next_input)
    named = named_inputs(next_input, name="next_input")
    for name, leaf in named:
        expect(leaf.ndim > 0, name, "be [batch, ...]", leaf, error=EntryError)
    check_same_size(named)
    rows = named[0][1].shape[0]
    state = as_arrays("next_cell_state", state)
    masked = opaque(without_read_only(state))
    what = "the first `next_cell_state` (see `cell.state_size`)"
    check_structure(what, cell.state_size, masked, strict=True)
    emit_types = _emit_types(cell, template, state, rows)
    # As in TensorFlow, `finished` may also have the shape of all masked values.
    shapes = {x.shape for x in jax.tree.leaves((masked, emit_types)) if np.ndim(x)}
    finished = _as_finished(finished, (rows,), *shapes if len(shapes) == 1 else ())
    if finished.ndim:
        must = f"have {counted(rows, 'row')} like `next_input`"
        check_rows_of_state(state, rows, must, STATE_FIX)
    if loop_state is not None:
        loop_state = as_arrays("next_loop_state", loop_state)
    return finished, next_input, state, emit_types, loop_state


def next_values(
    returned: PyTree, carry: Carry, emit_types: PyTree
) -> tuple[Array, PyTree, PyTree, PyTree, PyTree]:
    """Checks the values of a later `loop_fn` call, and converts them to arrays.

    If the new loop state is None, the previous loop state is kept.

    Args:
        returned: The return value of `loop_fn`.
        carry: The values before the call, whose types must not change.
        emit_types: The types of the emitted values, from `first_values`.

    Raises:
        ValueError: If a structure or shape differs from time 0.
        TypeError: If a dtype or a sequence type differs from time 0.
    """
    finished, next_input, state, emit, loop_state = _five(returned)
    shape = carry.finished.shape
    return (
        jnp.broadcast_to(_as_finished(finished, shape), shape),
        like("next_input", next_input, carry.next_input, fix=SAME_FIX),
        like("next_cell_state", state, carry.state, fix=STATE_FIX),
        like("emit_output", emit, emit_types, fix=EMIT_FIX),
        carry.loop_state
        if loop_state is None
        else like("next_loop_state", loop_state, carry.loop_state, fix=SAME_FIX),
    )


def _five(returned: PyTree) -> PyTree:
    fits = is_list_of(returned, len(NAMES))
    error = ValueError if isinstance(returned, tuple | list) else TypeError
    expect(fits, "loop_fn", f"return ({', '.join(NAMES)})", returned, error=error)
    return returned


def _as_finished(finished: object, *shapes: tuple[int, ...]) -> Array:
    """Returns `finished` as a bool array of one of these shapes, or as a scalar."""
    is_nest = isinstance(finished, tuple | list)
    expect(not is_nest, "finished", "be one boolean array", finished)
    array = as_array("finished", finished)
    fix = "Return a comparison, such as `time >= lengths`."
    expect(array.dtype == bool, "finished", "be of dtype bool", array, fix, TypeError)
    must = f"be a scalar or have shape {list(shapes[0])}"
    fix = "To return [batch] later, return `jnp.zeros(batch, bool)` at time 0."
    expect(array.shape in ((), *shapes), "finished", must, array, fix)
    return array


def _emit_types(
    cell: RNNCellLike, template: PyTree, state: PyTree, rows: int
) -> PyTree:
    """The types of the emitted values, from a template or from `cell.output_size`."""
    if template is None:
        dtype = next((x.dtype for x in jax.tree.leaves(state)), None)
        return types_of_size(cell.output_size, rows, dtype, "cell.output_size")

    def emitted(name: str, leaf: Any) -> jax.ShapeDtypeStruct:
        shaped = is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
        must = "be an array without a batch axis, such as `jnp.zeros([])`"
        expect(shaped and not is_key(leaf), name, must, leaf, error=TypeError)
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        return jax.ShapeDtypeStruct((rows, *leaf.shape), dtype)

    return map_named("emit_output", emitted, template, is_tensor_array)
