"""The inputs of a layer's run, with any number of batch axes and any dtypes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._autodiff.leaves import is_float
from .._base.errors import describe
from .._base.inputs import as_array, as_state, named_inputs
from .._base.lengths import lengths_array, lengths_for
from .._base.trees import map_named
from .._base.typing import Array, DType, Lengths, Params, PyTree
from .._cells.affine import AffineCell
from .batch_axes import BatchAxes
from .layer import Layer, RunOptions, in_dtype


@dataclasses.dataclass(frozen=True)
class LayerInputs:
    """Sequences with one batch axis, and the batch axes that they had.

    Attributes:
        where: The module, for messages.
        inputs: `[rows, time, ...]`, or `[time, rows, ...]` if `start` is 1; or a nest.
        lengths: `[rows]` or None.
        axes: The batch axes of the module's inputs.
        start: The number of axes before those: 1 if time is the first axis, else 0.
    """

    where: str
    inputs: PyTree
    lengths: Array | None
    axes: BatchAxes
    start: int

    @classmethod
    def make(
        cls,
        where: str,
        layer: Layer,
        inputs: PyTree,
        sequence_length: Lengths | None,
        time_major: bool,
    ) -> "LayerInputs":
        """The layer's inputs from `[*batch, time, ...]` and lengths `[*batch]`.

        Raises:
            ValueError: If they do not agree.
            TypeError: If a leaf is not an array.
        """
        inputs = map_named("inputs", lambda n, x: as_array(where, n, x), inputs)
        lengths, start = sequence_length, 1 if time_major else 0
        if lengths is not None:
            lengths = lengths_array(where, lengths)
        axes = _batch_axes(where, layer, inputs, lengths, time_major)
        axes.check(where, "inputs", inputs, start)
        inputs = axes.merge(inputs, start)
        if lengths is not None:
            axes.check(where, "sequence_length", lengths)
            time = jax.tree.leaves(inputs)[0].shape[1 - start]
            lengths = lengths_for(where, axes.merge(lengths), inputs, time, start)
        return cls(where, inputs, lengths, axes, start)

    def step(self, dtype: DType) -> PyTree:
        """The shapes and dtypes of one step, floating leaves in that dtype."""
        axis = 1 - self.start

        def of_step(x: Array) -> jax.ShapeDtypeStruct:
            shape = (*x.shape[:axis], *x.shape[axis + 1 :])
            return jax.ShapeDtypeStruct(shape, dtype if is_float(x) else x.dtype)

        return jax.tree.map(of_step, self.inputs)

    def compute_dtype(self, dtype: DType | None, params: Params) -> DType:
        """The dtype of the computation: `dtype`, or the widest of inputs and params."""
        if dtype is not None:
            return jnp.dtype(dtype)
        leaves = jax.tree.leaves((self.inputs, params))
        floats = [x.dtype for x in leaves if is_float(x)]
        with jax.numpy_dtype_promotion("standard"):
            return jnp.result_type(*floats) if floats else jnp.dtype(jnp.float32)

    def run(
        self, layer: Layer, params: Params, state: PyTree, options: RunOptions
    ) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of the layer, with all batch axes."""
        inputs, params = in_dtype(options.dtype, (self.inputs, params))
        if state is not None:
            state = as_state(self.where, "initial_state", state)
            self.axes.check(self.where, "initial_state", state)
        state = in_dtype(options.dtype, self.axes.merge(state))
        options = dataclasses.replace(options, sequence_length=self.lengths)
        outputs, state = layer.run(params, inputs, state, options)
        return self.axes.split(outputs, self.start), self.axes.split(state)


# For messages: users of Flax pass these names.
_OUR_NAMES = {
    "seq_lengths": "sequence_length",
    "initial_carry": "initial_state",
    "mask": "sequence_length",
    "init_key": "rngs",
}


def check_unknown(where: str, unknown: dict[str, Any]) -> None:
    """Raises TypeError for keyword arguments that a call does not take."""
    for name in unknown:
        fix = f" It is `{_OUR_NAMES[name]}` here." if name in _OUR_NAMES else ""
        raise TypeError(f"{where}: `{name}` is no argument of a call.{fix}")


def _batch_axes(
    where: str, layer: Layer, inputs: PyTree, lengths: Any, time_major: bool
) -> BatchAxes:
    """The batch axes: as many as the lengths have, or all but time and features."""
    (name, first), *_ = named_inputs(where, inputs)
    reads_vectors = _reads_vectors(layer.cells[0])
    count = np.ndim(lengths) if lengths is not None else 1
    if lengths is None and reads_vectors:
        count = max(0, first.ndim - 2)
    if first.ndim < count + 2 or (reads_vectors and first.ndim > count + 2):
        axes = "[time, *batch, ...]" if time_major else "[*batch, time, ...]"
        of = "" if lengths is None else f", as {describe(lengths)} has"
        fix = "A list is a nest of its elements."
        if lengths is not None and np.shape(lengths) == first.shape[:count]:
            fix = "Of a mask the lengths are `mask.sum(-1)`."
        raise ValueError(
            f"{where}: `{name}` must be {axes} with {count} axes of rows{of}, got "
            f"{describe(first)}. {fix}"
        )
    start = 1 if time_major else 0
    return BatchAxes(first.shape[start : start + count])


def _reads_vectors(cell: Any) -> bool:
    """Whether a cell is known to read one vector in each row of a step."""
    while not isinstance(cell, AffineCell):
        cells = getattr(cell, "cells", None) or (getattr(cell, "cell", None),)
        if cells[0] is None:
            return False
        cell = cells[0]
    return True
