"""`BasicDecoder`, which runs a cell, and helpers that choose its ids and inputs."""

import abc
import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._base.arguments import check_instance
from .._base.inputs import as_arrays
from .._base.trees import TensorShape, serializable, types_of_size
from .._base.typing import Array, ArrayLike, DType, Key, PyTree, RNNCellLike
from .._run.arguments import check_rows_of_state
from .._run.first_step import call_start
from . import _ids
from ._decoder import CellDecoder, as_function


class Helper(abc.ABC):
    """Samples ids for a `BasicDecoder` and provides the inputs of its cell.

    A subclass defines `initialize`, `sample`, `next_inputs` and the attributes below.
    Only `longest` has a default.

    Attributes:
        batch_size: The number of rows.
        sample_ids_shape: The shape of the sampled ids of one row.
        sample_ids_dtype: The dtype of the sampled ids.
        longest: The maximum number of steps, or None if unknown; see `Decoder`.

    Source: `tf.contrib.seq2seq.Helper`.
    """

    if TYPE_CHECKING:
        # Only type checkers see these properties, because a helper may also set plain
        # attributes.
        batch_size = sample_ids_shape = sample_ids_dtype = property(lambda self: None)
    longest = property(lambda self: None)

    @abc.abstractmethod
    def initialize(self, name: str | None = None) -> tuple[Array, PyTree]:
        """Returns the values before the first step: `(finished, inputs)`.

        `finished` is bool `[batch]`, and `inputs` are the cell's first inputs, each
        leaf `[batch, ...]`. `name` is accepted for compatibility with TensorFlow.
        """

    @abc.abstractmethod
    def sample(
        self, time: Array, outputs: PyTree, state: PyTree, name: str | None = None
    ) -> Array:
        """Samples ids from the outputs of a step, `[batch, ...]`.

        Args:
            time: The index of the step, an int32 scalar.
            outputs: The outputs of the cell, or of the decoder's output layer.
            state: The state after the step.
            name: Accepted for compatibility with TensorFlow.
        """

    @abc.abstractmethod
    def next_inputs(
        self,
        time: Array,
        outputs: PyTree,
        state: PyTree,
        sample_ids: Array,
        name: str | None = None,
    ) -> tuple[Array, PyTree, PyTree]:
        """Returns the values after a step: `(finished, next_inputs, next_state)`.

        Args:
            time: The index of the step, an int32 scalar.
            outputs: The outputs of the cell, or of the decoder's output layer.
            state: The state after the step.
            sample_ids: The ids that `sample` has drawn, `[batch, ...]`.
            name: Accepted for compatibility with TensorFlow.
        """


class CustomHelper(Helper):
    """Calls three given functions for the first inputs, the ids and the next inputs.

    Args:
        initialize_fn: `initialize_fn() -> (finished, inputs)`, called before the first
            step.
        sample_fn: `sample_fn(time, outputs, state) -> sample_ids`, called with keyword
            arguments.
        next_inputs_fn: `next_inputs_fn(time, outputs, state, sample_ids) -> (finished,
            next_inputs, next_state)`, called with keyword arguments.
        sample_ids_shape: The shape of a row of `sample_ids`. Default: a scalar.
        sample_ids_dtype: The dtype of `sample_ids`. Default: int32.

    Raises:
        TypeError: If `sample_ids_shape` is not a sequence of integers.

    Source: `tf.contrib.seq2seq.CustomHelper`.
    """

    def __init__(
        self,
        initialize_fn: Callable[[], tuple[Array, PyTree]],
        sample_fn: Callable[..., Array],
        next_inputs_fn: Callable[..., tuple[Array, PyTree, PyTree]],
        sample_ids_shape: Iterable[int] | None = None,
        sample_ids_dtype: DType | None = None,
    ) -> None:
        self._initialize_fn = initialize_fn
        self._sample_fn = sample_fn
        self._next_inputs_fn = next_inputs_fn
        self._batch_size: int | None = None
        self._sample_ids_shape = TensorShape(sample_ids_shape or [])
        self._sample_ids_dtype = sample_ids_dtype or jnp.int32

    # The batch size is known after `initialize`.
    batch_size = property(lambda self: self._batch_size)
    sample_ids_shape = property(lambda self: self._sample_ids_shape)
    sample_ids_dtype = property(lambda self: self._sample_ids_dtype)

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree]:
        """Calls `initialize_fn`."""
        finished, inputs = self._initialize_fn()
        self._batch_size = jnp.size(finished)
        return finished, inputs

    def sample(
        self, time: Array, outputs: PyTree, state: PyTree, name: str | None = None
    ) -> Array:
        """Calls `sample_fn`."""
        return self._sample_fn(time=time, outputs=outputs, state=state)

    def next_inputs(
        self,
        time: Array,
        outputs: PyTree,
        state: PyTree,
        sample_ids: Array,
        name: str | None = None,
    ) -> tuple[Array, PyTree, PyTree]:
        """Calls `next_inputs_fn`."""
        return self._next_inputs_fn(
            time=time, outputs=outputs, state=state, sample_ids=sample_ids
        )


class InferenceHelper(CustomHelper):
    """Feeds samples, drawn from the outputs of a step, to the next step.

    Args:
        sample_fn: `sample_fn(outputs) -> sample_ids`.
        sample_shape: The shape of a row of `sample_ids`.
        sample_dtype: The dtype of `sample_ids`.
        start_inputs: The first inputs, a nest of arrays `[batch, ...]`.
        end_fn: `end_fn(sample_ids) -> finished`, bool `[batch]`, True for each row that
            ends with this sample.
        next_inputs_fn: `next_inputs_fn(sample_ids) -> next_inputs`. By default, the
            samples themselves are the next inputs.

    Raises:
        TypeError: If `next_inputs_fn` is neither a function nor None, or `sample_shape`
            is not a sequence of integers.

    Source: `tf.contrib.seq2seq.InferenceHelper`.
    """

    def __init__(
        self,
        sample_fn: Callable[[PyTree], Array],
        sample_shape: Iterable[int],
        sample_dtype: DType,
        start_inputs: PyTree,
        end_fn: Callable[[Array], Array],
        next_inputs_fn: Callable[[Array], PyTree] | None = None,
    ) -> None:
        make_inputs = as_function("next_inputs_fn", next_inputs_fn)
        inputs = as_arrays("start_inputs", start_inputs)
        rows = jax.tree.leaves(inputs)[0].shape[0]
        super().__init__(
            lambda: (jnp.zeros(rows, bool), inputs),
            lambda time, outputs, state: sample_fn(outputs),
            lambda time, outputs, state, sample_ids: (
                (end_fn(sample_ids), make_inputs(sample_ids), state)
            ),
            sample_shape,
            sample_dtype,
        )
        self._batch_size = rows


class EmbeddingHelper(CustomHelper):
    """Feeds the embeddings of chosen ids to the next step.

    Args:
        embedding: See `GreedyEmbeddingHelper`.
        start_tokens: See `GreedyEmbeddingHelper`.
        end_token: See `GreedyEmbeddingHelper`.
        choose: `choose(logits, time) -> ids`, int32 `[batch]`.
    """

    def __init__(
        self,
        embedding: _ids.Embedding,
        start_tokens: ArrayLike,
        end_token: ArrayLike,
        choose: Callable[[Array, Array], Array],
    ) -> None:
        embed = _ids.as_embed(embedding)
        ids = _ids.as_start_ids("start_tokens", start_tokens)
        eos_id = _ids.as_eos_id("end_token", end_token)
        inputs = embed(ids)
        super().__init__(
            lambda: (jnp.zeros(ids.shape, bool), inputs),
            lambda time, outputs, state: choose(
                _ids.as_logits(outputs, ids.shape, embed), time
            ),
            lambda time, outputs, state, sample_ids: (
                (sample_ids == eos_id, embed(sample_ids), state)
            ),
        )
        self._batch_size = ids.shape[0]


class GreedyEmbeddingHelper(EmbeddingHelper):
    """Feeds the embedding of the most likely id to the next step; for inference.

    A row is finished once its id is `end_token`. The logits, `[batch, vocab]`, are the
    output of the decoder's `output_layer` or, without a layer, the output of the cell.

    Args:
        embedding: Maps ids to inputs: a table `[vocab, ...]`, or a function of int32
            ids `[batch]`.
        start_tokens: Integers `[batch]`, the ids for the first step.
        end_token: The id that ends a row, an integer, which may be traced.

    Raises:
        TypeError: If an argument has the wrong type. In a step, if the outputs are not
            one array.
        ValueError: If `start_tokens` is not a vector, or `end_token` is not a scalar.
            In a step, if the number of logits exceeds the number of rows in the table.

    Source: `tf.contrib.seq2seq.GreedyEmbeddingHelper`.
    """

    def __init__(
        self,
        embedding: _ids.Embedding,
        start_tokens: ArrayLike,
        end_token: ArrayLike,
    ) -> None:
        super().__init__(embedding, start_tokens, end_token, _ids.most_likely)


class SampleEmbeddingHelper(EmbeddingHelper):
    """Feeds the embedding of a randomly drawn id to the next step; for inference.

    Args:
        embedding: See `GreedyEmbeddingHelper`.
        start_tokens: See `GreedyEmbeddingHelper`.
        end_token: See `GreedyEmbeddingHelper`.
        softmax_temperature: The divisor of the logits, a positive number or scalar
            array, which may be traced. Default: 1.
        seed: Helpers with different seeds draw different ids from the same key.
        key: A random key. Without a seed, the ids of step t are drawn with
            `fold_in(key, t)`, as in `jaxrnn.decode.sample`.

    Raises:
        TypeError: See `GreedyEmbeddingHelper`.
        ValueError: If the temperature is not positive; see also
            `GreedyEmbeddingHelper`.

    Source: `tf.contrib.seq2seq.SampleEmbeddingHelper`.
    """

    def __init__(
        self,
        embedding: _ids.Embedding,
        start_tokens: ArrayLike,
        end_token: ArrayLike,
        softmax_temperature: ArrayLike | None = None,
        seed: int | None = None,
        *,
        key: Key,
    ) -> None:
        temperature = 1.0 if softmax_temperature is None else softmax_temperature
        fix = "To feed the most likely id, use `GreedyEmbeddingHelper`."
        _ids.as_number("softmax_temperature", temperature, fix, low=0)
        key = _ids.seeded(key, "seed", seed)
        choose = functools.partial(_ids.draw, key=key, temperature=temperature)
        super().__init__(embedding, start_tokens, end_token, choose)


@serializable
class BasicDecoderOutput(NamedTuple):
    """The outputs of a step of `BasicDecoder`.

    Attributes:
        rnn_output: The output of the `output_layer` or, without a layer, of the cell.
        sample_id: The samples of the helper, by default int32 ids `[batch]`.

    Source: `tf.contrib.seq2seq.BasicDecoderOutput`.
    """

    rnn_output: PyTree
    sample_id: PyTree


class BasicDecoder(CellDecoder):
    """Decodes with a cell whose inputs come from a helper.

    Args:
        cell: A bound cell (`cell.bind(params)`), or any object that implements the
            RNNCell protocol.
        helper: The `Helper` that samples ids and provides the next inputs.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or a scalar.
        output_layer: A function that maps the cell's output, each leaf `[batch, ...]`,
            to the outputs from which the helper samples. Default: no layer.

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
        check_instance("helper", helper, Helper, "a Helper", fix)
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
        """The dtypes of outputs and ids, for outputs in the dtype of the state."""
        types = self._output_types
        sizes = self._rnn_output_size()
        if jax.tree.structure(types) == jax.tree.structure(sizes):
            dtypes = jax.tree.map(lambda x: x.dtype, types)
        else:  # A subclass may change the structure of `rnn_output`.
            dtype = _first_dtype(self._initial_state)
            dtypes = jax.tree.map(lambda _: dtype, sizes)
        return BasicDecoderOutput(dtypes, self._helper.sample_ids_dtype)

    def _rnn_output_size(self) -> PyTree:
        """The sizes of `rnn_output`; subclasses may override this method."""
        return jax.tree.map(lambda x: TensorShape(x.shape[1:]), self._output_types)

    @functools.cached_property
    def _output_types(self) -> PyTree:
        """The shapes and dtypes of the outputs of `output_layer`."""
        dtype = _first_dtype(self._initial_state)
        size = self._cell.output_size
        outputs = types_of_size(size, self.batch_size, dtype, "cell.output_size")
        return jax.eval_shape(self._project, outputs)

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree, PyTree]:
        """Returns the helper's first inputs and the state that the cell starts from."""
        finished, inputs = self._helper.initialize()
        rows = self.batch_size  # Some helpers know this size only after `initialize`.
        why = "like the inputs or tokens of the helper"
        check_rows_of_state(self._initial_state, rows, why)
        return finished, inputs, call_start(self._cell, self._initial_state)

    def step(
        self, time: Array, inputs: PyTree, state: PyTree, name: str | None = None
    ) -> tuple[BasicDecoderOutput, PyTree, PyTree, Array]:
        """Runs the cell, then the `output_layer`, then the helper."""
        outputs, state = self._run(time, inputs, state)
        outputs = self._project(outputs)
        sample_ids = self._helper.sample(time=time, outputs=outputs, state=state)
        finished, next_inputs, next_state = self._helper.next_inputs(
            time=time, outputs=outputs, state=state, sample_ids=sample_ids
        )
        emit = BasicDecoderOutput(outputs, sample_ids)
        return emit, next_state, next_inputs, finished


def _first_dtype(state: PyTree) -> DType:
    """The first floating-point dtype of a state; float32 by default."""
    dtypes = (leaf.dtype for leaf in jax.tree.leaves(state))
    return next((d for d in dtypes if jnp.issubdtype(d, jnp.floating)), jnp.float32)
