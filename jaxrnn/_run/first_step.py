"""Checks one step of a cell before its loop is traced, so that errors are clear.

The cell is a bound cell, or any object with the attributes of `RNNCellLike`.
"""

from collections.abc import Callable
from typing import Any

import jax

from .._base.errors import describe_leaves, error_note
from .._base.inputs import as_arrays, check_like
from .._base.trees import has_read_only, types_of_size
from .._base.typing import DType, PyTree, RNNCellLike
from .arguments import as_pair, check_one_batch_axis, check_rows_of_state
from .tensor_array.carried import with_known_shapes

_SEVERAL_DTYPES = "For outputs of several dtypes, use `raw_rnn`."


def probe(
    cell: RNNCellLike,
    inputs: PyTree,
    state: PyTree,
    output_dtype: DType,
    strict: bool,
    fix: str,
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
        fix: The hint for a state that does not fit.

    Raises:
        ValueError: If the step changes the structure or shapes of the state, or if the
            output does not match `cell.output_size`.
        TypeError: If the step changes dtypes of the state or, with `strict`, sequence
            types; if the output does not have `output_dtype`.
    """
    rows, *_ = jax.tree.leaves(inputs)[0].shape
    check_one_batch_axis(cell, inputs)
    output, new_state = one_step(cell, inputs, state, fix)
    state = with_known_shapes(state, lambda: new_state)
    state_fix = fix or (
        "A step must keep the structure, shapes and dtypes of its state. Change the "
        f"cell, or start from a state like the new one, {describe_leaves(new_state)}; "
        "for a zero state, pass another `dtype`."
    )
    check_like("new_state", new_state, state, strict=strict, fix=state_fix)
    if strict:
        check_rows_of_state(state, rows, "or be a scalar", fix)
    types = types_of_size(cell.output_size, rows, output_dtype, "output_size")
    found = [x.dtype for x in jax.tree.leaves(output) if x.dtype != output_dtype]
    fix = "Check `output_size` of the cell."
    if found:
        where = "in the cell (for a `MultiRNNCell`, in the last entry of `cells`)"
        fix = f"Pass `dtype=jnp.{found[0]}`, or cast {where}. {_SEVERAL_DTYPES}"
    check_like("output", output, types, strict=strict, fix=fix)
    return state


def one_step(cell: Callable, inputs: PyTree, state: PyTree, fix: str = "") -> tuple:
    """Returns the types of `(output, new_state)`; adds a note to the cell's errors."""
    args = f"inputs {describe_leaves(inputs)} and state {describe_leaves(state)}"
    with error_note(f"Raised by one step of `cell`, called with {args}. {fix}".strip()):
        result = jax.eval_shape(lambda x, s: cell(x, s), inputs, state)
    return as_pair(result)


def zero_state(cell: Any, batch_size: int, dtype: DType) -> PyTree:
    """Returns the cell's zero state, from `get_initial_state` or `zero_state`."""
    if hasattr(cell, "get_initial_state"):
        state = cell.get_initial_state(inputs=None, batch_size=batch_size, dtype=dtype)
    else:
        state = cell.zero_state(batch_size, dtype)
    return as_arrays("cell.zero_state()", state)


def rows_interact(cell: object) -> bool:
    """Whether the cell declares that its rows interact; see `RNNCell`."""
    return getattr(cell, "rows_interact", False)


def call_start(cell: Any, state: PyTree) -> PyTree:
    """Calls `cell.start` to prepare a state that has read-only parts."""
    return cell.start(state) if has_read_only(state) else state
