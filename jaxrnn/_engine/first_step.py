"""What drivers do before a loop: they check masks, resets, states, and one step.

A mask without gaps becomes lengths. One step of the cell is evaluated abstractly, to
find errors before a loop is traced.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import is_list_of
from .._base.errors import counted, describe_leaves, error_note, expect, is_key
from .._base.inputs import (
    as_arrays,
    as_step_booleans,
    check_like,
    check_no_plain_tuple,
    check_rows_of_state,
    check_structure,
    like,
    to_all_rows,
    warn_of_plain_pair,
)
from .._base.math import concrete_or_none
from .._base.trees import (
    TensorShape,
    has_read_only,
    is_tensor_array,
    named_leaves,
    types_of_size,
    with_structure,
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
    bound_or_none,
)
from .._tensor_array.carried import with_capacity_for, with_known_shapes

_SEVERAL_DTYPES = "For outputs of several dtypes, use `raw_rnn`."


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


def mask_or_lengths(
    mask: ArrayLike | None,
    lengths: Lengths | None,
    shape: tuple,
    axis: int,
    axis_name: Any = None,
) -> tuple[Array | None, Lengths | None]:
    """Returns `(mask, sequence_length)`; at least one of the two is None.

    A mask without gaps is converted to lengths if it has one step or known values,
    because lengths need no reordering of steps. The first arguments are as in
    `as_mask`. With `axis_name`, the mask covers one device's steps, but lengths would
    count all steps.
    """
    array = as_mask(mask, lengths, shape, axis)
    if array is None or axis_name is not None:
        return array, lengths
    if shape[axis] == 1:
        return None, jnp.squeeze(array, axis).astype(jnp.int32)
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


def zero_state(cell: Any, batch_size: int, dtype: DType) -> PyTree:
    """Returns the cell's zero state, from `get_initial_state` or `zero_state`."""
    if hasattr(cell, "get_initial_state"):
        state = cell.get_initial_state(inputs=None, batch_size=batch_size, dtype=dtype)
    else:
        state = cell.zero_state(batch_size, dtype)
    return as_arrays("cell.zero_state()", state)


def rows_interact(cell: Any) -> bool:
    """Whether the cell declares that its rows interact; see `RNNCell`."""
    return getattr(cell, "rows_interact", False)


def text_of(cell: Any) -> str:
    """A cell in messages: the `repr` without parameters, or the name of a class."""
    bound = bound_or_none(cell)
    return repr(bound.cell) if bound else type(cell).__name__


def call_start(cell: Any, state: PyTree) -> PyTree:
    """Calls `cell.start` to prepare a state that has read-only parts."""
    return cell.start(state) if has_read_only(state) else state


def probe(
    cell: RNNCellLike,
    inputs: PyTree,
    state: PyTree,
    output_dtype: DType,
    strict: bool,
    time: Any = None,
) -> PyTree:
    """Checks one step of `cell`, and returns the state in a form that a loop can carry.

    The step is evaluated abstractly; nothing is computed. TensorArrays in the state get
    the element shape that they have after the step.

    Args:
        cell: The cell.
        inputs: One step of inputs.
        state: The state before the step.
        output_dtype: The dtype that every leaf of the output must have.
        strict: Whether a step must keep the sequence types of the state, such as list
            or tuple; True if there are lengths.
        time: The number of steps of the inputs, for an error's advice.

    Raises:
        ValueError: If the step changes the structure or shapes of the state, or if the
            output does not match `cell.output_size`.
        TypeError: If the step changes dtypes of the state or, with `strict`, sequence
            types; if the output does not have `output_dtype`.
    """
    rows, *_ = jax.tree.leaves(inputs)[0].shape
    _check_one_batch_axis(cell, inputs)
    rows_fix = fix_of_rows(cell, state, rows, time)
    output, new_state = one_step(cell, inputs, state, rows_fix)
    if strict:
        check_no_plain_tuple("initial_state", new_state, state)
    state = with_known_shapes(state, lambda: new_state)
    fix = rows_fix or (
        "A step must keep the structure, shapes and dtypes of its state. Change the "
        f"cell, or start from a state like the new one, {describe_leaves(new_state)}; "
        "for a zero state, pass another `dtype`."
    )
    check_like("new_state", new_state, state, strict=strict, fix=fix)
    if strict:
        must = f"have {counted(rows, 'row')} or be a scalar"
        check_rows_of_state(state, rows, must, rows_fix)
    types = types_of_size(cell.output_size, rows, output_dtype, "output_size")
    found = [x.dtype for x in jax.tree.leaves(output) if x.dtype != output_dtype]
    fix = "See `output_size` of the cell."
    if found:
        fix = f"Pass `dtype=jnp.{found[0]}`, or cast in the cell. {_SEVERAL_DTYPES}"
    check_like("output", output, types, strict=strict, fix=fix)
    return state


def _check_one_batch_axis(cell: Any, inputs: PyTree) -> None:
    """Raises ValueError if vectors come with several batch axes."""
    features = getattr(cell, "feature_axes", None)
    if features is None:
        return
    axes = counted(features, "feature axis", "feature axes")
    must = f"have 1 batch axis and {axes} at each step"
    fix = (
        "Merge the batch axes, as in `inputs.reshape(-1, *inputs.shape[-2:])`, or use "
        "a module `RNN` of `jaxrnn.linen` or `jaxrnn.nnx`, which takes several."
    )
    for name, leaf in named_leaves("inputs", inputs, is_tensor_array):
        expect(leaf.ndim <= 1 + features, name, must, leaf, fix)


def fix_of_rows(cell: Any, state: PyTree, rows: int, time: Any = None) -> str:
    """What to do if an initial state lacks its batch axis, or has a row per step."""
    own = jax.tree.leaves(without_read_only(state), is_leaf=is_tensor_array)
    for leaf, size in zip(own, jax.tree.leaves(cell.state_size), strict=False):
        shape = tuple(size) if isinstance(size, TensorShape) else (size,)
        if shape and not is_tensor_array(leaf) and leaf.shape == shape:
            return to_all_rows((rows, *shape))
    sizes = {leaf.shape[:1] for leaf in own if not is_tensor_array(leaf)}
    is_per_step = time != 0 and sizes == {(time,)}
    return f"The inputs have {time} steps: check `time_major`." if is_per_step else ""


def one_step(cell: Callable, inputs: PyTree, state: PyTree, fix: str = "") -> tuple:
    """Returns the types of `(output, new_state)`; adds a note to the cell's errors."""
    args = f"inputs {describe_leaves(inputs)} and state {describe_leaves(state)}"
    with error_note(f"Raised by one step of `cell`, called with {args}. {fix}".strip()):
        result = jax.eval_shape(lambda x, s: cell(x, s), inputs, state)
    return as_pair(result)


def as_pair(result: PyTree) -> tuple[PyTree, PyTree]:
    """Returns the output and the new state from the result of a cell.

    Raises:
        ValueError: If the result is not a pair.
    """
    must = "return a pair (output, new_state)"
    fix = "A state of several arrays is one nest: `return output, (c, h)`."
    expect(is_list_of(result, 2), "cell", must, result, fix)
    output, new_state = result
    return output, new_state
