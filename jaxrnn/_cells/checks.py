"""What a built-in cell asks of its hyper-parameters, inputs, state and parameters."""

import operator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._autodiff.jax_internals import Tracer
from .._base.arguments import as_dtype
from .._base.errors import EntryError, describe, is_array, leaf_name
from .._base.trees import check_structure, named_leaves, size_shapes
from .._base.typing import DType, Params, PyTree, Size
from .activations import resolve_activation


def set_common_fields(cell: Any) -> None:
    """Give `num_units`, `activation` and `dtype` of a new cell their final form."""
    name = type(cell).__name__
    set_field(cell, num_units=check_units(name, "num_units", cell.num_units))
    set_field(cell, activation=resolve_activation(name, cell.activation))
    set_field(cell, dtype=check_own_dtype(name, cell.dtype))
    if not isinstance(cell.name, str | None):
        raise TypeError(f"{name}: `name` must be a string, got {describe(cell.name)}.")


def set_field(cell: Any, **fields: Any) -> None:
    """Give a frozen dataclass a field's final form; for `__post_init__` alone."""
    for name, value in fields.items():
        object.__setattr__(cell, name, value)


def check_units(cell: str, name: str, value: Any, least: int = 0) -> int:
    """The size `value` as an int.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is less than `least`.
    """
    try:
        units = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{cell}: `{name}` must be an integer, got {value!r}."
        ) from None
    if units < least:
        raise ValueError(f"{cell}: `{name}` must be at least {least}, got {units}.")
    return units


def check_number(cell: str, name: str, value: Any) -> float:
    """The number `value` as a float; no array, which would not be hashable.

    Raises:
        TypeError: If it is no number.
    """
    if value is None or isinstance(value, Tracer | str | bool) or jnp.ndim(value):
        raise TypeError(
            f"{cell}: `{name}` must be a number, got {describe(value)}. "
            "Hyper-parameters are static: make a cell for each."
        )
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"{cell}: `{name}` must be a number, got {describe(value)}."
        ) from None


def check_clip(cell: str, name: str, bound: Any) -> float | None:
    """The bound of a clip, or None for no clip.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is negative: the clip would turn all values into one.
    """
    if bound is None:
        return None
    bound = check_number(cell, name, bound)
    if not bound >= 0:
        raise ValueError(f"{cell}: `{name}` must not be negative, got {bound}.")
    return bound


def check_initializer(cell: str, name: str, initializer: Any) -> None:
    """Raises TypeError for what is neither None nor a function."""
    if initializer is not None and not callable(initializer):
        raise TypeError(
            f"{cell}: `{name}` must be a function (key, shape, dtype), got "
            f"{describe(initializer)}. See jax.nn.initializers."
        )


def check_floating(cell: str, name: str, dtype: DType) -> None:
    """Raises ValueError for an integer or boolean dtype."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(
            f"{cell}: only supports floating point, got `{name}` of {dtype}. Cast it, "
            "or embed integer ids first."
        )


def check_own_dtype(cell: str, dtype: Any) -> DType | None:
    """The dtype that a cell is given, or None.

    Raises:
        ValueError: If it is neither floating nor complex.
    """
    if dtype is None:
        return None
    dtype = as_dtype(cell, dtype)
    check_floating(cell, "dtype", dtype)
    return dtype


def check_step_inputs(cell: str, inputs: Any) -> Any:
    """One floating array `[batch, depth]`, or its `ShapeDtypeStruct` as it is.

    Raises:
        ValueError: If it is a nest, not floating, or not of rank 2.
        TypeError: If it is no array at all.
    """
    if not (is_array(inputs) or isinstance(inputs, jax.ShapeDtypeStruct)):
        is_nest = not jax.tree_util.all_leaves([inputs])
        raise (ValueError if is_nest else TypeError)(
            f"{cell}: `inputs` must be one array [batch, depth], got "
            f"{describe(inputs)}."
        )
    if is_array(inputs):
        inputs = jnp.asarray(inputs)
    check_floating(cell, "inputs", inputs.dtype)
    if len(inputs.shape) != 2:
        raise ValueError(
            f"{cell}: `inputs` of one step must have rank 2, [batch, depth], got "
            f"{describe(inputs)}."
        )
    return inputs


def check_state(cell: str, state: PyTree, size: Size, batch: int) -> PyTree:
    """The state with arrays as leaves, if it is as `size` says.

    Lists and tuples pass for named tuples, as they do in TensorFlow.

    Raises:
        TypeError: If a nest is asked for and one array came, or a leaf is no array.
        ValueError: If an array is asked for and a nest came, or a shape differs.
    """
    leaves, shapes = list(named_leaves("state", state)), size_shapes(size)
    nested = not jax.tree_util.all_leaves([state])
    wants_nest = not jax.tree_util.all_leaves([size])
    if nested != wants_nest:
        raise (TypeError if wants_nest else ValueError)(
            f"{cell}: `state` must be {_wanted(shapes, wants_nest)}, got "
            f"{describe(state)}. `zero_state` makes one."
        )
    if len(leaves) != len(shapes):
        raise EntryError(
            f"{cell}: `state` must be {_wanted(shapes, wants_nest)}, got "
            f"{len(leaves)} arrays. `zero_state` makes one."
        )
    check_structure(f"{cell}: `state`", size, state, strict=False)
    for (name, leaf), shape in zip(leaves, shapes, strict=True):
        if not is_array(leaf):
            of_nnx = hasattr(leaf, "get_value")
            got = "a variable of nnx" if of_nnx else describe(leaf)
            fix = " `nnx.as_pure` makes a dict of arrays." if of_nnx else ""
            raise TypeError(f"{cell}: `{name}` must be an array, got {got}.{fix}")
        check_floating(cell, name, leaf.dtype)
        if tuple(leaf.shape) != (batch, *shape):
            raise ValueError(
                f"{cell}: `{name}` must have shape {(batch, *shape)}, got "
                f"{describe(leaf)}. The batch is that of the inputs; nothing is "
                "broadcast."
            )
    return jax.tree.map(jnp.asarray, state)


def _wanted(shapes: list[tuple[int, ...]], nest: bool) -> str:
    each = ", ".join(f"[batch, {', '.join(map(str, shape))}]" for shape in shapes)
    return f"a tuple of {len(shapes)} arrays, {each}" if nest else f"one array {each}"


def check_params(
    cell: str, params: Params, specs: dict[str, Any], dtype: DType
) -> None:
    """Hold parameters to their specs: names, shapes, dtype.

    Raises:
        ValueError: If a name is missing or unknown, or a shape differs.
        TypeError: If `params` is no dict of arrays, or a dtype differs.
    """
    if not isinstance(params, Mapping) or jax.tree_util.all_leaves([params]):
        raise TypeError(
            f"{cell}: `params` must be a dict of arrays, got {describe(params)}. "
            "`init` makes one; a file's contents become one by `dict`."
        )
    want, got = dict(named_leaves("params", specs)), _params_by_name(params)
    for name, leaf in got.items():
        if not is_array(leaf):
            of_nnx = hasattr(leaf, "get_value")
            got = "a variable of nnx" if of_nnx else describe(leaf)
            fix = " `nnx.as_pure` makes a dict of arrays." if of_nnx else ""
            raise TypeError(f"{cell}: `{name}` must be an array, got {got}.{fix}")
    if want.keys() != got.keys():
        raise ValueError(
            f"{cell}: `params` must hold {', '.join(want)}; {_difference(want, got)}."
        )
    for name, spec in want.items():
        leaf = got[name]
        if tuple(jnp.shape(leaf)) != spec.shape:
            raise ValueError(
                f"{cell}: `{name}` must have shape {spec.shape} for these inputs, got "
                f"{describe(leaf)}. Inputs and parameters must be of one depth."
            )
        if jax.dtypes.canonicalize_dtype(leaf.dtype) != dtype:
            raise TypeError(
                f"{cell}: `{name}` must have the dtype of the inputs, {dtype}, got "
                f"{describe(leaf)}. Cast the inputs, or all parameters by jax.tree.map."
            )


def _params_by_name(params: Params) -> dict[str, Any]:
    is_leaf = lambda x: not isinstance(x, Mapping)
    leaves, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_leaf)
    return {leaf_name("params", path): leaf for path, leaf in leaves}


def _difference(want: dict[str, Any], got: dict[str, Any]) -> str:
    missing = [name for name in want if name not in got]
    unknown = [name for name in got if name not in want]
    parts = [f"missing: {', '.join(missing)}"] if missing else []
    parts += [f"not known: {', '.join(unknown)}"] if unknown else []
    return "; ".join(parts)
