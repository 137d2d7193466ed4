"""Creates the state before the first step, and checks one step of a cell.

The step is evaluated abstractly, to find errors before a loop is traced.
"""

from collections.abc import Callable
from typing import Any

import jax

from .._base.errors import counted, describe, describe_structure, error_note
from .._base.inputs import as_arrays, check_rows_of_state, to_all_rows
from .._base.like import check_structure
from .._base.trees import (
    TensorShape,
    has_read_only,
    is_tensor_array,
    named_leaves,
    size_shapes,
    without_read_only,
)
from .._base.typing import DType, PyTree, RNNCellLike, Size
from .._tensor_array.carried import with_known_shapes


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


def call_start(cell: Any, state: PyTree) -> PyTree:
    """Calls `cell.start` to prepare a state that has read-only parts."""
    return cell.start(state) if has_read_only(state) else state


def probe(
    cell: RNNCellLike,
    inputs: PyTree,
    state: PyTree,
    output_dtype: DType,
    strict: bool,
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

    Raises:
        ValueError: If the step changes the structure or shapes of the state, or if the
            output does not match `cell.output_size`.
        TypeError: If the step changes dtypes of the state or, with `strict`, sequence
            types; if the output does not have `output_dtype`.
    """
    batch = jax.tree.leaves(inputs)[0].shape[0]
    rows_fix = fix_of_rows(cell, state, batch)
    output, new_state = one_step(cell, inputs, state, rows_fix)
    state = with_known_shapes(state, lambda: new_state)
    fix = "Return the new state in the structure of the old state."
    if jax.tree.structure(cell.state_size) == jax.tree.structure(new_state):
        fix = "Start from a state with the structure of `cell.state_size`."
    check_structure("the new state of `cell`", state, new_state, strict, fix)
    _check_state(state, new_state)
    if strict:
        must = f"have {counted(batch, 'row')} or be a scalar"
        check_rows_of_state(state, batch, must, rows_fix)
    what = "the output of `cell` (see `output_size`)"
    check_structure(what, cell.output_size, output, strict)
    _check_output(cell.output_size, output, batch, output_dtype)
    return state


def fix_of_rows(cell: Any, state: PyTree, batch: int) -> str:
    """What to do if a leaf of an initial state lacks only its batch axis."""
    own = without_read_only(state)
    leaves = jax.tree.leaves(own, is_leaf=is_tensor_array)
    sizes = jax.tree.leaves(cell.state_size)
    for leaf, size in zip(leaves, sizes, strict=False):
        shape = tuple(size) if isinstance(size, TensorShape) else (size,)
        if not is_tensor_array(leaf) and shape and leaf.shape == shape:
            return to_all_rows((batch, *shape))
    return ""


def one_step(cell: Callable, inputs: PyTree, state: PyTree, fix: str = "") -> tuple:
    """Returns the types of `(output, new_state)`; adds a note to the cell's errors."""
    args = f"inputs {_all(inputs)} and initial state {_all(state)}"
    note = f"Raised by one step of `cell`, called with {args}. {fix}".rstrip()
    with error_note(note):
        result = jax.eval_shape(lambda x, s: cell(x, s), inputs, state)
    return as_pair(result)


def as_pair(result: PyTree) -> tuple[PyTree, PyTree]:
    """Returns the output and the new state from the result of a cell.

    Raises:
        ValueError: If the result is not a pair.
    """
    is_sequence = isinstance(result, tuple | list)
    if not is_sequence or len(result) != 2:
        is_array = jax.tree_util.all_leaves([result])
        got = describe_structure(result)
        legend = ", where * is an array" if "*" in got else ""
        got = "one array" if is_array else f"{got}{legend}"
        is_one = is_array or (is_sequence and len(result) == 1)
        fix = "Return the new state too." if is_one else ""
        if is_sequence and len(result) > 2:
            fix = "Return all arrays of the state as one nest: `return output, (c, h)`."
        raise ValueError(
            f"`cell` must return a pair (output, new_state), got {got}. {fix}".rstrip()
        )
    return result[0], result[1]


def _all(tree: PyTree) -> str:
    """Returns a description of every leaf."""
    return ", ".join(map(describe, jax.tree.leaves(tree)))


def _check_state(state: PyTree, new_state: PyTree) -> None:
    named = named_leaves("state", state)
    for (name, old), new in zip(named, jax.tree.leaves(new_state), strict=True):
        got = f"`{name}` {describe(old)} before and {describe(new)} after a step"
        if old.shape != new.shape:
            fix = "Start from a state of another shape, or change the cell."
            if old.shape == new.shape[1:]:
                fix = to_all_rows(new.shape)
            raise ValueError(
                f"`cell` must keep the shapes of its state, got {got}. {fix}"
            )
        if old.dtype != new.dtype:
            raise TypeError(
                f"`cell` must keep the dtypes of its state, got {got}. Cast inside the "
                "cell, or start from a state with the new dtype (for a zero state, "
                f"pass `dtype=jnp.{new.dtype}`)."
            )


def _check_output(size: Size, output: PyTree, batch: int, dtype: DType) -> None:
    named = list(named_leaves("output", output))
    shapes = size_shapes(size, "output_size")
    if len({leaf.dtype for _, leaf in named}) > 1:
        got = ", ".join(f"`{name}` {describe(leaf)}" for name, leaf in named)
        raise TypeError(
            f"`cell` must have outputs of one dtype, got {got}. Cast in the cell. For "
            "outputs of several dtypes, use `raw_rnn`, whose `emit_output` describes "
            "them at time 0, or `static_rnn` without lengths."
        )
    for (name, leaf), shape in zip(named, shapes, strict=True):
        if leaf.shape != (batch, *shape):
            raise ValueError(
                f"`{name}` of `cell` must have shape {(batch, *shape)} to "
                f"match `output_size`, got {describe(leaf)}."
            )
        if leaf.dtype != dtype:
            raise TypeError(
                f"`{name}` of `cell` must have dtype {dtype}, got "
                f"{describe(leaf)}. Pass `dtype=jnp.{leaf.dtype}`, or cast in the cell."
            )
