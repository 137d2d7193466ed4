"""Checks the values that `raw_rnn`'s `loop_fn` returns, at time 0 and later."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._base import arguments, errors, math, trees
from .._base.errors import EntryError, Verbatim, counted, describe, describe_structure
from .._base.expect import expect
from .._base.inputs import as_array, as_arrays, check_same_size
from .._base.like import check_structure
from .._base.trees import without_read_only
from .._base.typing import Array, PyTree, RNNCellLike
from .._tensor_array.carried import is_like, is_opaque, opaque

EMIT_FIX = (
    "At time 0, `emit_output` describes one row: return arrays without a batch axis, "
    "`()` to emit nothing, or None to emit outputs of `cell.output_size`."
)
STATE_FIX = (
    "The `next_cell_state` at time 0 sets this type. To start all rows from one state, "
    "apply `jnp.broadcast_to` at time 0."
)
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
    next_input = _as_inputs(next_input)
    batch_size = jax.tree.leaves(next_input)[0].shape[0]
    fix = f"At time 0, return a state, such as `cell.zero_state({batch_size}, dtype)`."
    arguments.check_given("next_cell_state", state, fix, "an initial state")
    state = as_arrays("next_cell_state", state)
    what = "the first `next_cell_state` (see `cell.state_size`)"
    masked = without_read_only(state)
    check_structure(what, cell.state_size, opaque(masked), strict=True)
    emit_types = _emit_types(cell, template, state, batch_size)
    finished = _as_finished(finished)
    _check_rows(finished, batch_size, (masked, emit_types))
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
        carry: The values before the call.
        emit_types: The types of the emitted values, from `check_first_call`.

    Raises:
        ValueError: If a structure or shape differs from time 0.
        TypeError: If a dtype or a sequence type differs from time 0.
    """
    finished, next_input, state, emit, next_loop_state = _five(returned)
    finished = _as_finished(finished)
    fits = finished.shape in (carry.finished.shape, ())
    must = "be a scalar as at time 0"
    fix = "To return [batch] later, return `jnp.zeros(batch, bool)` at time 0."
    if carry.finished.ndim:
        must = f"be a scalar or have shape {list(carry.finished.shape)} as at time 0"
        fix = ""
    expect(fits, "finished", must, finished, fix)
    finished = jnp.broadcast_to(finished, carry.finished.shape)
    next_input = as_like("next_input", next_input, carry.next_input)
    state = as_like("next_cell_state", state, carry.state, STATE_FIX)
    emit = as_like("emit_output", emit, emit_types, EMIT_FIX)
    if next_loop_state is None:
        return finished, next_input, state, emit, carry.loop_state
    had_one = carry.loop_state is not None
    must = "be None as at time 0"
    fix = "Return a loop state from time 0 on."
    expect(had_one, "next_loop_state", must, next_loop_state, fix)
    loop_state = as_like("next_loop_state", next_loop_state, carry.loop_state)
    return finished, next_input, state, emit, loop_state


def _five(returned: PyTree) -> PyTree:
    must = f"return ({', '.join(NAMES)})"
    is_tuple = isinstance(returned, tuple | list)
    expect(is_tuple, "loop_fn", must, returned, error=TypeError)
    if len(returned) != len(NAMES):
        got = counted(len(returned), "value")
        raise ValueError(f"`loop_fn` must {must}, got {got}.")
    return returned


def _as_inputs(inputs: PyTree) -> PyTree:
    if not jax.tree.leaves(inputs):
        raise EntryError(
            "`next_input` must hold at least one array, got "
            f"{describe_structure(inputs)}."
        )
    inputs = as_arrays("next_input", inputs)
    named = list(trees.named_leaves("next_input", inputs))
    for name, leaf in named:
        arguments.check_rank(name, leaf, 1, "[batch, ...]", EntryError)
    check_same_size(named)
    return inputs


def _as_finished(finished: object) -> Array:
    is_one = finished is not None and not isinstance(finished, tuple | list | dict)
    must = "be one boolean array, [batch] or a scalar"
    expect(is_one, "finished", must, finished)
    array = as_array("finished", finished)
    fix = "Return a comparison, such as `time >= lengths`."
    expect(
        jnp.issubdtype(array.dtype, jnp.bool_),
        "finished",
        "be of dtype bool",
        array,
        fix,
        error=TypeError,
    )
    return array


def _check_rows(finished: Array, batch_size: int, masked: PyTree) -> None:
    """Raises ValueError unless `finished` fits the batch axis of all masked leaves."""
    if finished.shape == ():
        return
    names = ("next_cell_state", "emit_output")
    pairs = zip(names, masked, strict=True)
    named = [
        x for pair in pairs for x in trees.named_leaves(*pair, trees.is_tensor_array)
    ]
    arrays = [(n, x) for n, x in named if not trees.is_tensor_array(x) and x.ndim]
    by_rows = finished.shape == (batch_size,)
    must = f"have {counted(batch_size, 'row')} like `next_input`"
    for name, leaf in arrays:
        fits = not by_rows or leaf.shape[:1] == finished.shape
        fix = "To start all rows from one state, apply `jnp.broadcast_to`."
        expect(fits, name, must, leaf, fix)
    fits = by_rows or (named and all(finished.shape == x.shape for _, x in arrays))
    must = f"be a scalar or have shape [{batch_size}], one entry for each row"
    expect(fits, "finished", must, finished)


def _emit_types(
    cell: RNNCellLike, template: PyTree, state: PyTree, batch_size: int
) -> PyTree:
    """The types of the emitted values, from a template or from `cell.output_size`."""
    if template is None:
        dtype = next((x.dtype for x in jax.tree.leaves(state)), None)

        def of_shape(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((batch_size, *shape), dtype)

        return trees.map_sizes(of_shape, cell.output_size, "cell.output_size")

    def emitted(path: tuple, leaf: Any) -> jax.ShapeDtypeStruct:
        shaped = errors.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
        fits = shaped and not errors.is_key(leaf)
        name = errors.leaf_name("emit_output", path)
        must = "be an array of numbers or booleans without a batch axis"
        fix = "To emit one number per row, return `jnp.zeros([], dtype)`."
        expect(fits, name, must, leaf, fix, error=TypeError)
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        return jax.ShapeDtypeStruct((batch_size, *leaf.shape), dtype)

    return jax.tree_util.tree_map_with_path(emitted, template, is_leaf=is_opaque)


def as_like(name: str, tree: PyTree, like: PyTree, fix: str = "") -> PyTree:
    """Converts the tree to arrays, and checks that their types match `like`.

    A TensorArray must have been created with the same arguments as the TensorArray in
    `like`, but may have more elements.

    Args:
        name: The name of the tree, for messages.
        tree: A nest that the user returned.
        like: The nest from time 0.
        fix: The end of a message, which explains how to fix the error.

    Raises:
        TypeError: If dtypes or sequence types differ.
        ValueError: If structures or shapes differ.
    """
    if tree is None:
        raise ValueError(
            f"`{name}` must have the structure {describe_structure(like)} from time 0, "
            f"where * is an array, got None. {fix}".rstrip()
        )
    at_start = f"Return the same structure as at time 0. {fix}".rstrip()
    check_structure(f"`{name}`", opaque(like), opaque(tree), True, at_start)
    wanted = jax.tree.leaves(like, is_leaf=trees.is_tensor_array)
    pairs = zip(trees.named_leaves(name, tree, is_opaque), wanted, strict=True)
    leaves = [_leaf_like(name, leaf, want, fix) for (name, leaf), want in pairs]
    structure = jax.tree.structure(tree, is_leaf=is_opaque)
    return jax.tree.unflatten(structure, leaves)


def _leaf_like(name: str, leaf: PyTree, like: PyTree, fix: str) -> PyTree:
    if trees.is_tensor_array(leaf) or trees.is_tensor_array(like):
        must = f"be an array as at time 0, {describe(like)}"
        if trees.is_tensor_array(like):
            must = f"be {like!r} from time 0, or the result of writes to this array"
        got = Verbatim(repr(leaf)) if trees.is_tensor_array(leaf) else leaf
        expect(is_like(like, leaf), name, must, got)
        return leaf
    array = math.cast_if_weak(as_array(name, leaf), like.dtype)
    must = f"have dtype {like.dtype} as at time 0"
    expect(array.dtype == like.dtype, name, must, array, fix, error=TypeError)
    must = f"have shape {like.shape} as at time 0"
    arguments.check_shape(name, array, like.shape, must, fix)
    return array
