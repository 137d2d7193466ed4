"""Evaluates one step abstractly, to find errors before a loop is traced."""

from typing import Any

import jax

from .._base.errors import (
    InvalidType,
    InvalidValue,
    describe,
    describe_structure,
    error_note,
)
from .._base.trees import check_structure, is_tensor_array, named_leaves, size_shapes
from .._base.typing import DType, PyTree
from .._tensor_array.carried import with_known_shapes

_CAST = "Cast inside the cell, or pass an `initial_state` with the new dtype."
_STRUCTURE = (
    "Pass an `initial_state` with the structure that the cell returns; for an LSTM, "
    "`LSTMStateTuple(c, h)`."
)
_CELL = (
    "The cell received a state with the structure of its `state_size`, and must return "
    "a state with the same structure."
)
_ONE_NEST = "Return the arrays of the state as one nest: `return output, (c, h)`."
# The properties of a state leaf that a step must keep. Each entry is a property, an
# error class, a note and a fix.
_KEPT = (
    ("shape", ValueError, "", ""),
    ("dtype", TypeError, " (type should remain constant)", _CAST),
)


def probe(
    cell: Any,
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
        strict: Whether a step must keep the sequence types of the state; True if there
            are lengths.

    Raises:
        ValueError: If the step changes the structure or shapes of the state, or if the
            output does not match `cell.output_size`.
        TypeError: If the step changes dtypes of the state or, with `strict`, sequence
            types; if the output does not have `output_dtype`.
    """
    output, new_state = one_step(cell, inputs, state)
    state = with_known_shapes(state, lambda: new_state)
    what = "the state that `cell` returns"
    is_declared = jax.tree.structure(state) == jax.tree.structure(cell.state_size)
    fix = _CELL if is_declared else _STRUCTURE
    check_structure(what, state, new_state, strict, fix)
    _check_state(state, new_state)
    batch = jax.tree.leaves(inputs)[0].shape[0]
    if strict:
        _check_rows(state, batch)
    size = cell.output_size
    what = "the output of `cell` (see `output_size`)"
    check_structure(what, size, output, strict)
    _check_output(size, output, batch, output_dtype)
    return state


def one_step(cell: Any, inputs: PyTree, state: PyTree) -> tuple:
    """Returns the types of `(output, new_state)`; errors describe the arguments."""
    args = f"inputs {_all(inputs)} and initial state {_all(state)}"
    with error_note(f"Raised by one step of `cell`, called with {args}."):
        result = jax.eval_shape(lambda x, s: cell(x, s), inputs, state)
    return as_pair(result)


def as_pair(result: Any) -> tuple[PyTree, PyTree]:
    """Returns the output and the new state from the result of a cell.

    Raises:
        ValueError: If the result is not a pair.
    """
    if not isinstance(result, tuple | list) or len(result) != 2:
        is_longer = isinstance(result, tuple | list) and len(result) > 2
        fix = _ONE_NEST if is_longer else ""
        raise InvalidValue(
            "`cell` must return a pair (output, new_state); it returned "
            f"{describe_structure(result)}, where * is an array. {fix}".rstrip()
        )
    return result[0], result[1]


def _all(tree: PyTree) -> str:
    """Returns a description of every leaf."""
    return ", ".join(map(describe, jax.tree.leaves(tree)))


def _check_state(state: PyTree, new_state: PyTree) -> None:
    new_leaves = jax.tree.leaves(new_state)
    pairs = list(zip(named_leaves("state", state), new_leaves, strict=True))
    for kind, error, note, fix in _KEPT:
        changes = [
            f"`{name}` {describe(old)} before and {describe(new)} after a step"
            for (name, old), new in pairs
            if getattr(old, kind) != getattr(new, kind)
        ]
        if changes:
            raise error(
                f"`cell` must keep the {kind}s of its state{note}, got "
                f"{'; '.join(changes)}. {fix}".rstrip()
            )


def _check_rows(state: PyTree, batch: int) -> None:
    for name, leaf in named_leaves("state", state, is_tensor_array):
        if not is_tensor_array(leaf) and leaf.shape[:1] not in ((), (batch,)):
            raise InvalidValue(
                f"with lengths, `{name}` must have {batch} rows or be a "
                f"scalar, got {describe(leaf)}."
            )


def _check_output(size: Any, output: PyTree, batch: int, dtype: DType) -> None:
    named = named_leaves("output", output)
    for (name, leaf), shape in zip(named, size_shapes(size), strict=True):
        if leaf.shape != (batch, *shape):
            raise InvalidValue(
                f"`{name}` of `cell` must have shape {(batch, *shape)} to "
                f"match `output_size`, got {describe(leaf)}."
            )
        if leaf.dtype != dtype:
            raise InvalidType(
                f"`{name}` of `cell` must have dtype {dtype}, got "
                f"{describe(leaf)}. Pass `dtype=jnp.{leaf.dtype}`, or cast in the cell."
            )
