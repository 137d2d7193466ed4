"""What a layer is given: any number of axes of rows, any dtypes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._autodiff.jax_internals import Tracer
from .._autodiff.leaves import is_float
from .._base.arguments import as_array, as_lengths, as_state, named_inputs
from .._base.errors import describe
from .._base.sharding import as_rows_of
from .._base.trees import map_named
from .._base.typing import Array, ArrayLike, DType, Params, PyTree
from .._cells.affine import AffineCell
from .batch_axes import BatchAxes
from .layer import Layer, Way, in_dtype


@dataclasses.dataclass(frozen=True)
class LayerInputs:
    """Sequences with one axis of rows, and the axes that they had.

    Attributes:
        where: The module, for messages.
        inputs: `[rows, time, ...]`, `[time, rows, ...]` if time comes first; or a nest.
        lengths: `[rows]` or None.
        axes: The axes of rows.
    """

    where: str
    inputs: PyTree
    lengths: Array | None
    axes: BatchAxes

    @classmethod
    def make(
        cls,
        where: str,
        layer: Layer,
        inputs: PyTree,
        sequence_length: ArrayLike | None,
        time_major: bool,
    ) -> "LayerInputs":
        """Of inputs `[*batch, time, ...]` and lengths `[*batch]`.

        Raises:
            ValueError: If they do not agree.
            TypeError: If a leaf is no array.
        """
        inputs = map_named("inputs", lambda n, x: as_array(where, n, x), inputs)
        lengths = None if sequence_length is None else _stacked(where, sequence_length)
        axes = _batch_axes(where, layer, inputs, lengths, time_major)
        axes.check(where, "inputs", inputs, start=1 if time_major else 0)
        inputs = axes.merge_sequences(inputs)
        first = jax.tree.leaves(inputs)[0]
        batch, time = (1, 0) if time_major else (0, 1)
        if lengths is not None:
            axes.check(where, "sequence_length", lengths)
            lengths = as_lengths(where, axes.merge(lengths), first.shape[batch])
        if lengths is not None:
            lengths = jnp.minimum(lengths, first.shape[time])
            lengths = as_rows_of(inputs, lengths, batch)
        return cls(where, inputs, lengths, axes)

    def step(self, dtype: DType) -> PyTree:
        """The types of one step, floating numbers in that dtype."""
        axis = 0 if self.axes.time_major else 1

        def of_step(x: Array) -> jax.ShapeDtypeStruct:
            shape = (*x.shape[:axis], *x.shape[axis + 1 :])
            return jax.ShapeDtypeStruct(shape, dtype if is_float(x) else x.dtype)

        return jax.tree.map(of_step, self.inputs)

    def compute_dtype(self, dtype: DType | None, params: Params) -> DType:
        """The dtype to compute in: the one given, or the widest of what there is."""
        if dtype is not None:
            return jnp.dtype(dtype)
        leaves = jax.tree.leaves((self.inputs, params))
        floats = [x.dtype for x in leaves if is_float(x)]
        with jax.numpy_dtype_promotion("standard"):
            return jnp.result_type(*floats) if floats else jnp.dtype(jnp.float32)

    def run(
        self, layer: Layer, params: Params, state: PyTree, way: Way
    ) -> tuple[PyTree, PyTree]:
        """`(outputs, state)`, with the axes that there were."""
        inputs, params = in_dtype(way.dtype, (self.inputs, params))
        if state is not None:
            state = as_state(self.where, "initial_state", state)
            self.axes.check(self.where, "initial_state", state)
        state = in_dtype(way.dtype, self.axes.merge(state))
        outputs, state = layer.run(params, inputs, self.lengths, state, way)
        return self.axes.split_sequences(outputs), self.axes.split(state)


# What Flax calls by other names.
_OURS = {
    "seq_lengths": "sequence_length",
    "initial_carry": "initial_state",
    "mask": "sequence_length",
    "init_key": "rngs",
}


def check_unknown(where: str, unknown: dict[str, Any]) -> None:
    """Raises TypeError for arguments that a call does not have."""
    for name in unknown:
        fix = f" It is `{_OURS[name]}` here." if name in _OURS else ""
        raise TypeError(f"{where}: `{name}` is no argument of a call.{fix}")


def _stacked(where: str, lengths: Any) -> Any:
    """A list of lengths, some of which may be traced, as an array.

    Raises:
        ValueError: If it is not one number for each row.
    """
    is_traced = any(isinstance(n, Tracer) for n in jax.tree.leaves(lengths))
    try:
        array = jnp.asarray(lengths) if is_traced else np.asarray(lengths)
    except ValueError as error:
        raise ValueError(
            f"{where}: `sequence_length` must have a number for each row, got {error}"
        ) from None
    if isinstance(lengths, str):
        raise TypeError(
            f"{where}: `sequence_length` must hold integers, got {lengths!r}."
        )
    return array if array.size else array.astype(np.int32)


def _batch_axes(
    where: str, layer: Layer, inputs: PyTree, lengths: Any, time_major: bool
) -> BatchAxes:
    """The axes of rows: those of the lengths, or all but time and features."""
    (name, first), *_ = named_inputs(where, inputs)
    reads_vectors = _reads_vectors(layer.lowest)
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
    return BatchAxes(first.shape[start : start + count], time_major)


def _reads_vectors(cell: Any) -> bool:
    """Whether the inputs of one row at one step are a vector, as far as is known."""
    while not isinstance(cell, AffineCell):
        cells = getattr(cell, "cells", None) or (getattr(cell, "cell", None),)
        if cells[0] is None:
            return False
        cell = cells[0]
    return True
