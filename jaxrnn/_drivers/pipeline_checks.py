"""Checks of the cell, mesh, inputs, parameters and states of `pipelined_rnn`."""

from typing import Any

import jax

from .._base.arguments import check_dtype
from .._base.errors import InvalidType, InvalidValue, describe
from .._base.sharding import varying_axes
from .._base.trees import check_structure, named_leaves, size_shapes
from .._base.typing import Array, DType, Params, PyTree, Size


def check_is_bound(cell: Any) -> None:
    """Raises TypeError unless the cell is bound to separate parameters."""
    missing = [n for n in ("cell", "params", "key") if not hasattr(cell, n)]
    if missing:
        function = "`jaxrnn.FunctionCell` creates a cell from a function"
        raise InvalidType(
            "`cell` must be the cell of one layer, bound to stacked "
            f"parameters, got {describe(cell)}. Call `cell.bind(params)`; {function}."
        )


def check_mesh_axis(axis_name: Any) -> None:
    """Raises ValueError unless a `shard_map` with `check_vma` maps `axis_name`."""
    manual = jax.sharding.get_abstract_mesh().manual_axes
    if axis_name not in manual:
        raise InvalidValue(
            "`axis_name` must be a mesh axis that `jax.shard_map` maps "
            f"around this call, got {axis_name!r}. The mapped axes are {manual}."
        )
    if _is_same_on_all(axis_name, jax.lax.axis_index(axis_name)):
        raise InvalidValue(
            "`jax.shard_map` must have `check_vma=True`, its default. "
            "Without it, JAX would count gradients once for each stage."
        )


def _is_same_on_all(axis_name: str, x: Array) -> bool:
    """Whether `x`, according to its type, is the same on all of several stages."""
    return jax.lax.axis_size(axis_name) > 1 and axis_name not in varying_axes(x)


def check_inputs(cell: Any, inputs: PyTree, dtype: DType, axis_name: str) -> None:
    """Raises unless inputs are equal on all stages and match the layers' outputs."""
    size = cell.output_size
    fix = "The outputs of a layer are the inputs of the next."
    check_structure("`inputs`", size, inputs, strict=True, fix=fix)
    named = named_leaves("inputs", inputs)
    for (name, leaf), shape in zip(named, size_shapes(size), strict=True):
        if leaf.shape[2:] != shape:
            after = f"{shape} after batch and time"
            raise InvalidValue(
                f"`{name}` must have the sizes of the layers' outputs, "
                f"{after}, got {describe(leaf)}. Project the inputs, `x @ w`, or run a "
                "first layer of another shape with `dynamic_rnn`."
            )
        must = f"have the dtype of the outputs, {dtype}"
        fix = f"Cast it, or pass `dtype=jnp.{leaf.dtype}`."
        check_dtype(name, leaf, dtype, must, fix)
        if axis_name in varying_axes(leaf):
            raise InvalidValue(
                f"`{name}` must be the same on all stages, got inputs that "
                f"differ. Leave {axis_name!r} out of its spec in `in_specs`."
            )


def check_captured(captured: list[Array], axis_name: str) -> None:
    """Raises ValueError if the cell reads an array that is the same on all stages.

    The array's gradient would be summed over the stages inside the loop. A stage
    without a chunk would not take part in the sum, so the program would hang.
    """
    for array in captured:
        if _is_same_on_all(axis_name, array):
            cast = f"`jax.lax.pcast(array, {axis_name!r}, to='varying')`"
            raise InvalidValue(
                "`cell` must not close over a traced array that is the same "
                f"on all stages, got {describe(array)}. Make it a parameter, or close "
                f"over {cast}."
            )


def count_layers(params: Params, axis_name: str) -> int:
    """Returns the number of layers in the stacked parameters of a stage.

    Raises:
        ValueError: If parameters differ in their number of layers or have no layers; if
            the parameters are the same on all stages.
    """
    named = list(named_leaves("params", params))
    counts = {leaf.shape[0] if leaf.ndim else 0: name for name, leaf in named}
    if len(counts) != 1 or 0 in counts:
        got = ", ".join(f"{count} in `{name}`" for count, name in counts.items())
        stack = "`jax.tree.map(lambda *p: jnp.stack(p), *params_of_layers)`"
        raise InvalidValue(
            "the first axis of all `params` must be the layer axis, got "
            f"{got or 'no array'}. Stack the parameters of equal cells: {stack}."
        )
    for name, leaf in named:
        if _is_same_on_all(axis_name, leaf):
            raise InvalidValue(
                f"`{name}` must be sharded over the stages, got the same "
                f"{describe(leaf)} on all of them. Its spec in the `in_specs` of "
                f"`jax.shard_map` must be `P({axis_name!r})`."
            )
    return next(iter(counts))


def check_states(state: PyTree, size: Size, count: int, axis_name: str) -> None:
    """Raises unless `state` holds the stacked states of `count` layers.

    Raises:
        TypeError: If a sequence type differs from `size`.
        ValueError: If the structure differs from `size`, or if the first axis of a leaf
            does not have size `count`.
    """
    check_structure("`initial_state`", size, state, strict=True)
    for name, leaf in named_leaves("initial_state", state):
        if leaf.shape[:1] != (count,):
            each = f"for each layer of this stage, [{count}, batch, ...]"
            spec = f"their spec in `in_specs` must begin with {axis_name!r}"
            raise InvalidValue(
                f"`{name}` must have an entry {each}, got {describe(leaf)}. "
                f"Stack the states of all layers; {spec}."
            )
