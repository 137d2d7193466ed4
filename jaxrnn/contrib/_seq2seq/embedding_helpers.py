"""Helpers that feed back the embedding of the id that was chosen."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from ..._base.errors import describe, is_array
from ..._base.tensor_shape import TensorShape
from ..._base.typing import Array, ArrayLike, DType, Key, PyTree
from ...decode._checks import POSITIVE, as_number, as_start_ids
from ...decode._sampling import draw
from .embedding import (
    Embedding,
    as_embedding,
    as_token,
    check_has_ids,
    score_dtype,
    seeded,
)
from .helper import Helper


class GreedyEmbeddingHelper(Helper):
    """Feeds back the embedding of the most likely id; for inference.

    A row is finished with `end_token`. The cell's output (or that of the decoder's
    `output_layer`) are the logits, `[batch, vocab]`.

    Args:
        embedding: The inputs for ids: a table `[vocab, ...]`, or a function of ids
            int32 `[batch]`.
        start_tokens: Integers `[batch]`, the ids for the first step.
        end_token: The id that ends a row, an integer, which may be traced.

    Raises:
        TypeError: If an argument is of the wrong kind; in a step, if the outputs are
            not one array.
        ValueError: If `start_tokens` is no vector, or `end_token` no scalar; in a step,
            if there are more logits than rows of the table.

    Source: `tf.contrib.seq2seq.GreedyEmbeddingHelper`.
    """

    def __init__(
        self, embedding: Embedding, start_tokens: ArrayLike, end_token: ArrayLike
    ) -> None:
        where = type(self).__name__
        self._embedding_fn = as_embedding(where, embedding)
        self._start_tokens = as_start_ids(where, start_tokens, "start_tokens")
        self._end_token = as_token(where, end_token)
        self._start_inputs = self._embedding_fn(self._start_tokens)

    @property
    def batch_size(self) -> int:
        """The number of rows."""
        return self._start_tokens.shape[0]

    @property
    def sample_ids_shape(self) -> TensorShape:
        """One id for each row."""
        return TensorShape([])

    @property
    def sample_ids_dtype(self) -> DType:
        """int32."""
        return jnp.int32

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree]:
        """No row is finished; the inputs are those for `start_tokens`."""
        return jnp.zeros_like(self._start_tokens, bool), self._start_inputs

    def sample(
        self, time: Array, outputs: PyTree, state: PyTree, name: str | None = None
    ) -> Array:
        """The most likely ids, the first of equal ones."""
        return most_likely(type(self).__name__, outputs, self._embedding_fn)

    def next_inputs(
        self,
        time: Array,
        outputs: PyTree,
        state: PyTree,
        sample_ids: Array,
        name: str | None = None,
    ) -> tuple[Array, PyTree, PyTree]:
        """The inputs for the ids."""
        finished = sample_ids == self._end_token
        return finished, self._embedding_fn(sample_ids), state


class SampleEmbeddingHelper(GreedyEmbeddingHelper):
    """Feeds back the embedding of ids drawn at random; for inference.

    Args:
        embedding: As in `GreedyEmbeddingHelper`.
        start_tokens: As in `GreedyEmbeddingHelper`.
        end_token: As in `GreedyEmbeddingHelper`.
        softmax_temperature: The divisor of the logits, positive; a number or an array
            scalar, which may be traced. None for 1.
        seed: Helpers with different seeds draw different ids from the same key.
        key: A random key. With no seed, `fold_in(key, t)` draws the ids of step t, as
            in `jaxrnn.decode.sample`.

    Raises:
        TypeError: As in `GreedyEmbeddingHelper`.
        ValueError: As in `GreedyEmbeddingHelper`; if the temperature is not positive.

    Source: `tf.contrib.seq2seq.SampleEmbeddingHelper`.
    """

    def __init__(
        self,
        embedding: Embedding,
        start_tokens: ArrayLike,
        end_token: ArrayLike,
        softmax_temperature: ArrayLike | None = None,
        seed: int | None = None,
        *,
        key: Key,
    ) -> None:
        super().__init__(embedding, start_tokens, end_token)
        where = "SampleEmbeddingHelper"
        self._softmax_temperature: Any = 1.0
        if softmax_temperature is not None:
            fix = "`GreedyEmbeddingHelper` takes the most likely id."
            self._softmax_temperature = as_number(
                where, "softmax_temperature", softmax_temperature, POSITIVE, fix
            )
        self._key = seeded(where, key, "seed", seed)

    def sample(
        self, time: Array, outputs: PyTree, state: PyTree, name: str | None = None
    ) -> Array:
        """Ids drawn from the distribution."""
        logits = as_logits("SampleEmbeddingHelper", outputs, self._embedding_fn)
        return draw_ids(self._key, logits, time, self._softmax_temperature)


def most_likely(
    where: str, outputs: PyTree, embedding: Callable | None = None
) -> Array:
    """The most likely ids, int32."""
    logits = as_logits(where, outputs, embedding)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def draw_ids(key: Key, logits: Array, time: Array, temperature: Any = 1.0) -> Array:
    """Ids drawn with `fold_in(key, time)`, int32 `[batch]`."""
    wide = logits.astype(score_dtype(logits.dtype))
    return draw(key, temperature, None, None, wide, time)


def as_logits(where: str, outputs: PyTree, embedding: Callable | None = None) -> Array:
    """The outputs of a step, if they are one array.

    Raises:
        TypeError: If they are not.
        ValueError: If `embedding` is a table that lacks some of their ids.
    """
    if not is_array(outputs):
        raise TypeError(
            f"{where}: the outputs of a step must be one array of logits, got "
            f"{describe(outputs)}. Make it by the decoder's `output_layer`."
        )
    if embedding is not None:
        check_has_ids(where, embedding, outputs)
    return outputs
