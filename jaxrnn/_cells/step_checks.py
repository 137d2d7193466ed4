"""Checks of the inputs, the state and the parameters of one step of a cell."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._base.arguments import check_shape
from .._base.errors import (
    EntryError,
    counted,
    describe,
    describe_leaves,
    describe_non_array,
    is_array,
)
from .._base.expect import expect
from .._base.inputs import to_all_rows
from .._base.like import check_structure
from .._base.math import in_native_order
from .._base.trees import named_leaves, size_shapes
from .._base.typing import Array, DType, Params, PyTree, Size


def check_no_carry(dtype: DType) -> None:
    """Raises TypeError if `dtype` holds arrays, such as the carry for Flax's `init`."""
    is_carry = any(map(is_array, jax.tree.leaves(dtype)))
    fix = "Call `cell.init(key, inputs)`; `init` needs no state."
    expect(
        not is_carry,
        "dtype",
        "be a dtype such as jnp.float32",
        dtype,
        fix,
        error=TypeError,
    )


def check_floating(name: str, dtype: DType, fix: str = "") -> None:
    """Raises ValueError for an integer or boolean dtype."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        text = f"`{name}` must be floating-point, got {dtype}. {fix}"
        raise ValueError(text.rstrip())


def check_step_inputs(
    inputs: PyTree,
    name: str = "inputs",
    size: tuple[int, ...] | None = None,
    why: str = "",
    fix: str = "",
) -> Any:
    """Returns the inputs of one step as one floating-point array `[batch, ...]`.

    A `ShapeDtypeStruct` is returned unchanged.

    Args:
        inputs: The inputs.
        name: The name of the inputs in messages.
        size: The sizes of all axes but the first; None for `[batch, depth]`, with any
            depth.
        why: Where `size` comes from, for messages.
        fix: What to do about inputs of another shape, for messages.

    Raises:
        ValueError: If `inputs` is a nest, is not floating-point, or has another shape.
        TypeError: If `inputs` is neither an array nor a nest.
    """
    axes = ", ".join(["batch", *map(str, ("depth",) if size is None else size)])
    if not (is_array(inputs) or isinstance(inputs, jax.ShapeDtypeStruct)):
        is_nest = not jax.tree_util.all_leaves([inputs])
        error = ValueError if is_nest else TypeError
        fix = ""
        if type(inputs) in (list, tuple, dict):
            fix = (
                "Concatenate several inputs along their last axis. For sequences of "
                "different lengths, use `pack_sequences`."
            )
        raise error(
            f"`{name}` must be one array [{axes}] for one step, got "
            f"{describe(inputs)}. {fix}".rstrip()
        )
    if is_array(inputs):
        inputs = jnp.asarray(in_native_order(inputs))
    check_floating(name, inputs.dtype, "Cast the array, or embed integer ids.")
    if size is None:
        fix = "Pass the inputs of one step."
        if len(inputs.shape) == 1:
            fix = f"For one row, pass `{name}[None]`. For one number per row, pass "
            fix += f"`{name}[:, None]`."
        must = "have rank 2, [batch, depth]"
        expect(len(inputs.shape) == 2, name, must, inputs, fix)
    else:
        must = f"be [{axes}] {why}".rstrip()
        expect(tuple(inputs.shape[1:]) == size, name, must, inputs, fix)
    return inputs


def check_state(state: PyTree, size: Size, batch: int) -> PyTree:
    """Checks the state against the sizes `size`; returns the state with array leaves.

    A list or tuple may replace a named tuple, as in TensorFlow.

    Raises:
        TypeError: If the state is one array instead of a nest, or a leaf is not an
            array.
        ValueError: If the state is a nest instead of one array, or a shape differs.
        EntryError: If the state has the wrong number of arrays.
    """
    leaves = list(named_leaves("state", state))
    shapes = size_shapes(size, "state_size")
    is_nest = not jax.tree_util.all_leaves([state])
    wants_nest = not jax.tree_util.all_leaves([size])
    if is_nest != wants_nest or len(leaves) != len(shapes):
        error = TypeError if wants_nest and not is_nest else EntryError
        axes = ", ".join(f"[{', '.join(['batch', *map(str, s)])}]" for s in shapes)
        wanted = (
            f"a tuple of {counted(len(shapes), 'array')},"
            if wants_nest
            else "one array"
        )
        got = describe(state)
        if is_nest and wants_nest:
            got = counted(len(leaves), "array")
        raise error(
            f"`state` must be {wanted} {axes}, got {got}. Create a state with "
            "`cell.zero_state`."
        )
    check_structure("`state`", size, state, strict=False)
    for (name, leaf), shape in zip(leaves, shapes, strict=True):
        _check_array(name, leaf)
        check_floating(name, leaf.dtype)
        has_rows = leaf.shape[:1] == (batch,)
        fix = "" if has_rows else f"The inputs have {counted(batch, 'row')}."
        if leaf.shape in (shape, (1, *shape)):
            fix = f"{fix} {to_all_rows((batch, *shape))}".strip()
        check_shape(name, leaf, (batch, *shape), fix=fix)
    return jax.tree.map(jnp.asarray, in_native_order(state))


def _check_array(name: str, leaf: object) -> None:
    if not is_array(leaf):
        got = f"{describe_non_array(leaf)}."
        if hasattr(leaf, "get_value"):
            got = "an nnx variable. Convert the variables with `nnx.as_pure`."
        raise TypeError(f"`{name}` must be an array, got {got}")


def check_params(params: Params, param_specs: Callable, inputs: Array) -> None:
    """Checks the names, shapes and dtype of parameters for inputs `[batch, depth]`.

    Names and shapes must match `param_specs(depth)`.

    Raises:
        ValueError: If a name is missing or unknown, or a shape differs.
        TypeError: If `params` is not a dict of arrays, or a dtype differs.
    """
    is_dict = isinstance(params, Mapping) and not jax.tree_util.all_leaves([params])
    fix = "Pass the parameters that `cell.init` returned."
    expect(is_dict, "params", "be a dict of arrays", params, fix, error=TypeError)
    depth = inputs.shape[-1]
    specs = dict(named_leaves("params", param_specs(depth)))
    leaves = dict(
        named_leaves("params", params, lambda node: not isinstance(node, Mapping))
    )
    for name, leaf in leaves.items():
        _check_array(name, leaf)
    missing = [name for name in specs if name not in leaves]
    unknown = [name for name in leaves if name not in specs]
    if missing or unknown:
        text = f"`params` must hold {', '.join(specs)}"
        text += f"; missing: {', '.join(missing)}" if missing else ""
        text += f"; unknown: {', '.join(unknown)}" if unknown else ""
        raise ValueError(f"{text}. {fix}")
    for name, spec in specs.items():
        must = f"have shape {spec.shape} for inputs of depth {depth}"
        fix = (
            "Create the parameters with this cell, from inputs of this depth: call "
            f"`init`, or create an nnx module with `in_features={depth}`."
        )
        check_shape(name, leaves[name], spec.shape, must, fix)
        dtype = jax.dtypes.canonicalize_dtype(leaves[name].dtype)
        must = f"have the dtype of the inputs ({inputs.dtype})"
        fix = "Cast the inputs or the parameters."
        expect(dtype == inputs.dtype, name, must, leaves[name], fix, error=TypeError)


def check_one_dtype(cell: object, inputs: Array, operand: Array | None) -> None:
    """Raises TypeError if inputs, the state's operand and the cell differ in dtype.

    Args:
        cell: The cell. A cell without a `dtype` accepts any dtype.
        inputs: One step of inputs.
        operand: The part of the state that is multiplied; None to check only the inputs
            and the cell.
    """
    declared = getattr(cell, "dtype", None)
    dtype = jax.dtypes.canonicalize_dtype(declared or inputs.dtype)
    arrays = {"inputs": inputs}
    if operand is not None:
        arrays["state"] = operand
    if all(array.dtype == dtype for array in arrays.values()):
        return
    names = [f"`{name}`" for name in arrays]
    got = [f"{name} {describe(array)}" for name, array in arrays.items()]
    if declared is not None:
        names.append("the cell")
        got.append(f"a cell of {dtype}")
    fix = f"Cast the inputs, or create the cell with `dtype=jnp.{inputs.dtype}`."
    if inputs.dtype == dtype:
        fix = f"Create the state with `dtype=jnp.{dtype}`."
    raise TypeError(f"{_all_of(names)} must share one dtype, got {_all_of(got)}. {fix}")


def _all_of(parts: list[str]) -> str:
    """Joins two or more parts, such as `a, b and c`."""
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def check_state_dtypes(cell: object, inputs: Array, state: PyTree) -> None:
    """Raises TypeError unless inputs and state have the cell's dtype.

    The state may also have a wider floating-point dtype.
    """
    check_one_dtype(cell, inputs, None)
    for name, leaf in named_leaves("state", state):
        is_wider = leaf.dtype.itemsize > inputs.dtype.itemsize
        is_real = jnp.issubdtype(leaf.dtype, jnp.floating)
        fits = leaf.dtype == inputs.dtype or (is_wider and is_real)
        must = f"have the dtype of the inputs ({inputs.dtype}) or a wider one"
        fix = f"Create the state with `dtype=jnp.{inputs.dtype}`."
        expect(fits, name, must, leaf, fix, error=TypeError)


def check_stages(stages: Any, kind: type) -> None:
    """Raises TypeError unless `stages` is a list or tuple of at least one stage."""
    is_tuple = isinstance(stages, tuple | list)
    are_stages = is_tuple and all(isinstance(stage, kind) for stage in stages)
    must = "be a property that returns a tuple of one or more `Stage`s"
    fix = "For one stage, return `(stage,)`." if isinstance(stages, kind) else ""
    expect(are_stages and len(stages) > 0, "stages", must, stages, fix, error=TypeError)


def check_one_array_to_enter(state: PyTree) -> None:
    """Raises TypeError for a nest, which the default `enter` cannot multiply."""
    if not jax.tree_util.all_leaves([state]):
        raise TypeError(
            "the default `enter` must get one array as the state, got "
            f"{describe(state)}. Define `enter` in the cell: return the array that the "
            "first stage multiplies, and the carry for the update of this stage."
        )


def as_stage_result(
    source: str, result: PyTree, what: str = "(operand, carry)"
) -> tuple[PyTree, PyTree]:
    """Returns `result` as a tuple; raises ValueError unless it is a pair `what`."""
    if isinstance(result, tuple | list) and len(result) == 2:
        return result[0], result[1]
    raise ValueError(f"{source} must return {what}, got {describe(result)}.")


def check_operand(k: int, operand: PyTree, shape: tuple[int, int]) -> None:
    """Raises ValueError if stage k cannot multiply its operand."""
    if jnp.shape(operand) != shape:
        source = f"the update of stage {k - 1}" if k else "`enter`"
        raise ValueError(
            f"{source} must return an operand of shape {shape} to fit the `rows` of "
            f"stage {k}, got {describe(operand)}."
        )


def check_new_state(state: PyTree, new_state: PyTree, last: int, columns: int) -> None:
    """Raises ValueError if the last stage changes the shapes of the state."""
    if _shapes(state) != _shapes(new_state):
        raise ValueError(
            f"the update of stage {last} must return a new state with shapes "
            f"{describe_leaves(state)}, got {describe_leaves(new_state)}. The "
            f"product of stage {last} has {columns} columns (`columns={columns}`)."
        )


def _shapes(tree: PyTree) -> list[tuple[int, ...]]:
    return [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
