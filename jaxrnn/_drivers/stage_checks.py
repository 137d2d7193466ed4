"""Checks of what `pipelined_rnn` is given, before anything is traced."""

from typing import Any

import jax

from .._base.cell_keys import varying_axes
from .._base.errors import describe
from .._base.trees import check_structure, named_leaves, size_shapes
from .._base.typing import Array, DType, Params, PyTree


def check_is_bound(where: str, cell: Any) -> None:
    """Raises TypeError for a cell whose parameters are not apart from it."""
    missing = [n for n in ("cell", "params", "key") if not hasattr(cell, n)]
    if missing:
        raise TypeError(
            f"{where}: `cell` must be the cell of one layer, bound to stacked "
            f"parameters, got {describe(cell)}. Call `cell.bind(params)`; "
            "`jaxrnn.FunctionCell` makes a cell of a function."
        )


def check_stages(where: str, axis_name: Any) -> None:
    """Raises ValueError unless `axis_name` is mapped by a `shard_map` that checks."""
    manual = jax.sharding.get_abstract_mesh().manual_axes
    if axis_name not in manual:
        raise ValueError(
            f"{where}: `axis_name` must be a mesh axis that `jax.shard_map` maps, "
            f"around this call, got {axis_name!r}. Mapped are {manual}."
        )
    several = jax.lax.axis_size(axis_name) > 1
    if several and not varies_over(axis_name, jax.lax.axis_index(axis_name)):
        raise ValueError(
            f"{where}: `jax.shard_map` must have `check_vma=True`, its default. "
            "Without it, JAX would count gradients once for each stage."
        )


def check_inputs(
    where: str, cell: Any, inputs: PyTree, dtype: DType, axis_name: str
) -> None:
    """Raises unless inputs are what every layer puts out, the same on all stages."""
    size = cell.output_size
    fix = "The outputs of a layer are the inputs of the next."
    check_structure(f"{where}: `inputs`", size, inputs, strict=True, fix=fix)
    named = named_leaves("inputs", inputs)
    for (name, leaf), shape in zip(named, size_shapes(size), strict=True):
        if leaf.shape[2:] != shape:
            raise ValueError(
                f"{where}: `{name}` must have the sizes of the layers' outputs, "
                f"{shape}, after batch and time, got {describe(leaf)}. Project the "
                "inputs, `x @ w`, or run a first layer of another shape before, by "
                "`dynamic_rnn`."
            )
        if leaf.dtype != dtype:
            raise TypeError(
                f"{where}: `{name}` must have the dtype of the outputs, {dtype}, got "
                f"{describe(leaf)}. Cast it, or pass `dtype=jnp.{leaf.dtype}`."
            )
        if varies_over(axis_name, leaf):
            raise ValueError(
                f"{where}: `{name}` must be the same on all stages, got inputs that "
                f"differ. Leave {axis_name!r} out of its spec in `in_specs`."
            )


def check_sharded(where: str, params: Params, axis_name: str) -> None:
    """Raises ValueError for a parameter that is the same on all stages."""
    for name, leaf in named_leaves("params", params):
        if not varies_over(axis_name, leaf):
            raise ValueError(
                f"{where}: `{name}` must be sharded over the stages, got the same "
                f"{describe(leaf)} on all of them. In `in_specs` of `jax.shard_map` "
                f"its spec is `P({axis_name!r})`."
            )


def count_of_layers(where: str, params: Params) -> int:
    """The first axis of all parameters.

    Raises:
        ValueError: If they differ in it, or there is none.
    """
    named = list(named_leaves("params", params))
    counts = {leaf.shape[0] if leaf.ndim else 0: name for name, leaf in named}
    if len(counts) != 1 or 0 in counts:
        got = ", ".join(f"{count} in `{name}`" for count, name in counts.items())
        raise ValueError(
            f"{where}: the first axis of all `params` must be that of the layers, got "
            f"{got or 'no array'}. Stack the parameters of equal cells: `jax.tree.map("
            "lambda *p: jnp.stack(p), *params_of_layers)`."
        )
    return next(iter(counts))


def check_captured(where: str, captured: list[Array], axis_name: str) -> None:
    """Raises ValueError if the cell reads an array that is the same on all stages.

    Its gradient would be summed over the stages within the loop, where a stage that has
    no chunk does not take part: the program would hang.
    """
    for array in captured:
        if jax.lax.axis_size(axis_name) > 1 and not varies_over(axis_name, array):
            raise ValueError(
                f"{where}: `cell` must read no traced array that is the same on all "
                f"stages, apart from its arguments, got {describe(array)}. Put it into "
                "the parameters, or pass the cell `jax.lax.pcast(array, "
                f"{axis_name!r}, to='varying')`."
            )


def varies_over(axis_name: str, x: Array) -> bool:
    """Whether `x` may differ along the axis, by its type; unknown for an axis of 1."""
    return axis_name in varying_axes(x)
