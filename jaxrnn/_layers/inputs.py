"""Runs a layer over inputs with any batch axes and dtypes, for a module of Flax."""

import math
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_dtype, check_dtype_kind
from .._base.errors import InvalidValue, describe
from .._base.inputs import as_array, named_inputs
from .._base.lengths import check_not_inputs, fix_of_dtype, lengths_array
from .._base.math import is_float
from .._base.trees import map_named, named_leaves
from .._base.typing import Array, ArrayLike, DType, Key, Lengths, Params, PyTree
from .._cells.base import RNNCell
from .checks import check_options
from .layer import Layer, in_dtype

Shape: TypeAlias = tuple[int, ...]


class Recurrent(Protocol):
    """The options that the modules of linen and nnx share; see `RNN`."""

    time_major: bool
    return_carry: bool
    return_states: bool
    swap_memory: Any
    parallel_iterations: int | None
    implementation: Any
    dtype: DType | None


def run_layer(
    module: Recurrent,
    layer: Layer,
    params_for: Callable[[Callable[[DType], PyTree]], Params],
    key_for: Callable[[Params, PyTree, DType], Key | None],
    inputs: PyTree,
    sequence_length: Lengths | None,
    initial_state: PyTree,
    reset_state: PyTree,
    return_carry: bool | None,
    return_states: bool | None,
    **of_driver: Any,
) -> PyTree:
    """Runs the layer of a module; see the module's `__call__`.

    Args:
        module: The module.
        layer: The layer.
        params_for: `params_for(step_in)` returns the parameters. `step_in(dtype)` is
            one step of the inputs, with floating-point leaves in `dtype`.
        key_for: `key_for(params, step, dtype)` returns the random key of the run, or
            None.
        inputs: As in the module's call.
        sequence_length: As in the module's call.
        initial_state: As in the module's call.
        reset_state: As in the module's call.
        return_carry: As in the module's call.
        return_states: As in the module's call.
        **of_driver: `resets` and `mask`, as in the module's call, and `implementation`.
    """
    check_options(return_carry=return_carry, return_states=return_states)
    return_carry = module.return_carry if return_carry is None else return_carry
    return_states = module.return_states if return_states is None else return_states
    inputs, lengths, shape = _prepared(module, layer, inputs, sequence_length)
    start = 1 if module.time_major else 0

    def step_in(dtype: DType) -> PyTree:
        return jax.tree.map(lambda x: _step(x, 1 - start, dtype), inputs)

    params = params_for(step_in)
    dtype = _compute_dtype(module.dtype, (inputs, params))
    key = key_for(params, step_in(dtype), dtype)
    inputs, params = in_dtype(dtype, (inputs, params))
    of_driver |= {n: _merged(n, of_driver[n], shape, start) for n in ("resets", "mask")}
    outputs, state, *states = layer.run(
        params,
        inputs,
        _state("initial_state", initial_state, shape, dtype),
        key,
        reset_state=_state("reset_state", reset_state, shape, dtype),
        dtype=dtype,
        sequence_length=lengths,
        time_major=module.time_major,
        parallel_iterations=module.parallel_iterations,
        swap_memory=module.swap_memory,
        return_states=bool(return_states),
        **of_driver,
    )
    return _split(outputs, state, states, shape, start, return_carry)


def _split(
    outputs: PyTree,
    state: PyTree,
    states: list[PyTree],
    shape: Shape,
    start: int,
    return_carry: bool,
) -> PyTree:
    """The results with the batch axes of the inputs, in the order of the module."""
    outputs = split_batch(outputs, shape, start)
    state = split_batch(state, shape)
    if states:
        return outputs, state, *split_batch(states, shape, start)
    return (state, outputs) if return_carry else outputs


def _prepared(
    module: Recurrent, layer: Layer, inputs: PyTree, lengths: Lengths | None
) -> tuple[PyTree, Array | None, Shape]:
    """The inputs and lengths with one merged batch axis, and the batch axes."""
    inputs = map_named("inputs", as_array, inputs)
    inputs = cast_integers(layer.cells[0], module.dtype, inputs)
    if lengths is not None:
        check_not_inputs(lengths, "rnn(inputs, lengths, initial_state=state)")
        lengths = lengths_array(lengths)
        what = "integers [*batch]"
        fix = fix_of_dtype(lengths)
        check_dtype_kind("sequence_length", lengths, jnp.integer, what, fix)
    shape = _batch_shape(layer, inputs, lengths, module.time_major)
    inputs = _merged("inputs", inputs, shape, 1 if module.time_major else 0)
    return inputs, _merged("sequence_length", lengths, shape), shape


def _step(x: Array, time_axis: int, dtype: DType) -> jax.ShapeDtypeStruct:
    shape = (*x.shape[:time_axis], *x.shape[time_axis + 1 :])
    return jax.ShapeDtypeStruct(shape, dtype if is_float(x) else x.dtype)


def _compute_dtype(dtype: DType | None, arrays: PyTree) -> DType:
    """The computation's dtype; by default the widest of inputs and parameters."""
    if dtype is not None:
        return as_dtype(dtype)
    floats = [x.dtype for x in jax.tree.leaves(arrays) if is_float(x)]
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*floats) if floats else jnp.dtype(jnp.float32)


def merge_batch(tree: PyTree, shape: Shape, start: int = 0) -> PyTree:
    """Reshapes `[*shape, ...]` to `[rows, ...]`, after the first `start` axes.

    A single batch axis is not reshaped, so sharded arrays keep their layout. Leaves
    with fewer axes are unchanged.
    """
    return _reshaped(tree, start, len(shape), (math.prod(shape),))


def split_batch(tree: PyTree, shape: Shape, start: int = 0) -> PyTree:
    """Splits the merged batch axis again; the inverse of `merge_batch`."""
    return _reshaped(tree, start, 1, shape)


def _reshaped(tree: PyTree, start: int, count: int, sizes: Shape) -> PyTree:
    """Replaces `count` axes of each leaf of the nest by axes of the given sizes."""
    end = start + count

    def reshape(x: Array) -> Array:
        return x.reshape(*x.shape[:start], *sizes, *x.shape[end:])

    if count == len(sizes):
        return tree
    return jax.tree.map(lambda x: reshape(x) if x.ndim >= end else x, tree)


def _merged(name: str, tree: PyTree, shape: Shape, start: int = 0) -> PyTree:
    """Arrays with merged batch axes; None stays None.

    Raises:
        ValueError: If the batch axes of a leaf differ from `shape`. The drivers check
            a single batch axis.
    """
    if tree is None:
        return None
    tree = map_named(name, _as_array_or_none, tree)
    end = start + len(shape)
    for full, leaf in named_leaves(name, tree) if len(shape) != 1 else ():
        if leaf is not None and leaf.ndim and leaf.shape[start:end] != shape:
            must = f"have the batch axes {list(shape)}"
            raise InvalidValue(f"`{full}` must {must}, got {describe(leaf)}.")
    return merge_batch(tree, shape, start)


def _as_array_or_none(name: str, leaf: ArrayLike | None) -> Array | None:
    return None if leaf is None else as_array(name, leaf)


def _state(name: str, state: PyTree, shape: Shape, dtype: DType) -> PyTree:
    """The state with one merged batch axis, cast to `dtype`; None stays None.

    In a pair of a forward and a backward state, either state may be None.
    """
    return in_dtype(dtype, _merged(name, state, shape))


def _batch_shape(
    layer: Layer, inputs: PyTree, lengths: np.ndarray | Array | None, time_major: bool
) -> Shape:
    """The batch axes: the axes of `lengths`, or all axes except time and features."""
    (name, first), *_ = named_inputs(inputs)
    features = _feature_axes(layer.cells[0])
    count = np.ndim(lengths) if lengths is not None else 1
    if lengths is None and features is not None:
        count = max(0, first.ndim - 1 - features)
    ndim = count + 1 + (1 if features is None else features)
    if first.ndim < ndim or (features is not None and first.ndim > ndim):
        axes = "[time, *batch, ...]" if time_major else "[*batch, time, ...]"
        of = "" if lengths is None else f", those of lengths {describe(lengths)}"
        raise InvalidValue(
            f"`{name}` must be {axes} with {count} batch axes{of}, got "
            f"{describe(first)}. A list is a nest of its elements, not an array."
        )
    start = 1 if time_major else 0
    return first.shape[start : start + count]


class CellModule(Protocol):
    """The options that `Cell` of linen and of nnx share."""

    dtype: DType | None
    param_dtype: DType


def step_of_cell(
    module: CellModule,
    cell: RNNCell,
    params_for: Callable[[Array], Params],
    carry: PyTree,
    inputs: Array,
) -> tuple[PyTree, PyTree]:
    """`(carry, output)` of one step, each leaf `[*batch, ...]`, as in Flax.

    Args:
        module: The module. Its `dtype` is the dtype of the computation; if this is
            None, the dtype is `param_dtype`.
        cell: The cell.
        params_for: `params_for(step)` returns the cell's parameters for one step of
            inputs, `[rows, features]`.
        carry: The cell's state, each leaf `[*batch, ...]`.
        inputs: `[*batch, features]`.
    """
    shape = inputs.shape[:-1]
    inputs, state = merge_batch((inputs, carry), shape)
    inputs = cast_integers(cell, module.dtype, inputs)
    dtype = module.dtype or module.param_dtype
    params, inputs = in_dtype(dtype, (params_for(inputs), inputs))
    output, state = cell.apply(params, inputs, state)
    return split_batch((state, output), shape)


def zero_carry(cell: RNNCell, input_shape: tuple[int, ...], dtype: DType) -> PyTree:
    """The zero state for inputs `[*batch, features]`, each leaf `[*batch, ...]`."""
    shape = input_shape[:-1]
    return split_batch(cell.zero_state(math.prod(shape), dtype), shape)


def cast_integers(cell: RNNCell, dtype: DType | None, inputs: PyTree) -> PyTree:
    """The inputs, with integers cast to a given `dtype` if the cell reads vectors."""
    if dtype is None or _feature_axes(cell) != 1:
        return inputs

    def cast(x: Array) -> Array:
        return x.astype(dtype) if x.dtype.kind in "iub" else x

    return jax.tree.map(cast, inputs)


def _feature_axes(cell: Any) -> int | None:
    """The number of axes in one row of a cell's inputs; None if it is unknown."""
    while not hasattr(cell, "feature_axes"):
        inner = getattr(cell, "cells", None) or getattr(cell, "cell", None)
        if not inner or getattr(cell, "owns_params", False):
            return None
        cell = inner[0] if isinstance(inner, tuple) else inner
    return cell.feature_axes
