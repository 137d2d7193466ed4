"""`BasicDecoder`: a cell, and a helper that feeds it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._base.arguments import check_functions, check_is_cell
from ..._base.cell_keys import cell_at_step
from ..._base.errors import describe
from ..._base.inputs import as_state, started
from ..._base.serialization import serializable
from ..._base.tensor_shape import TensorShape
from ..._base.trees import map_sizes
from ..._base.typing import Array, DType, PyTree, RNNCellLike
from .decoder import Decoder
from .helper import Helper


@serializable
class BasicDecoderOutput(NamedTuple):
    """What a step of `BasicDecoder` emits.

    Attributes:
        rnn_output: The cell's output, or that of the `output_layer`.
        sample_id: What the helper sampled, by default ids, int32 `[batch]`.

    Source: `tf.contrib.seq2seq.BasicDecoderOutput`.
    """

    rnn_output: Any
    sample_id: Any


class BasicDecoder(Decoder):
    """Decodes with a cell whose inputs a helper gives.

    Args:
        cell: A bound cell (`cell.bind(params)`), or any object that keeps the RNNCell
            protocol.
        helper: A `Helper`, which samples ids and gives the next inputs.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or without
            axes.
        output_layer: A function of the cell's output, `[batch, ...]`, applied before
            the helper samples; None for none.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If `initial_state` holds None.

    Source: `tf.contrib.seq2seq.BasicDecoder`.
    """

    def __init__(
        self,
        cell: RNNCellLike,
        helper: Helper,
        initial_state: PyTree,
        output_layer: Callable[[PyTree], PyTree] | None = None,
    ) -> None:
        where = "BasicDecoder"
        check_is_cell(where, "cell", cell)
        if not isinstance(helper, Helper):
            raise TypeError(
                f"{where}: `helper` must be a Helper, got {describe(helper)}. "
                "TrainingHelper reads given inputs, GreedyEmbeddingHelper feeds back."
            )
        if output_layer is not None:
            check_functions(where, output_layer=output_layer)
        self._cell = cell
        self._helper = helper
        self._initial_state = as_state(where, "initial_state", initial_state)
        self._output_layer = output_layer

    @property
    def batch_size(self) -> int:
        """The helper's number of rows."""
        return self._helper.batch_size

    @property
    def longest(self) -> int | None:
        """The largest number of steps, if the helper knows it."""
        return self._helper.longest

    @property
    def output_size(self) -> BasicDecoderOutput:
        """The sizes of outputs and ids."""
        size = lambda x: TensorShape(x.shape[1:])
        rnn_output = jax.tree.map(size, self._output_types())
        return BasicDecoderOutput(rnn_output, self._helper.sample_ids_shape)

    @property
    def output_dtype(self) -> BasicDecoderOutput:
        """The dtypes of outputs and ids; the cell's outputs have that of its state."""
        rnn_output = jax.tree.map(lambda x: x.dtype, self._output_types())
        return BasicDecoderOutput(rnn_output, self._helper.sample_ids_dtype)

    def _output_types(self) -> PyTree:
        return output_types(
            self._cell, self._output_layer, (self.batch_size,), self._initial_state
        )

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree, PyTree]:
        """The helper's first inputs, and the initial state, started by the cell."""
        state = started(self._cell, self._initial_state)
        return *self._helper.initialize(), state

    def step(
        self, time: Array, inputs: PyTree, state: PyTree, name: str | None = None
    ) -> tuple[BasicDecoderOutput, PyTree, PyTree, Array]:
        """The cell, the `output_layer`, and what the helper samples and feeds."""
        outputs, state = cell_at_step(self._cell, time)(inputs, state)
        if self._output_layer is not None:
            outputs = self._output_layer(outputs)
        sample_ids = self._helper.sample(time=time, outputs=outputs, state=state)
        finished, next_inputs, next_state = self._helper.next_inputs(
            time=time, outputs=outputs, state=state, sample_ids=sample_ids
        )
        emit = BasicDecoderOutput(outputs, sample_ids)
        return emit, next_state, next_inputs, finished


def output_types(
    cell: Any, output_layer: Callable | None, rows: tuple[int, ...], state: PyTree
) -> PyTree:
    """Shapes and dtypes of the outputs of a cell, or of the layer on top of it."""
    dtype = state_dtype(state)
    outputs = map_sizes(
        lambda shape: jax.ShapeDtypeStruct((*rows, *shape), dtype),
        cell.output_size,
        "cell.output_size",
    )
    return outputs if output_layer is None else jax.eval_shape(output_layer, outputs)


def state_dtype(state: PyTree) -> DType:
    """The dtype of the first floating leaf of a state."""
    leaves = (x.dtype for x in jax.tree.leaves(state))
    floating = (dtype for dtype in leaves if jnp.issubdtype(dtype, jnp.floating))
    return next(floating, jnp.dtype(jnp.float32))
