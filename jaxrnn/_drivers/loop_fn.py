"""Checks the values that `raw_rnn`'s `loop_fn` returns, at time 0 and later."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._base import arguments, errors, trees
from .._base.errors import EntryError, counted
from .._base.expect import expect
from .._base.inputs import as_array, as_arrays, check_same_size
from .._base.like import check_structure, like
from .._base.trees import named_leaves, opaque, without_read_only
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


def check_first_call(cell: RNNCellLike, returned: PyTree) -> FirstCall:
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
    next_input, batch_size = _as_inputs(next_input)
    fix = f"At time 0, return a state, such as `cell.zero_state({batch_size}, dtype)`."
    arguments.check_given("next_cell_state", state, fix, "an initial state")
    state = as_arrays("next_cell_state", state)
    masked = opaque(without_read_only(state))
    what = "the first `next_cell_state` (see `cell.state_size`)"
    check_structure(what, cell.state_size, masked, strict=True)
    emit_types = _emit_types(cell, template, state, batch_size)
    # As in TensorFlow, `finished` may also have the shape of all masked values.
    shapes = {x.shape for x in jax.tree.leaves((masked, emit_types)) if np.ndim(x)}
    finished = _as_finished(
        finished, (batch_size,), *shapes if len(shapes) == 1 else ()
    )
    if finished.ndim:
        _check_rows(masked, batch_size)
    if loop_state is not None:
        loop_state = as_arrays("next_loop_state", loop_state)
    return finished, next_input, state, emit_types, loop_state


def check_next_call(
    returned: PyTree, carry: Carry, emit_types: PyTree
) -> tuple[Array, PyTree, PyTree, PyTree, PyTree]:
    """Checks the values of a later `loop_fn` call, and converts them to arrays.

    If the new loop state is None, the previous loop state is kept.

    Args:
        returned: The return value of `loop_fn`.
        carry: The values before the call, whose types must not change.
        emit_types: The types of the emitted values, from `check_first_call`.

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
    must = f"return ({', '.join(NAMES)})"
    is_tuple = isinstance(returned, tuple | list)
    expect(is_tuple, "loop_fn", must, returned, error=TypeError)
    expect(len(returned) == len(NAMES), "loop_fn", must, returned)
    return returned


def _as_inputs(inputs: PyTree) -> tuple[PyTree, int]:
    """Returns the inputs with arrays as leaves, and the batch size."""
    some = bool(jax.tree.leaves(inputs))
    expect(some, "next_input", "hold at least one array", inputs, error=EntryError)
    inputs = as_arrays("next_input", inputs)
    named = list(named_leaves("next_input", inputs))
    for name, leaf in named:
        must = "have rank at least 1, [batch, ...]"
        expect(leaf.ndim > 0, name, must, leaf, error=EntryError)
    check_same_size(named)
    return inputs, named[0][1].shape[0]


def _as_finished(finished: object, *shapes: tuple[int, ...]) -> Array:
    """Returns `finished` as a bool array of one of these shapes, or as a scalar."""
    is_nest = isinstance(finished, tuple | list)
    expect(not is_nest, "finished", "be one boolean array", finished)
    array = as_array("finished", finished)
    fix = "Return a comparison, such as `time >= lengths`."
    expect(array.dtype == bool, "finished", "be of dtype bool", array, fix, TypeError)
    must = (
        f"be a scalar or have shape {list(shapes[0])}" if shapes[0] else "be a scalar"
    )
    fix = "To return [batch] later, return `jnp.zeros(batch, bool)` at time 0."
    fits = array.shape in ((), *shapes)
    expect(fits, "finished", must, array, "" if shapes[0] else fix)
    return array


def _check_rows(state: PyTree, batch_size: int) -> None:
    """Raises ValueError unless every array with axes has `batch_size` rows."""
    must = f"have {counted(batch_size, 'row')} like `next_input`"
    for name, leaf in named_leaves("next_cell_state", state):
        fits = np.shape(leaf)[:1] in ((batch_size,), ())
        expect(fits, name, must, leaf, STATE_FIX)


def _emit_types(
    cell: RNNCellLike, template: PyTree, state: PyTree, batch_size: int
) -> PyTree:
    """The types of the emitted values, from a template or from `cell.output_size`."""
    if template is None:
        dtype = next((x.dtype for x in jax.tree.leaves(state)), None)
        size = cell.output_size
        return trees.types_of_size(size, batch_size, dtype, "cell.output_size")

    def emitted(name: str, leaf: Any) -> jax.ShapeDtypeStruct:
        shaped = errors.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
        must = "be an array of numbers or booleans without a batch axis"
        fix = "To emit one number per row, return `jnp.zeros([], dtype)`."
        fits = shaped and not errors.is_key(leaf)
        expect(fits, name, must, leaf, fix, error=TypeError)
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        return jax.ShapeDtypeStruct((batch_size, *leaf.shape), dtype)

    is_leaf = trees.is_tensor_array
    return trees.map_named("emit_output", emitted, template, is_leaf)
