"""Checks of the inputs, the state and the parameters of one step of a cell."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._base.arguments import check_instance, is_list_of
from .._base.errors import (
    Verbatim,
    check_not_masked,
    counted,
    describe_structure,
    expect,
    is_array,
)
from .._base.inputs import as_like, warn_of_plain_pair
from .._base.math import in_native_order, widest_dtype
from .._base.trees import types_of_size, with_structure
from .._base.typing import Array, DType, Params, PyTree, Size

_TO_ONE_ARRAY = (
    "Concatenate several inputs along their last axis. For sequences of different "
    "lengths, use `pack_sequences`."
)


def check_floating(name: str, dtype: DType, fix: str = "") -> None:
    """Raises ValueError for an integer or boolean dtype."""
    is_inexact = jnp.issubdtype(dtype, jnp.inexact)
    expect(is_inexact, name, "be floating-point", Verbatim(dtype), fix)


def check_step_inputs(
    inputs: PyTree,
    name: str = "inputs",
    size: tuple[int, ...] | None = None,
    why: str = "",
    fix: str = "",
) -> PyTree:
    """Returns the inputs of one step as one floating-point array `[batch, ...]`.

    A `ShapeDtypeStruct` is returned unchanged.

    Args:
        inputs: The inputs.
        name: The name of the inputs in messages.
        size: The sizes of all axes but the first. If None, the inputs must be
            `[batch, depth]`, with any depth.
        why: The reason for `size`, for messages.
        fix: Advice for inputs that do not have these sizes, for messages.

    Raises:
        ValueError: If `inputs` is a nest, is not floating-point, or does not have the
            sizes `size`.
        TypeError: If `inputs` is a masked array, or neither an array nor a nest.
    """
    axes = ", ".join(["batch", *map(str, ("depth",) if size is None else size)])
    check_not_masked(name, inputs)
    is_one = is_array(inputs) or isinstance(inputs, jax.ShapeDtypeStruct)
    error = TypeError if jax.tree_util.all_leaves([inputs]) else ValueError
    must = f"be one array [{axes}] for one step"
    advice = _TO_ONE_ARRAY if type(inputs) in (list, tuple, dict) else ""
    expect(is_one, name, must, inputs, advice, error)
    if is_array(inputs):
        inputs = jnp.asarray(in_native_order(inputs))
    check_floating(name, inputs.dtype, "Cast the array, or embed integer ids.")
    if size is None:
        size = tuple(inputs.shape[1:2])
        fix = f"Pass the inputs of one step. For one row, pass `{name}[None]`. "
        fix += f"For one number per row, pass `{name}[:, None]`."
        if len(inputs.shape) > 2:
            fix = f"Pass the inputs of one step, such as `{name}[:, 0]`."
    fits = len(inputs.shape) > 1 and tuple(inputs.shape[1:]) == size
    expect(fits, name, f"be [{axes}] {why}".rstrip(), inputs, fix)
    return inputs


def check_named_inputs(cell: Any, kind: Any, inputs: PyTree) -> PyTree:
    """Returns the inputs of a step as a named tuple of real arrays `[batch, ...]`.

    Args:
        cell: The cell, whose `input_sizes` has the size of each array.
        kind: The class of the named tuple. A plain tuple is converted.
        inputs: The inputs.

    Raises:
        ValueError: If the inputs are not a tuple with the fields of `kind`, or a leaf
            is not real floating-point or does not have its size in `input_sizes`.
        TypeError: If a leaf is not an array.
    """
    names = kind._fields
    must = f"be a `{kind.__name__}` ({', '.join(names)})"
    # Accept a plain tuple, but not a named tuple with other fields.
    fits = is_list_of(inputs, len(names)) and getattr(inputs, "_fields", names)
    fix = "The cell's `input_sizes` lists the size of each input."
    expect(fits == names, "inputs", must, inputs, fix)
    leaves: list[Array] = []
    for name, x, size in zip(names, inputs, cell.input_sizes, strict=True):
        x = check_step_inputs(x, f"inputs.{name}", tuple(size), f"for {cell!r}")
        expect(not jnp.iscomplexobj(x), f"inputs.{name}", "be real", x)
        leaves.append(x)
        rows = leaves[0].shape[0]
        must = f"have {counted(rows, 'row')}, as `inputs.{names[0]}` has"
        expect(x.shape[0] == rows, f"inputs.{name}", must, x)
    return kind(*leaves)


def check_state(
    state: PyTree,
    size: Size,
    inputs: Array | jax.ShapeDtypeStruct,
    wider: bool = True,
    name: str = "state",
    fix: str = "",
) -> PyTree:
    """Returns the state of one step in the structure of `size`, with array leaves.

    A list or tuple may replace a named tuple, as in TensorFlow.

    Args:
        state: The state.
        size: The sizes that the state must have, such as `cell.state_size`.
        inputs: The inputs of the step. The state must have as many rows as the inputs,
            and the dtype of the inputs.
        wider: Whether leaves may have a wider floating-point dtype than the inputs.
        name: The name of the state in messages.
        fix: How to create a state, for messages. Default: with `cell.zero_state`.

    Raises:
        ValueError: If the structure or a shape differs, or a leaf is an integer array.
        TypeError: If the state is one array instead of a nest, a leaf is not an array,
            or a dtype differs.
    """
    rows = inputs.shape[0]
    types = types_of_size(size, rows, inputs.dtype, "state_size")
    leaves = list(filter(is_array, jax.tree.leaves(state)))
    zeros = f"Create a state with `cell.zero_state` and `dtype=jnp.{inputs.dtype}`."
    fix = fix or zeros
    if any(leaf.shape[:1] != (rows,) for leaf in leaves):
        all_rows = counted(rows, "row")
        fix = f"The inputs have {all_rows}. {fix} To use one state for all rows, "
        fix += f"broadcast it to {all_rows}."
    is_nest = not jax.tree_util.all_leaves([state])
    must = f"have the structure {describe_structure(types)}"
    fits = is_nest or jax.tree_util.all_leaves([types])
    expect(fits, name, must, state, fix, error=TypeError)
    for leaf in leaves:
        check_floating(name, leaf.dtype, fix)
    warn_of_plain_pair(name, size, state)
    state = as_like(name, state, types, strict=False, wider=wider, fix=fix)
    return with_structure(types, state)


def check_params(params: Params, param_specs: Callable, inputs: PyTree) -> None:
    """Checks the names, shapes and dtype of `params` for `inputs` `[batch, depth]`.

    Names and shapes must match `param_specs(depth)`, and the dtype of each parameter
    must be the dtype of the inputs. If the inputs are a nest, the dtype must be the
    widest dtype of their leaves, and the shapes must not depend on the depth.

    Raises:
        ValueError: If a name is missing or unknown, or a shape differs.
        TypeError: If `params` is not a dict of arrays, or a dtype differs.
    """
    dtype, depth = widest_dtype(inputs), jax.tree.leaves(inputs)[0].shape[-1]
    types = jax.tree.map(
        lambda spec: jax.ShapeDtypeStruct(spec.shape, dtype), param_specs(depth)
    )
    fix = (
        f"The inputs of this step have depth {depth} and dtype {dtype}. Create the "
        "parameters for this depth and dtype with the cell's `init` (in an nnx module, "
        f"pass `in_features={depth}`), or cast the inputs or the parameters."
    )
    if not jax.tree_util.all_leaves([inputs]):
        fix = f"Create the parameters with `cell.init(key, inputs)`, in {dtype}."
    if not types:
        fix = "The cell has no parameters: call `bind({})`."
    check_instance("params", params, Mapping, "a dict of arrays", fix)
    params = _as_dict(params)
    if types and jax.tree.structure(params) != jax.tree.structure(types):
        fix = (
            "These are not the parameters of this cell. Create them with its `init`, "
            "or use the bound cell that a converter or a Flax module returns."
        )
    as_like("params", params, types, fix=fix)


def _as_dict(params: PyTree) -> PyTree:
    """Converts other mappings to dicts."""
    if not isinstance(params, Mapping):
        return params
    return {name: _as_dict(value) for name, value in params.items()}
