"""Checks of the inputs, the state and the parameters of one step of a cell."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._base.errors import EntryError, Words, describe, is_array, refusal
from .._base.trees import check_structure, named_leaves, size_shapes
from .._base.typing import Array, DType, Params, PyTree, Size


def check_floating(cell: str, name: str, dtype: DType) -> None:
    """Raises ValueError for an integer or boolean dtype."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        got, fix = f"got `{name}` of {dtype}", "Cast it, or embed integer ids first."
        raise ValueError(f"{cell}: only supports floating point, {got}. {fix}")


def check_step_inputs(cell: str, inputs: Any) -> Any:
    """One floating array `[batch, depth]`; a `ShapeDtypeStruct` is returned unchanged.

    Raises:
        ValueError: If it is a nest, not floating, or not of rank 2.
        TypeError: If it is not an array at all.
    """
    if not (is_array(inputs) or isinstance(inputs, jax.ShapeDtypeStruct)):
        is_nest = not jax.tree_util.all_leaves([inputs])
        error = ValueError if is_nest else TypeError
        raise error(refusal(cell, "inputs", "be one array [batch, depth]", inputs))
    if is_array(inputs):
        inputs = jnp.asarray(inputs)
    check_floating(cell, "inputs", inputs.dtype)
    if len(inputs.shape) != 2:
        must, fix = "have rank 2, [batch, depth]", "They are those of one step."
        raise ValueError(refusal(cell, "inputs", must, inputs, fix))
    return inputs


def check_state(cell: str, state: PyTree, size: Size, batch: int) -> PyTree:
    """The state with arrays as leaves, which must have the sizes `size`.

    Lists and tuples pass for named tuples, as they do in TensorFlow.

    Raises:
        TypeError: If it is one array instead of a nest, or a leaf is not an array.
        ValueError: If it is a nest instead of one array, or a shape differs.
        EntryError: If it has the wrong number of arrays.
    """
    leaves, shapes = list(named_leaves("state", state)), size_shapes(size)
    is_nest, wants_nest = (not jax.tree_util.all_leaves([x]) for x in (state, size))
    if is_nest != wants_nest or len(leaves) != len(shapes):
        error = TypeError if wants_nest and not is_nest else EntryError
        each = ", ".join(f"[batch, {', '.join(map(str, shape))}]" for shape in shapes)
        wanted = f"a tuple of {len(shapes)} arrays," if wants_nest else "one array"
        got = Words(f"{len(leaves)} arrays") if is_nest and wants_nest else state
        must, fix = f"be {wanted} {each}", "`zero_state` makes one."
        raise error(refusal(cell, "state", must, got, fix))
    check_structure(f"{cell}: `state`", size, state, strict=False)
    for (name, leaf), shape in zip(leaves, shapes, strict=True):
        _check_array(cell, name, leaf)
        check_floating(cell, name, leaf.dtype)
        if tuple(leaf.shape) != (batch, *shape):
            must = f"have shape {(batch, *shape)}"
            fix = "The batch is that of the inputs; nothing is broadcast."
            raise ValueError(refusal(cell, name, must, leaf, fix))
    return jax.tree.map(jnp.asarray, state)


def _check_array(cell: str, name: str, leaf: Any) -> None:
    if is_array(leaf):
        return
    fix = ""
    if hasattr(leaf, "get_value"):
        leaf = Words("a variable of nnx")
        fix = "`nnx.as_pure` makes a dict of arrays."
    raise TypeError(refusal(cell, name, "be an array", leaf, fix))


def check_params(
    cell: str, params: Params, param_specs: Callable, inputs: Array
) -> None:
    """Checks the names, shapes and dtype of parameters for inputs `[batch, depth]`.

    They must be those of `param_specs(depth)`.

    Raises:
        ValueError: If a name is missing or unknown, or a shape differs.
        TypeError: If `params` is not a dict of arrays, or a dtype differs.
    """
    if not isinstance(params, Mapping) or jax.tree_util.all_leaves([params]):
        fix = "`init` makes one; convert the contents of a file by `dict`."
        raise TypeError(refusal(cell, "params", "be a dict of arrays", params, fix))
    is_leaf = lambda x: not isinstance(x, Mapping)
    depth, dtype = inputs.shape[-1], inputs.dtype
    want = dict(named_leaves("params", param_specs(depth)))
    got = dict(named_leaves("params", params, is_leaf))
    for name, leaf in got.items():
        _check_array(cell, name, leaf)
    missing = [name for name in want if name not in got]
    unknown = [name for name in got if name not in want]
    if missing or unknown:
        raise ValueError(
            f"{cell}: `params` must hold {', '.join(want)}; "
            f"missing: {', '.join(missing) or 'none'}; "
            f"not known: {', '.join(unknown) or 'none'}."
        )
    for name, spec in want.items():
        leaf = got[name]
        if tuple(jnp.shape(leaf)) != spec.shape:
            # An axis of the inputs is the only one that depends on the depth.
            params_depth = depth + sum(jnp.shape(leaf)) - sum(spec.shape)
            if params_depth >= 0 and _fit(got, param_specs(params_depth)):
                made = f"for which `{name}`, {describe(leaf)}, was made"
                must = f"have depth {params_depth}, {made}"
                shown = Words(f"{describe(inputs)} of depth {depth}")
                fix = "`init` makes parameters for inputs of any depth."
                raise ValueError(refusal(cell, "inputs", must, shown, fix))
            must = f"have shape {spec.shape} for inputs of depth {depth}"
            fix = "`init` makes one of that shape."
            raise ValueError(refusal(cell, name, must, leaf, fix))
        if jax.dtypes.canonicalize_dtype(leaf.dtype) != dtype:
            must = f"have the dtype of the inputs, {dtype}"
            fix = "Cast the inputs, or all parameters by jax.tree.map."
            raise TypeError(refusal(cell, name, must, leaf, fix))


def check_one_dtype(cell: str, declared: DType, inputs: Array, operand: Array) -> None:
    """Raises TypeError unless inputs, the state's operand and the cell share a dtype.

    Args:
        cell: The cell's name.
        declared: The cell's `dtype`; None for that of the inputs.
        inputs: One step of inputs.
        operand: The part of the state that is multiplied.
    """
    dtype = jax.dtypes.canonicalize_dtype(declared or inputs.dtype)
    if not inputs.dtype == operand.dtype == dtype:
        got = f"{describe(inputs)}, {describe(operand)} and {dtype}"
        fix = (
            "Cast inputs, or make the state with their dtype (a driver's `dtype`). "
            "What is not multiplied, such as the c of an LSTM, may be wider."
        )
        must = "`inputs`, `state` and the cell must share one dtype"
        raise TypeError(f"{cell}: {must}, got {got}. {fix}")


def check_state_dtypes(cell: Any, inputs: Array, state: PyTree) -> None:
    """Raises TypeError unless inputs have the cell's dtype, and the state theirs.

    Or the state a wider floating one.
    """
    name = type(cell).__name__
    check_one_dtype(name, getattr(cell, "dtype", None), inputs, inputs)
    for leaf_name, leaf in named_leaves("state", state):
        is_wider = leaf.dtype.itemsize > inputs.dtype.itemsize
        is_real = jnp.issubdtype(leaf.dtype, jnp.floating)
        if leaf.dtype != inputs.dtype and not (is_wider and is_real):
            must = f"have the dtype of the inputs, {inputs.dtype}, or a wider one"
            fix = "Make the state with their dtype (a driver's `dtype`)."
            raise TypeError(refusal(name, leaf_name, must, leaf, fix))


def _fit(named: dict[str, Any], specs: dict[str, Any]) -> bool:
    """Whether all parameters have the shapes of the specs."""
    wanted = named_leaves("params", specs)
    return all(jnp.shape(named[name]) == spec.shape for name, spec in wanted)
