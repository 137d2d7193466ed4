"""The layers of one stage of `pipelined_rnn`, from stacked parameters."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from .._base import cell_keys
from .._base.inputs import as_state
from .._base.sharding import cell_of_device
from .._base.typing import Array, Key, Params, PyTree, Size
from .._time.run import Run
from .pipeline_checks import check_states, count_layers


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PipelineLayer:
    """A layer for one chunk, which draws the same random numbers as a `MultiRNNCell`.

    Attributes:
        params: The parameters of this layer.
        key: The random key of the run, or None.
        number: The index of the layer in the stack, an int32 scalar.
        offset: The number of steps before the chunk, an int32 scalar.
        cell: The unbound cell, with the hyperparameters of all layers.
    """

    params: Params
    key: Key | None
    number: Array
    offset: Array
    cell: Any = dataclasses.field(metadata={"static": True})

    @property
    def state_size(self) -> Size:
        """The state size of the cell."""
        return self.cell.state_size

    @property
    def output_size(self) -> Size:
        """The output size of the cell."""
        return self.cell.output_size

    def __call__(self, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        """Runs one step; returns `(output, new_state)`."""
        return self.cell.apply(self.params, inputs, state, self.key)

    def at_step(self, t: Array) -> "PipelineLayer":
        """Returns the layer with the random key of step `t` of the chunk."""
        keys = cell_keys.at_step(self.key, self.offset + t)
        return dataclasses.replace(self, key=cell_keys.fold(keys, self.number))

    def apply_sequence(self, run: Run) -> tuple[PyTree, PyTree]:
        """Runs all steps of the chunk at once; see `RNNCell.apply_sequence`."""
        if self.key is not None:
            run = run.replace(keys=lambda t: self.at_step(run.steps.offset + t).key)
        return self.cell.apply_sequence(self.params, run)


def layers_of_stage(cell: Any, inputs: PyTree, axis_name: str) -> list[PipelineLayer]:
    """Returns the layers of this stage, from a cell bound to stacked parameters.

    Raises:
        TypeError: If a parameter is not an array.
        ValueError: If the parameters are not stacked, or not divided among the stages.
    """
    # If rows are sharded over another axis, each shard draws different noise.
    cell = cell_of_device(cell, inputs)
    params = as_state("params", cell.params)
    count = count_layers(params, axis_name)
    first, offset = jax.lax.axis_index(axis_name) * count, jnp.int32(0)
    return [
        PipelineLayer(entry, cell.key, first + i, offset, cell.cell)
        for i, entry in enumerate(_entries(params, count))
    ]


def states_of_stage(
    cell: Any, state: PyTree, count: int, axis_name: str
) -> list[PyTree]:
    """Splits the stacked `state` into the initial states of `count` layers.

    Raises:
        TypeError, ValueError: See `check_states`.
    """
    check_states(state, cell.state_size, count, axis_name)
    return _entries(state, count)


def _entries(tree: PyTree, count: int) -> list[PyTree]:
    """Splits leaves `[count, ...]` into one nest for each of `count` layers."""
    entry = lambda i: jax.tree.map(lambda leaf: leaf[i], tree)
    return list(map(entry, range(count)))
