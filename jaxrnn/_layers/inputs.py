"""Preparation of a layer's inputs, which may have any batch axes and dtypes."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_dtype
from .._base.errors import InvalidType, InvalidValue, describe
from .._base.inputs import (
    as_array,
    as_state,
    as_step_booleans,
    fix_of_depth,
    fix_without_depth,
    named_inputs,
)
from .._base.lengths import (
    OF_A_MASK,
    check_not_inputs,
    fix_of_dtype,
    lengths_array,
    lengths_for,
)
from .._base.math import is_float
from .._base.trees import map_named, named_leaves
from .._base.typing import Array, DType, Lengths, Params, PyTree
from .._cells.base import RNNCell
from .layer import Layer, RunOptions, in_dtype


@dataclasses.dataclass(frozen=True)
class BatchAxes:
    """Merges the batch axes of a nest into one axis, and splits this axis again.

    A single batch axis is not reshaped, so sharded arrays keep their layout.

    Attributes:
        shape: The sizes of the batch axes; `()` for a single row without a batch axis.
    """

    shape: tuple[int, ...]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return math.prod(self.shape)

    def check(self, name: str, tree: PyTree, start: int = 0) -> None:
        """Raises ValueError for a leaf whose batch axes differ from `shape`."""
        if len(self.shape) == 1:
            return  # The drivers check the batch axis if there is only one.
        end = start + len(self.shape)
        for leaf_name, leaf in named_leaves(name, tree):
            if leaf is not None and leaf.ndim and leaf.shape[start:end] != self.shape:
                raise InvalidValue(
                    f"`{leaf_name}` must have the batch axes "
                    f"{list(self.shape)}, got {describe(leaf)}."
                )

    def merge(self, tree: PyTree, start: int = 0) -> PyTree:
        """Reshapes `[*shape, ...]` to `[rows, ...]`, after the first `start` axes.

        Leaves with fewer axes are unchanged.
        """
        return self._reshaped(tree, start, len(self.shape), (self.rows,))

    def split(self, tree: PyTree, start: int = 0) -> PyTree:
        """Splits the merged batch axis again; the inverse of `merge`."""
        return self._reshaped(tree, start, 1, self.shape)

    def _reshaped(self, tree: PyTree, start: int, count: int, sizes: tuple) -> PyTree:
        """Replaces `count` axes of each leaf of the nest by axes of the given sizes."""
        if len(self.shape) == 1:
            return tree
        end = start + count
        reshape = lambda x: x.reshape(*x.shape[:start], *sizes, *x.shape[end:])
        return jax.tree.map(lambda x: reshape(x) if x.ndim >= end else x, tree)


@dataclasses.dataclass(frozen=True)
class LayerInputs:
    """Sequences with one merged batch axis, and their original batch axes.

    Attributes:
        inputs: `[rows, time, ...]`, or `[time, rows, ...]` if `start` is 1; or a nest.
        lengths: `[rows]` or None.
        axes: The batch axes of the module's inputs.
        start: The number of axes before the batch axes: 1 if time is first, else 0.
    """

    inputs: PyTree
    lengths: Array | None
    axes: BatchAxes
    start: int

    @classmethod
    def make(
        cls, module: Any, layer: Layer, inputs: PyTree, lengths: Lengths | None
    ) -> "LayerInputs":
        """The layer's inputs, from `[*batch, time, ...]` and lengths `[*batch]`.

        The module must have `time_major` and `dtype`. If `dtype` is not None and the
        cell reads vectors, integer inputs are cast to `dtype`, as in Flax.

        Raises:
            ValueError: If the shapes do not match.
            TypeError: If a leaf is not an array.
        """
        start = 1 if module.time_major else 0
        inputs = map_named("inputs", lambda n, x: as_array(n, x), inputs)
        inputs = cast_integers(layer.cells[0], module.dtype, inputs)
        if lengths is not None:
            lengths = _checked_lengths(lengths)
        axes = _batch_axes(layer, inputs, lengths, module.time_major)
        axes.check("inputs", inputs, start)
        inputs = axes.merge(inputs, start)
        if lengths is not None:
            axes.check("sequence_length", lengths)
            time = jax.tree.leaves(inputs)[0].shape[1 - start]
            lengths = lengths_for(axes.merge(lengths), inputs, time, start)
        return cls(inputs, lengths, axes, start)

    def step(self, dtype: DType) -> PyTree:
        """The shapes and dtypes of one step, with floating-point leaves in `dtype`."""
        axis = 1 - self.start

        def of_step(x: Array) -> jax.ShapeDtypeStruct:
            shape = (*x.shape[:axis], *x.shape[axis + 1 :])
            return jax.ShapeDtypeStruct(shape, dtype if is_float(x) else x.dtype)

        return jax.tree.map(of_step, self.inputs)

    def compute_dtype(self, dtype: DType | None, params: Params) -> DType:
        """The computation's dtype; by default the widest of inputs and parameters."""
        if dtype is not None:
            return as_dtype(dtype)
        leaves = jax.tree.leaves((self.inputs, params))
        floats = [x.dtype for x in leaves if is_float(x)]
        with jax.numpy_dtype_promotion("standard"):
            return jnp.result_type(*floats) if floats else jnp.dtype(jnp.float32)

    def run(
        self, layer: Layer, params: Params, state: PyTree, options: RunOptions
    ) -> tuple[PyTree, ...]:
        """Runs the layer, and splits the results' batch axis into the original axes.

        The batch axes of `state`, and of the resets, the reset state and the mask in
        `options`, are not merged yet.
        """
        inputs, params = in_dtype(options.dtype, (self.inputs, params))
        state = self._state("initial_state", state, options)
        options = dataclasses.replace(
            options,
            sequence_length=self.lengths,
            resets=self._of_steps("resets", options.resets, "`done > 0`"),
            mask=self._of_steps("mask", options.mask, "`mask > 0`"),
            reset_state=self._state("reset_state", options.reset_state, options),
        )
        outputs, state, *states = layer.run(params, inputs, state, options)
        outputs, *states = self.axes.split((outputs, *states), self.start)
        return outputs, self.axes.split(state), *states

    def _state(self, name: str, state: PyTree, options: RunOptions) -> PyTree:
        """The state with one merged batch axis, cast to `dtype`; None stays None.

        In a pair of a forward and a backward state, either state may be None.
        """
        if state is None:
            return None
        as_leaf = lambda n, x: None if x is None else as_state(n, x)
        state = map_named(name, as_leaf, state)
        self.axes.check(name, state)
        return in_dtype(options.dtype, self.axes.merge(state))

    def _of_steps(self, name: str, values: Any, fix: str) -> Array | None:
        """Merges the batch axes of booleans for each row and step; None stays None."""
        if values is None:
            return None
        values = as_array(name, values)
        self.axes.check(name, values, self.start)
        values = self.axes.merge(values, self.start)
        shape, axis = jax.tree.leaves(self.inputs)[0].shape[:2], 1 - self.start
        fix = f"Convert numbers with a comparison, such as {fix}."
        return as_step_booleans(name, values, shape, axis, fix)


def _checked_lengths(lengths: Any) -> Array | np.ndarray:
    """The lengths as an array; raises TypeError for a mask or a state."""
    check_not_inputs(lengths, "rnn(inputs, initial_state=state)")
    lengths = lengths_array(lengths)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise InvalidType(
            "`sequence_length` must be integers [*batch], one for each row, "
            f"got {describe(lengths)}. {fix_of_dtype(lengths)}"
        )
    return lengths


def _fix_of_rank(name: str, lengths: Any, leaf: Array, time_major: bool) -> str:
    """The hint for inputs that have one axis fewer than the lengths imply."""
    count, start = lengths.ndim, 1 if time_major else 0
    if count > 1 and lengths.shape == leaf.shape[:count]:
        return OF_A_MASK
    if is_float(leaf) and lengths.shape == leaf.shape[start : start + count]:
        return fix_without_depth(name)
    return fix_of_depth(name, leaf, time_major)


def _batch_axes(
    layer: Layer, inputs: PyTree, lengths: Any, time_major: bool
) -> BatchAxes:
    """The batch axes: the axes of `lengths`, or all axes except time and features."""
    (name, first), *_ = named_inputs(inputs)
    features = _feature_axes(layer.cells[0])
    count = np.ndim(lengths) if lengths is not None else 1
    if lengths is None and features is not None:
        count = max(0, first.ndim - 1 - features)
    ndim = count + 1 + (1 if features is None else features)
    if first.ndim < ndim or (features is not None and first.ndim > ndim):
        axes = "[time, *batch, ...]" if time_major else "[*batch, time, ...]"
        of = "" if lengths is None else f", one for each axis of {describe(lengths)}"
        fix = "A list is a nest of its elements, not an array."
        if lengths is not None and first.ndim == ndim - 1:
            fix = _fix_of_rank(name, lengths, first, time_major)
        raise InvalidValue(
            f"`{name}` must be {axes} with {count} batch axes{of}, got "
            f"{describe(first)}. {fix}"
        )
    start = 1 if time_major else 0
    return BatchAxes(first.shape[start : start + count])


def step_of_cell(
    module: Any, cell: RNNCell, params_for: Callable, carry: PyTree, inputs: Array
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
    axes = BatchAxes(inputs.shape[:-1])
    inputs, state = axes.merge((inputs, carry))
    inputs = cast_integers(cell, module.dtype, inputs)
    arrays = params_for(inputs), inputs
    params, inputs = in_dtype(module.dtype or module.param_dtype, arrays)
    output, state = cell.apply(params, inputs, state)
    return axes.split((state, output))


def zero_carry(cell: RNNCell, input_shape: tuple[int, ...], dtype: DType) -> PyTree:
    """The zero state for inputs `[*batch, features]`, each leaf `[*batch, ...]`."""
    axes = BatchAxes(input_shape[:-1])
    return axes.split(cell.zero_state(axes.rows, dtype))


def cast_integers(cell: RNNCell, dtype: DType | None, inputs: PyTree) -> PyTree:
    """The inputs, with integers cast to a given `dtype` if the cell reads vectors."""
    if dtype is None or _feature_axes(cell) != 1:
        return inputs
    is_integer = lambda x: x.dtype.kind in "iub"
    return jax.tree.map(lambda x: x.astype(dtype) if is_integer(x) else x, inputs)


def _feature_axes(cell: Any) -> int | None:
    """The number of axes in one row of a cell's inputs; None if it is unknown."""
    while not hasattr(cell, "feature_axes"):
        inner = getattr(cell, "cells", None) or getattr(cell, "cell", None)
        if not inner or getattr(cell, "owns_params", False):
            return None
        cell = inner[0] if isinstance(inner, tuple) else inner
    return cell.feature_axes
