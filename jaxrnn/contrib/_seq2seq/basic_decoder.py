"""`BasicDecoder`: a cell, and a helper that feeds it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import RNNCellLike, TensorShape

from ..._base.arguments import check_is_cell
from ..._base.cell_keys import cell_at_step
from ..._base.errors import describe
from ..._base.inputs import as_state, started
from ..._base.serialization import serializable
from ..._base.trees import map_sizes
from ..._base.typing import Array, DType, PyTree
from .._fields import check_given_functions
from .dynamic_decode import Decoder
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
        where = type(self).__name__
        check_is_cell(where, "cell", cell)
        if not isinstance(helper, Helper):
            raise TypeError(
                f"{where}: `helper` must be a Helper, got {describe(helper)}. "
                "TrainingHelper reads given inputs, GreedyEmbeddingHelper feeds back."
            )
        check_given_functions(where, output_layer=output_layer)
        self._cell, self._helper = cell, helper
        self._initial_state = as_state(where, "initial_state", initial_state)
        self._output_layer = output_layer or (lambda outputs: outputs)

    batch_size = property(lambda self: self._helper.batch_size)
    longest = property(lambda self: self._helper.longest)

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
        """Shapes and dtypes of the outputs of the cell, or of the layer on top of it."""
        dtype = state_dtype(self._initial_state)
        shaped = lambda shape: jax.ShapeDtypeStruct((self.batch_size, *shape), dtype)
        outputs = map_sizes(shaped, self._cell.output_size, "cell.output_size")
        return jax.eval_shape(self._output_layer, outputs)

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree, PyTree]:
        """The helper's first inputs, and the initial state, started by the cell."""
        state = started(self._cell, self._initial_state)
        return *self._helper.initialize(), state

    def step(
        self, time: Array, inputs: PyTree, state: PyTree, name: str | None = None
    ) -> tuple[BasicDecoderOutput, PyTree, PyTree, Array]:
        """The cell, the `output_layer`, and what the helper samples and feeds."""
        outputs, state = cell_at_step(self._cell, time)(inputs, state)
        outputs = self._output_layer(outputs)
        sample_ids = self._helper.sample(time=time, outputs=outputs, state=state)
        finished, next_inputs, next_state = self._helper.next_inputs(
            time=time, outputs=outputs, state=state, sample_ids=sample_ids
        )
        emit = BasicDecoderOutput(outputs, sample_ids)
        return emit, next_state, next_inputs, finished


def state_dtype(state: PyTree) -> DType:
    """The dtype of the first floating leaf of a state."""
    leaves = (x.dtype for x in jax.tree.leaves(state))
    floating = (dtype for dtype in leaves if jnp.issubdtype(dtype, jnp.floating))
    return next(floating, jnp.dtype(jnp.float32))
