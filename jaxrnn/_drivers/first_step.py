"""Creates the state before the first step, and checks one step of a cell.

The step is evaluated abstractly, to find errors before a loop is traced.
"""

from collections.abc import Callable
from typing import Any

import jax

from .._base.arguments import is_list_of
from .._base.errors import counted, describe_leaves, error_note
from .._base.expect import expect
from .._base.inputs import as_arrays, check_rows_of_state, to_all_rows
from .._base.like import check_like
from .._base.trees import (
    TensorShape,
    has_read_only,
    is_tensor_array,
    types_of_size,
    without_read_only,
)
from .._base.typing import AxisSize, DType, PyTree, RNNCellLike
from .._tensor_array.carried import with_capacity_for, with_known_shapes

_STATE_FIX = (
    "A step must keep the structure, shapes and dtypes of its state. Change the cell, "
    "or start from a state like the new one: with the structure of `cell.state_size` "
    "and, for a zero state, with another `dtype`."
)
_SEVERAL_DTYPES = "For outputs of several dtypes, use `raw_rnn`."


def as_initial_state(state: PyTree, time: AxisSize) -> PyTree:
    """Returns the user's state, if any, as arrays with room for `time` writes."""
    if state is None:
        return None
    return as_arrays("initial_state", with_capacity_for(state, time))


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
    rows, *_ = jax.tree.leaves(inputs)[0].shape
    rows_fix = fix_of_rows(cell, state, rows)
    output, new_state = one_step(cell, inputs, state, rows_fix)
    state = with_known_shapes(state, lambda: new_state)
    check_like("new_state", new_state, state, strict=strict, fix=rows_fix or _STATE_FIX)
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


def fix_of_rows(cell: Any, state: PyTree, rows: int) -> str:
    """What to do if a leaf of an initial state lacks only its batch axis."""
    own = jax.tree.leaves(without_read_only(state), is_leaf=is_tensor_array)
    for leaf, size in zip(own, jax.tree.leaves(cell.state_size), strict=False):
        shape = tuple(size) if isinstance(size, TensorShape) else (size,)
        if shape and not is_tensor_array(leaf) and leaf.shape == shape:
            return to_all_rows((rows, *shape))
    return ""


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
