"""Checks whether a native call or a cuDNN call supports a cell and its arrays."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from .._base.sharding import explicit_mesh_of
from .._base.typing import Array, PyTree
from .steps import Steps


def why_not_arrays(xs: Array, state: PyTree, steps: Steps) -> str | None:
    """The reason why a call does not support the input and the state, or None."""
    if explicit_mesh_of((xs, state)) is not None:
        return "XLA cannot divide its call over an explicit mesh; `jax.shard_map` can"
    if not isinstance(xs.shape[1 - steps.axis], int):
        return "the number of rows is symbolic"
    arrays = [xs, *jax.tree.leaves(state)]
    if any(0 in x.shape for x in arrays):
        return "there are no steps, no rows, no inputs, or no units"
    dtypes = {x.dtype for x in arrays}
    if dtypes != {jnp.dtype(jnp.float32)}:
        return f"it supports only float32, got {', '.join(sorted(map(str, dtypes)))}"
    return None


def row_lengths(xs: Array, steps: Steps) -> Array:
    """The number of steps of each row, int32 `[batch]`, clamped to the time axis."""
    if steps.lengths is None:
        return jnp.full(xs.shape[1 - steps.axis], steps.time, jnp.int32)
    return jnp.clip(steps.lengths, 0, steps.time).astype(jnp.int32)


# The fields that the loops of libraries read, or that select a loop.
_READ = (
    "num_units cell_size activation forget_bias use_peephole use_peepholes cell_clip "
    "num_proj proj_clip layer_norm"
)
# The fields that change no step: names, dtypes, initial values, TensorFlow's arguments
# without a meaning, and dropout, with which a cell declines before it selects a loop.
_NO_PART_OF_A_STEP = (
    "name dtype reuse input_size state_is_tuple num_unit_shards num_proj_shards "
    "initializer kernel_initializer bias_initializer norm_gain norm_shift "
    "dropout_keep_prob dropout_prob_seed"
)
_KNOWN = {*_READ.split(), *_NO_PART_OF_A_STEP.split()}


def why_not_fields(cell: Any) -> str | None:
    """The reason why the loops of libraries may not fit the cell's fields, or None.

    A loop cannot know a field that was added to a cell after the loop was written. Such
    a field must have its default value.
    """
    for each in (cell, cell.library_cell):
        for field in dataclasses.fields(each):
            value = getattr(each, field.name)
            if field.name not in _KNOWN and value != field.default:
                name = field.name
                return (
                    f"it supports only the default of the field `{name}`, got {value!r}"
                )
    return None


def what_lstm_has(cell: Any) -> list[str]:
    """Descriptions of the features that an LSTM adds to a plain LSTM."""
    core = cell.library_cell
    found = {
        "layer normalization": getattr(core, "layer_norm", False),
        "peepholes": getattr(core, "use_peepholes", False),
        "a `cell_clip`": getattr(core, "cell_clip", None) is not None,
        "a projection": getattr(core, "num_proj", None) is not None,
    }
    return [name for name, has_it in found.items() if has_it]
