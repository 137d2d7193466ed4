"""Helpers that feed back the embedding of the id that was chosen."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._base.arguments import as_count
from ..._base.cell_keys import check_key
from ..._base.errors import describe, is_array
from ..._base.inputs import as_array
from ..._base.typing import Array, ArrayLike, DType, Key, PyTree
from ...decode._checks import POSITIVE, as_number, as_start_ids
from ...decode._sampling import draw
from .basic_decoder import InferenceHelper

Embedding = ArrayLike | Callable[[Array], PyTree]
"""A table `[vocab, ...]`, or a function of ids."""


class Table(NamedTuple):
    """A table `[vocab, ...]` as a function of ids."""

    rows: Array

    def __call__(self, ids: Array) -> Array:
        return self.rows[ids]


def as_embedding(caller: str, embedding: Any) -> Callable[[Array], PyTree]:
    """The function of ids that looks up inputs.

    Raises:
        TypeError: If it is neither a function nor a table with rows.
    """
    if callable(embedding):
        return embedding
    if not is_array(embedding) or not embedding.ndim:
        raise TypeError(
            f"{caller}: `embedding` must be a table [vocab, ...] or a function of ids, "
            f"got {describe(embedding)}."
        )
    return Table(jnp.asarray(embedding))


def check_has_ids(caller: str, embedding: Callable, logits: Array) -> None:
    """Raises ValueError if the logits have more ids than a table has rows."""
    vocab = logits.shape[-1]
    if isinstance(embedding, Table) and vocab > len(embedding.rows):
        raise ValueError(
            f"{caller}: logits must be of ids with a row in `embedding`, "
            f"{len(embedding.rows)}, got {describe(logits)}. Was the decoder's "
            "`output_layer` forgotten?"
        )


def as_ids(caller: str, name: str, value: Any, shape: tuple, axes: str = "") -> Array:
    """Ids of that shape as int32; `axes` says in words what it is.

    Raises:
        TypeError: If they are not integers.
        ValueError: If they have another shape. None is for an axis of any size.
    """
    array = as_array(caller, name, value)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{caller}: `{name}` must be integers, got {describe(value)}.")
    sizes = zip(array.shape, shape, strict=False)
    if array.ndim != len(shape) or any(n not in (m, None) for m, n in sizes):
        raise ValueError(
            f"{caller}: `{name}` must be {axes or list(shape)}, got {describe(array)}."
        )
    return array.astype(jnp.int32)


def seeded(caller: str, key: Key, name: str, seed: int | None) -> Key:
    """The key for one kind of draws, another for each seed; `key` itself for None.

    Raises:
        TypeError: If `key` is not a random key, or `seed` not an integer.
        ValueError: If there are several keys, or `seed` exceeds 32 bits.
    """
    check_key(caller, key)
    if seed is None:
        return key
    fix = "None is for the key itself."
    return jax.random.fold_in(key, as_count(caller, name, seed, 0, fix, most=2**32 - 1))


def score_dtype(dtype: DType) -> DType:
    """The dtype of log-probabilities: float64 if that is given, else float32."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


class GreedyEmbeddingHelper(InferenceHelper):
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
        caller = type(self).__name__
        self._embedding_fn = as_embedding(caller, embedding)
        ids = as_start_ids(caller, start_tokens, "start_tokens")
        end = as_ids(caller, "end_token", end_token, (), "a scalar")
        embed, is_end = self._embedding_fn, lambda sample_ids: sample_ids == end
        likely = lambda outputs: most_likely(caller, outputs, embed)
        super().__init__(likely, [], jnp.int32, embed(ids), is_end, embed)


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
        caller, name = type(self).__name__, "softmax_temperature"
        fix = "`GreedyEmbeddingHelper` takes the most likely id."
        given = 1.0 if softmax_temperature is None else softmax_temperature
        self._temperature = as_number(caller, name, given, POSITIVE, fix)
        self._key = seeded(caller, key, "seed", seed)
        self._sample_fn = self._drawn

    def _drawn(self, time: Array, outputs: PyTree, state: PyTree) -> Array:
        logits = as_logits(type(self).__name__, outputs, self._embedding_fn)
        return draw_ids(self._key, logits, time, self._temperature)


def most_likely(caller: str, outputs: PyTree, embedding: Any = None) -> Array:
    """The most likely ids, int32."""
    logits = as_logits(caller, outputs, embedding)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def draw_ids(key: Key, logits: Array, time: Array, temperature: Any = 1.0) -> Array:
    """Ids drawn with `fold_in(key, time)`, int32 `[batch]`."""
    wide = logits.astype(score_dtype(logits.dtype))
    return draw(key, temperature, None, None, wide, time)


def as_logits(caller: str, outputs: PyTree, embedding: Callable | None = None) -> Array:
    """The outputs of a step, if they are one array.

    Raises:
        TypeError: If they are not.
        ValueError: If `embedding` is a table that lacks some of their ids.
    """
    if not is_array(outputs):
        raise TypeError(
            f"{caller}: the outputs of a step must be one array of logits, got "
            f"{describe(outputs)}. Make it by the decoder's `output_layer`."
        )
    if embedding is not None:
        check_has_ids(caller, embedding, outputs)
    return outputs
