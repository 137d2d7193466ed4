"""Helpers that feed back the embedding of the chosen id."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._base.arguments import as_count
from ..._base.cell_keys import check_key
from ..._base.errors import InvalidType, InvalidValue, describe, is_array
from ..._base.sharding import read_at
from ..._base.typing import Array, ArrayLike, Key, PyTree
from ...decode._model import POSITIVE, as_ids, as_number, as_start_ids, score_dtype
from ...decode._sampling import draw
from .basic_decoder import InferenceHelper

Embedding = ArrayLike | Callable[[Array], PyTree]
"""A table `[vocab, ...]`, or a function of ids."""


class Table(NamedTuple):
    """A table `[vocab, ...]` as a function of ids."""

    rows: Array

    def __call__(self, ids: Array) -> Array:
        return read_at(self.rows, ids, mode=None)


def as_embedding(embedding: Any) -> Callable[[Array], PyTree]:
    """Returns a function that maps ids to inputs.

    Raises:
        TypeError: If `embedding` is neither a function nor a table `[vocab, ...]`.
    """
    if callable(embedding):
        return embedding
    if not is_array(embedding) or not embedding.ndim:
        raise InvalidType(
            "`embedding` must be a table [vocab, ...] or a function of ids, "
            f"got {describe(embedding)}."
        )
    return Table(jnp.asarray(embedding))


def check_has_ids(embedding: Callable[[Array], PyTree], logits: Array) -> None:
    """Raises ValueError if the number of logits exceeds the table's rows."""
    if isinstance(embedding, Table) and logits.shape[-1] > len(embedding.rows):
        raise InvalidValue(
            f"`embedding` must have a row for each logit, got {len(embedding.rows)} "
            f"rows for {describe(logits)}. Does the decoder need an `output_layer`?"
        )


def seeded(key: Key, name: str, seed: int | None) -> Key:
    """Derives a key from `key` and a seed; without a seed, returns `key` itself.

    Raises:
        TypeError: If `key` is not a random key, or `seed` is not an integer.
        ValueError: If `key` is an array of keys, or `seed` is not in `[0, 2**32)`.
    """
    check_key(key)
    if seed is None:
        return key
    fix = "Pass None to use the key itself."
    return jax.random.fold_in(key, as_count(name, seed, 0, fix, most=2**32 - 1))


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
        self, embedding: Embedding, start_tokens: ArrayLike, end_token: ArrayLike
    ) -> None:
        self._embedding_fn = as_embedding(embedding)
        ids = as_start_ids("start_tokens", start_tokens)
        end = as_ids("end_token", end_token, "an integer scalar", ())
        super().__init__(
            sample_fn=self._choose_ids,
            sample_shape=[],
            sample_dtype=jnp.int32,
            start_inputs=self._embedding_fn(ids),
            end_fn=lambda sample_ids: sample_ids == end,
            next_inputs_fn=self._embedding_fn,
        )

    def _choose_ids(self, outputs: PyTree) -> Array:
        return most_likely(as_logits(outputs, self._embedding_fn))


class SampleEmbeddingHelper(GreedyEmbeddingHelper):
    """Feeds back the embeddings of randomly drawn ids; for inference.

    Args:
        embedding: See `GreedyEmbeddingHelper`.
        start_tokens: See `GreedyEmbeddingHelper`.
        end_token: See `GreedyEmbeddingHelper`.
        softmax_temperature: The divisor of the logits, a positive number or scalar
            array; may be traced. None for 1.
        seed: Helpers with different seeds draw different ids from the same key.
        key: A random key. Without a seed, `fold_in(key, t)` draws the ids of step t, as
            in `jaxrnn.decode.sample`.

    Raises:
        TypeError: See `GreedyEmbeddingHelper`.
        ValueError: See `GreedyEmbeddingHelper`; also if the temperature is not
            positive.

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
        self._temperature = as_number(
            "softmax_temperature",
            1.0 if softmax_temperature is None else softmax_temperature,
            POSITIVE,
            "To feed the most likely id, use `GreedyEmbeddingHelper`.",
        )
        self._key = seeded(key, "seed", seed)

    def sample(
        self, time: Array, outputs: PyTree, state: PyTree, name: str | None = None
    ) -> Array:
        """Draws ids from the logits, int32 `[batch]`."""
        logits = as_logits(outputs, self._embedding_fn)
        return draw_ids(self._key, logits, time, self._temperature)


def most_likely(logits: Array) -> Array:
    """The most likely ids, int32."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def draw_ids(
    key: Key, logits: Array, time: Array, temperature: ArrayLike = 1.0
) -> Array:
    """Ids drawn with `fold_in(key, time)`, int32 `[batch]`."""
    wide = logits.astype(score_dtype(logits))
    return draw(key, temperature, None, None, wide, time)


def as_logits(
    outputs: PyTree, embedding: Callable[[Array], PyTree] | None = None
) -> Array:
    """Checks that the outputs of a step are one array of logits, and returns it.

    Raises:
        TypeError: If the outputs are not one array.
        ValueError: If `embedding` is a table with fewer rows than there are logits.
    """
    if not is_array(outputs):
        raise InvalidType(
            "the outputs of a step must be one array of logits, got "
            f"{describe(outputs)}. Compute the logits in `output_layer`."
        )
    if embedding is not None:
        check_has_ids(embedding, outputs)
    return outputs
