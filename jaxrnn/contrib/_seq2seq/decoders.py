"""`Decoder`, the base class of decoders, and `BasicDecoder`, which runs a helper."""

import abc
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import RNNCellLike, TensorShape, extend
from jaxrnn.typing import Array, PyTree, Shaped

from ..._base import arguments, cell_keys, trees
from ..._base.inputs import check_rows_of_state as check_rows_of_state
from .helpers import Helper, as_function


class Decoder(abc.ABC):
    """The base class of the decoders that `dynamic_decode` runs.

    A subclass defines `initialize`, `step`, `batch_size`, `output_size` and
    `output_dtype`. The other attributes and methods have defaults.

    Attributes:
        batch_size: The number of rows to decode.
        output_size: The sizes of a step's outputs, a nest without the batch axis.
        output_dtype: The dtypes of a step's outputs, in the structure of `output_size`.
        tracks_own_finished: Whether `finished` from a step replaces the earlier flags.
            By default, a finished row stays finished. A decoder that reorders its rows,
            e.g. a beam search, keeps its own flags.
        longest: The maximum number of steps if it is known, e.g. from given inputs;
            otherwise None. Under jit, a decoder with a known `longest` needs no
            `maximum_iterations`.

    Source: `tf.contrib.seq2seq.Decoder`.
    """

    if TYPE_CHECKING:
        # These properties are not abstract at run time, because a decoder may set plain
        # attributes instead.
        batch_size = output_size = output_dtype = property(lambda self: None)
    tracks_own_finished = property(lambda self: False)
    longest = property(lambda self: None)

    @abc.abstractmethod
    def initialize(self, name: str | None = None) -> tuple[Array, PyTree, PyTree]:
        """Returns the values before the first step: `(finished, inputs, state)`."""

    @abc.abstractmethod
    def step(
        self, time: Array, inputs: PyTree, state: PyTree, name: str | None = None
    ) -> tuple[PyTree, PyTree, PyTree, Array]:
        """Runs one step; returns `(outputs, next_state, next_inputs, finished)`.

        Args:
            time: The index of the step, an int32 scalar.
            inputs: The inputs from `initialize` or from the previous step.
            state: The state from `initialize` or from the previous step.
            name: Accepted for compatibility with TensorFlow.
        """

    def finalize(
        self, outputs: PyTree, final_state: PyTree, sequence_lengths: Array
    ) -> tuple[PyTree, PyTree]:
        """Returns the final `(outputs, final_state)`, by default unchanged.

        Args:
            outputs: The outputs of all steps, each leaf `[time, batch, ...]`.
            final_state: The state after the last step.
            sequence_lengths: The number of steps until each row finished.
        """
        return outputs, final_state


class BasicDecoderOutput(NamedTuple):
    """The outputs of a step of `BasicDecoder`.

    Attributes:
        rnn_output: The output of the `output_layer` or, without a layer, of the cell.
        sample_id: The samples of the helper, by default int32 ids `[batch]`.

    Source: `tf.contrib.seq2seq.BasicDecoderOutput`.
    """

    rnn_output: PyTree
    sample_id: PyTree


class CellDecoder(Decoder):
    """The base class of decoders that run a cell and an `output_layer`."""

    def __init__(
        self,
        cell: RNNCellLike,
        initial_state: PyTree,
        output_layer: Callable[[PyTree], PyTree] | None,
    ) -> None:
        arguments.check_is_cell("cell", cell)
        self._cell = cell
        self._initial_state = extend.as_arrays("initial_state", initial_state)
        self._output_layer = as_function("output_layer", output_layer)

    def _start(self) -> PyTree:
        """The state that the cell starts from."""
        state = self._initial_state
        cell: Any = self._cell
        return cell.start(state) if trees.has_read_only(state) else state

    def _run(self, time: Array, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        """Runs the cell for one step, with the step's key if the cell has a key."""
        return cell_keys.cell_at_step(self._cell, time)(inputs, state)


class BasicDecoder(CellDecoder):
    """Decodes with a cell whose inputs come from a helper.

    Args:
        cell: A bound cell (`cell.bind(params)`), or any object that implements the
            RNNCell protocol.
        helper: A `Helper`, which samples ids and provides the next inputs.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or a scalar.
        output_layer: A function of the cell's output, each leaf `[batch, ...]`, which
            is applied before the helper samples; None for no layer.

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
        super().__init__(cell, initial_state, output_layer)
        fix = "For example, pass a `TrainingHelper` or a `GreedyEmbeddingHelper`."
        arguments.check_instance("helper", helper, Helper, "a Helper", fix)
        self._helper = helper

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
        else:  # A subclass may change the structure of `rnn_output`.
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

        outputs = extend.map_sizes(of_rows, self._cell.output_size, "cell.output_size")
        return jax.eval_shape(self._output_layer, outputs)

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree, PyTree]:
        """Returns the helper's first inputs and the state that the cell starts from."""
        finished, inputs = self._helper.initialize()
        rows = self.batch_size  # Some helpers know this size only after `initialize`.
        must = f"have as many rows as the inputs or tokens of the helper ({rows})"
        check_rows_of_state(self._initial_state, rows, must)
        return finished, inputs, self._start()

    def step(
        self, time: Array, inputs: PyTree, state: PyTree, name: str | None = None
    ) -> tuple[BasicDecoderOutput, PyTree, PyTree, Array]:
        """Runs the cell, then the `output_layer`, then the helper."""
        outputs, state = self._run(time, inputs, state)
        outputs = self._output_layer(outputs)
        sample_ids = self._helper.sample(time=time, outputs=outputs, state=state)
        finished, next_inputs, next_state = self._helper.next_inputs(
            time=time, outputs=outputs, state=state, sample_ids=sample_ids
        )
        emit = BasicDecoderOutput(outputs, sample_ids)
        return emit, next_state, next_inputs, finished


def first_float(state: PyTree) -> Shaped:
    """The first floating-point leaf of a state; a float32 scalar by default."""
    for leaf in jax.tree.leaves(state):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
    return jax.ShapeDtypeStruct((), jnp.float32)
