"""`BasicDecoder`, whose cell gets its inputs from a helper."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import RNNCellLike, TensorArray, TensorShape
from jaxrnn.extend import (
    ReadOnly,
    as_arrays,
    call_start,
    cell_at_step,
    check_function,
    check_is_cell,
    check_type,
    check_value,
    map_sizes,
    named_leaves,
)
from jaxrnn.typing import Array, PyTree, Shaped

from .dynamic_decode import Decoder
from .helpers import Helper, unchanged


class BasicDecoderOutput(NamedTuple):
    """The outputs of a step of `BasicDecoder`.

    Attributes:
        rnn_output: The output of the `output_layer` or, without a layer, of the cell.
        sample_id: The samples of the helper, by default int32 ids `[batch]`.

    Source: `tf.contrib.seq2seq.BasicDecoderOutput`.
    """

    rnn_output: PyTree
    sample_id: PyTree


class BasicDecoder(Decoder):
    """Decodes with a cell whose inputs come from a helper.

    Args:
        cell: A bound cell (`cell.bind(params)`), or any object that implements the
            RNNCell protocol.
        helper: A `Helper`, which samples ids and provides the next inputs.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or a scalar.
        output_layer: A function of the cell's output, `[batch, ...]`, applied before
            the helper samples; None for no layer.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `initial_state` contains None.

    Source: `tf.contrib.seq2seq.BasicDecoder`.
    """

    def __init__(
        self,
        cell: RNNCellLike,
        helper: Helper,
        initial_state: PyTree,
        output_layer: Callable[[PyTree], PyTree] | None = None,
    ) -> None:
        check_is_cell("cell", cell)
        fix = "For example, use TrainingHelper or GreedyEmbeddingHelper."
        check_type(isinstance(helper, Helper), "helper", "be a Helper", helper, fix)
        if output_layer is not None:
            check_function("output_layer", output_layer)
        self._cell = cell
        self._helper = helper
        self._initial_state = as_arrays("initial_state", initial_state)
        self._output_layer = output_layer or unchanged

    batch_size = property(lambda self: self._helper.batch_size)
    longest = property(lambda self: self._helper.longest)

    @property
    def output_size(self) -> BasicDecoderOutput:
        """The sizes of outputs and ids."""
        return BasicDecoderOutput(
            self._rnn_output_size(), self._helper.sample_ids_shape
        )

    @property
    def output_dtype(self) -> BasicDecoderOutput:
        """The dtypes of outputs and ids; the cell's outputs have the state's dtype."""
        types = self._output_types
        sizes = self._rnn_output_size()
        if jax.tree.structure(types) == jax.tree.structure(sizes):
            dtypes = jax.tree.map(lambda x: x.dtype, types)
        else:  # The outputs of a subclass may differ from the layer's.
            dtype = first_float(self._initial_state).dtype
            dtypes = jax.tree.map(lambda _: dtype, sizes)
        return BasicDecoderOutput(dtypes, self._helper.sample_ids_dtype)

    def _rnn_output_size(self) -> PyTree:
        """The sizes of `rnn_output`; subclasses may override this method."""
        return jax.tree.map(lambda x: TensorShape(x.shape[1:]), self._output_types)

    @functools.cached_property
    def _output_types(self) -> PyTree:
        """The shapes and dtypes of the outputs of `output_layer`."""
        dtype = first_float(self._initial_state).dtype

        def of_rows(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((self.batch_size, *shape), dtype)

        outputs = map_sizes(of_rows, self._cell.output_size, "cell.output_size")
        return jax.eval_shape(self._output_layer, outputs)

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree, PyTree]:
        """Returns the helper's first inputs and the state that the cell starts from."""
        finished, inputs = self._helper.initialize()
        rows = self.batch_size  # Some helpers know it only now.
        must = f"have {rows} rows like the helper's inputs or `start_tokens`"
        check_rows(self._initial_state, rows, must)
        return finished, inputs, call_start(self._cell, self._initial_state)

    def step(
        self, time: Array, inputs: PyTree, state: PyTree, name: str | None = None
    ) -> tuple[BasicDecoderOutput, PyTree, PyTree, Array]:
        """Runs the cell, then the `output_layer`, then the helper."""
        outputs, state = cell_at_step(self._cell, time)(inputs, state)
        outputs = self._output_layer(outputs)
        sample_ids = self._helper.sample(time=time, outputs=outputs, state=state)
        finished, next_inputs, next_state = self._helper.next_inputs(
            time=time, outputs=outputs, state=state, sample_ids=sample_ids
        )
        emit = BasicDecoderOutput(outputs, sample_ids)
        return emit, next_state, next_inputs, finished


def is_shared(x: Any) -> bool:
    """Whether all rows of a state share this part: TensorArrays, read-only parts."""
    return isinstance(x, TensorArray | ReadOnly)


def check_rows(initial_state: PyTree, rows: int, must: str, fix: str = "") -> None:
    """Raises ValueError if an array of an initial state does not have `rows` rows."""
    for name, leaf in named_leaves("initial_state", initial_state, is_shared):
        fits = is_shared(leaf) or leaf.shape[:1] in ((), (rows,))
        check_value(fits, name, must, leaf, fix)


def first_float(state: PyTree) -> Shaped:
    """The first floating-point leaf of a state; a float32 scalar by default."""
    for leaf in jax.tree.leaves(state):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
    return jax.ShapeDtypeStruct((), jnp.float32)
