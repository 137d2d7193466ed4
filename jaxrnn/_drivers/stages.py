"""What one stage of `pipelined_rnn` holds: some layers of a stack, and their states."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from .._base import cell_keys
from .._base.errors import describe
from .._base.inputs import as_state
from .._base.trees import check_structure, named_leaves
from .._base.typing import Array, Key, Params, PyTree, Size
from .._time.run import Run, apply_cell_sequence
from .stage_checks import check_sharded, count_of_layers


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer over one chunk; it draws what it would draw in a `MultiRNNCell`.

    Attributes:
        params: The parameters of this layer.
        key: The random key of the run, or None.
        number: The index of the layer in the stack, an int32 scalar.
        offset: The number of steps before the chunk, an int32 scalar.
        cell: The hyper-parameters, of all layers.
    """

    params: Params
    key: Key | None
    number: Array
    offset: Array
    cell: Any = dataclasses.field(metadata={"static": True})

    @property
    def state_size(self) -> Size:
        """That of the cell."""
        return self.cell.state_size

    @property
    def output_size(self) -> Size:
        """That of the cell."""
        return self.cell.output_size

    def __call__(self, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        """One step, `(output, new_state)`."""
        return cell_keys.apply_cell(self.cell, self.params, inputs, state, self.key)

    def at_step(self, t: Array) -> "Layer":
        """The layer with its keys for step `t` of the chunk."""
        keys = cell_keys.at_step(self.key, self.offset + t)
        return dataclasses.replace(self, key=cell_keys.fold(keys, self.number))

    def apply_sequence(self, run: Run) -> tuple[PyTree, PyTree]:
        """All steps of the chunk at once; see `RNNCell.apply_sequence`."""
        if self.key is not None:
            run = run.replace(keys=lambda t: self.at_step(run.steps.offset + t).key)
        return apply_cell_sequence(self.cell, self.params, run)


def layers_of_stage(where: str, cell: Any, axis_name: str) -> list[Layer]:
    """The layers of this stage of a bound cell, whose parameters are stacked.

    Raises:
        TypeError: If a parameter is not an array.
        ValueError: If they have different numbers of layers, or none; if they are the
            same on all stages.
    """
    params = as_state(where, "params", cell.params)
    count = count_of_layers(where, params)
    if jax.lax.axis_size(axis_name) > 1:
        check_sharded(where, params, axis_name)
    first, start = jax.lax.axis_index(axis_name) * count, jnp.int32(0)
    return [
        Layer(_entry(params, i), cell.key, first + i, start, cell.cell)
        for i in range(count)
    ]


def states_of_stage(
    where: str, state: PyTree, size: Size, count: int, axis_name: str
) -> list[PyTree]:
    """The initial state of each of `count` layers, which `state` holds stacked.

    Raises:
        TypeError: If a kind of sequence is not that of `size`.
        ValueError: If the structure is not that of `size`, or the first axis of a leaf
            is not `count`.
    """
    check_structure(f"{where}: `initial_state`", size, state, strict=True)
    for name, leaf in named_leaves("initial_state", state):
        if leaf.shape[:1] != (count,):
            raise ValueError(
                f"{where}: `{name}` must have an entry for each layer of this stage, "
                f"[{count}, batch, ...], got {describe(leaf)}. Stack the states of all "
                f"layers; in `in_specs` their spec begins with {axis_name!r}."
            )
    return [_entry(state, i) for i in range(count)]


def _entry(tree: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[i], tree)
