"""Helpers, which sample ids and choose the next inputs of a `BasicDecoder`."""

import abc
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxrnn import TensorShape, extend
from jaxrnn.typing import Array, ArrayLike, DType, Key, PyTree

from ...decode import _model
from . import vocabulary


class Helper(abc.ABC):
    """Samples ids for a `BasicDecoder` and provides the inputs of its cell.

    A subclass defines `initialize`, `sample`, `next_inputs` and the attributes below;
    only `longest` has a default.

    Attributes:
        batch_size: The number of rows.
        sample_ids_shape: The shape of the sampled ids of one row.
        sample_ids_dtype: The dtype of the sampled ids.
        longest: The maximum number of steps if it is known, otherwise None; see
            `Decoder`.

    Source: `tf.contrib.seq2seq.Helper`.
    """

    if TYPE_CHECKING:
        # These properties are not abstract at run time, because a helper may set plain
        # attributes instead.
        batch_size = sample_ids_shape = sample_ids_dtype = property(lambda self: None)
    longest = property(lambda self: None)

    @abc.abstractmethod
    def initialize(self, name: str | None = None) -> tuple[Array, PyTree]:
        """Returns the values before the first step: `(finished, inputs)`."""

    @abc.abstractmethod
    def sample(
        self, time: Array, outputs: PyTree, state: PyTree, name: str | None = None
    ) -> Array:
        """Samples ids from the outputs of a step, `[batch, ...]`."""

    @abc.abstractmethod
    def next_inputs(
        self,
        time: Array,
        outputs: PyTree,
        state: PyTree,
        sample_ids: Array,
        name: str | None = None,
    ) -> tuple[Array, PyTree, PyTree]:
        """Returns the values after a step: `(finished, next_inputs, next_state)`."""


class CustomHelper(Helper):
    """A helper that is defined by functions.

    Args:
        initialize_fn: `initialize_fn() -> (finished, inputs)`, called before the first
            step.
        sample_fn: `sample_fn(time, outputs, state) -> sample_ids`, called with keyword
            arguments.
        next_inputs_fn: `next_inputs_fn(time, outputs, state, sample_ids) -> (finished,
            next_inputs, next_state)`, called with keyword arguments.
        sample_ids_shape: The shape of a row of `sample_ids`; None for a scalar.
        sample_ids_dtype: The dtype of `sample_ids`; None for int32.

    Raises:
        TypeError: If one of the first three arguments is not a function, or
            `sample_ids_shape` is not a sequence of integers.

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
        extend.check_function("initialize_fn", initialize_fn)
        extend.check_function("sample_fn", sample_fn)
        extend.check_function("next_inputs_fn", next_inputs_fn)
        self._initialize_fn = initialize_fn
        self._sample_fn = sample_fn
        self._next_inputs_fn = next_inputs_fn
        self._batch_size: int | None = None
        self._sample_ids_shape = TensorShape(sample_ids_shape or [])
        self._sample_ids_dtype = sample_ids_dtype or jnp.int32

    @property
    def batch_size(self) -> int:
        """The number of rows, which is known after `initialize`.

        Raises:
            ValueError: If `initialize` has not been called.
        """
        rows: Any = self._batch_size
        fix = "Call `initialize` before reading `batch_size`."
        extend.expect(rows is not None, "batch_size", "be set", rows, fix)
        return rows

    sample_ids_shape = property(lambda self: self._sample_ids_shape)
    sample_ids_dtype = property(lambda self: self._sample_ids_dtype)

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree]:
        """Calls `initialize_fn`."""
        finished, inputs = self._initialize_fn()
        finished = extend.as_arrays("finished", finished)
        self._batch_size = finished.size
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
    """Feeds back samples that a function draws from the outputs.

    Args:
        sample_fn: `sample_fn(outputs) -> sample_ids`.
        sample_shape: The shape of a row of `sample_ids`.
        sample_dtype: The dtype of `sample_ids`.
        start_inputs: The first inputs, a nest of arrays `[batch, ...]`.
        end_fn: `end_fn(sample_ids)`, which returns a bool `[batch]`, True for each row
            that ends with its sample.
        next_inputs_fn: `next_inputs_fn(sample_ids) -> next_inputs`; None to feed the
            samples themselves.

    Raises:
        TypeError: If `sample_fn` or `end_fn` is not a function; if `next_inputs_fn` is
            neither a function nor None; if `sample_shape` is not a sequence of
            integers.

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
        extend.check_function("sample_fn", sample_fn)
        extend.check_function("end_fn", end_fn)
        make_inputs = as_function("next_inputs_fn", next_inputs_fn)
        inputs = jax.tree.map(jnp.asarray, start_inputs)
        rows = jax.tree.leaves(inputs)[0].shape[0]

        def initialize() -> tuple[Array, PyTree]:
            return jnp.zeros(rows, bool), inputs

        def sample(time: Array, outputs: PyTree, state: PyTree) -> Array:
            return sample_fn(outputs)

        def follow(
            time: Array, outputs: PyTree, state: PyTree, sample_ids: Array
        ) -> tuple[Array, PyTree, PyTree]:
            return end_fn(sample_ids), make_inputs(sample_ids), state

        super().__init__(initialize, sample, follow, sample_shape, sample_dtype)
        self._batch_size = rows


class GreedyEmbeddingHelper(InferenceHelper):
    """Feeds back the embedding of the most likely id; for inference.

    A row is finished once its id is `end_token`. The logits, `[batch, vocab]`, are the
    output of the decoder's `output_layer` or, without a layer, the output of the cell.

    Args:
        embedding: Maps ids to inputs: a table `[vocab, ...]`, or a function of int32
            ids `[batch]`.
        start_tokens: Integers `[batch]`, the ids for the first step.
        end_token: The id that ends a row, an integer; may be traced.

    Raises:
        TypeError: If an argument has the wrong type; in a step, if the outputs are not
            one array.
        ValueError: If `start_tokens` is not a vector, or `end_token` is not a scalar;
            in a step, if the number of logits exceeds the number of rows in the table.

    Source: `tf.contrib.seq2seq.GreedyEmbeddingHelper`.
    """

    def __init__(
        self,
        embedding: vocabulary.Embedding,
        start_tokens: ArrayLike,
        end_token: ArrayLike,
    ) -> None:
        self._embedding_fn = vocabulary.as_embedding(embedding)
        ids = _model.as_start_ids("start_tokens", start_tokens)
        end = _model.as_ids("end_token", end_token, "an integer scalar", ())
        super().__init__(
            sample_fn=self._choose_ids,
            sample_shape=[],
            sample_dtype=jnp.int32,
            start_inputs=self._embedding_fn(ids),
            end_fn=lambda sample_ids: sample_ids == end,
            next_inputs_fn=self._embedding_fn,
        )

    def _choose_ids(self, outputs: PyTree) -> Array:
        return vocabulary.most_likely(vocabulary.as_logits(outputs, self._embedding_fn))


class SampleEmbeddingHelper(GreedyEmbeddingHelper):
    """Feeds back the embeddings of randomly drawn ids; for inference.

    Args:
        embedding: See `GreedyEmbeddingHelper`.
        start_tokens: See `GreedyEmbeddingHelper`.
        end_token: See `GreedyEmbeddingHelper`.
        softmax_temperature: The divisor of the logits, a positive number or scalar
            array; may be traced. None for 1.
        seed: Helpers with different seeds draw different ids from the same key.
        key: A random key. Without a seed, the ids of step t are drawn with
            `fold_in(key, t)`, as in `jaxrnn.decode.sample`.

    Raises:
        TypeError: See `GreedyEmbeddingHelper`.
        ValueError: See `GreedyEmbeddingHelper`; also if the temperature is not
            positive.

    Source: `tf.contrib.seq2seq.SampleEmbeddingHelper`.
    """

    def __init__(
        self,
        embedding: vocabulary.Embedding,
        start_tokens: ArrayLike,
        end_token: ArrayLike,
        softmax_temperature: ArrayLike | None = None,
        seed: int | None = None,
        *,
        key: Key,
    ) -> None:
        super().__init__(embedding, start_tokens, end_token)
        self._temperature = _model.as_number(
            "softmax_temperature",
            1.0 if softmax_temperature is None else softmax_temperature,
            _model.POSITIVE,
            "To feed the most likely id, use `GreedyEmbeddingHelper`.",
        )
        self._key = vocabulary.seeded(key, "seed", seed)

    def sample(
        self, time: Array, outputs: PyTree, state: PyTree, name: str | None = None
    ) -> Array:
        """Draws ids from the logits, int32 `[batch]`."""
        logits = vocabulary.as_logits(outputs, self._embedding_fn)
        return vocabulary.draw_ids(self._key, logits, time, self._temperature)


def as_function(name: str, function: Callable | None) -> Callable:
    """Checks a function and returns it; None stands for the identity."""
    return unchanged if function is None else extend.check_function(name, function)


def unchanged(outputs: PyTree) -> PyTree:
    """Returns the outputs."""
    return outputs
