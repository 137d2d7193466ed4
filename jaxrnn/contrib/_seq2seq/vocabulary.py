"""Ids, their embeddings, logits and draws, which TensorFlow's decoders share.

They share some of them with the decoders of `jaxrnn.decode`, too.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import extend
from jaxrnn.typing import Array, ArrayLike, Key, PyTree

from ..._base.sharding import key_of_device, read_at
from ...decode._model import (
    FINITE as FINITE,
    POSITIVE as POSITIVE,
    as_ids as as_ids,
    as_number as as_number,
    as_start_ids as as_start_ids,
    score_dtype as score_dtype,
)
from ...decode._sampling import draw

Embedding = ArrayLike | Callable[[Array], PyTree]
"""A table `[vocab, ...]`, or a function of ids."""


class Table(NamedTuple):
    """A table `[vocab, ...]` as a function of ids."""

    rows: Array

    def __call__(self, ids: Array) -> Array:
        return read_at(self.rows, ids, mode=None)


def as_embedding(embedding: Embedding) -> Callable[[Array], PyTree]:
    """Returns a function that maps ids to inputs.

    Raises:
        TypeError: If `embedding` is neither a function nor a table `[vocab, ...]`.
    """
    if callable(embedding):
        return embedding
    is_table = isinstance(embedding, jax.Array | np.ndarray) and embedding.ndim > 0
    must = "be a table [vocab, ...] or a function of ids"
    extend.check_type(is_table, "embedding", must, embedding)
    return Table(jnp.asarray(embedding))


def check_has_ids(embedding: Callable[[Array], PyTree], logits: Array) -> None:
    """Raises ValueError if the number of logits exceeds the table's rows."""
    if not isinstance(embedding, Table):
        return
    count = logits.shape[-1]
    must = f"have a row for each of {count} logits"
    fix = "Does the decoder need an `output_layer`?"
    extend.check_value(
        count <= len(embedding.rows), "embedding", must, embedding.rows, fix
    )


def seeded(key: Key, name: str, seed: int | None) -> Key:
    """Derives a key from `key` and a seed; without a seed, returns `key` itself.

    Raises:
        TypeError: If `key` is not a random key, or `seed` is not an integer.
        ValueError: If `key` is an array of keys, or `seed` is not in `[0, 2**32)`.
    """
    extend.check_key(key)
    if seed is None:
        return key
    fix = "Pass None to use the key itself."
    return jax.random.fold_in(key, extend.as_count(name, seed, 0, fix, most=2**32 - 1))


def most_likely(logits: Array) -> Array:
    """The most likely ids, int32."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def uniform(key: Key, like: PyTree, rows: int, time: Array) -> Array:
    """Uniform numbers `[rows]`, drawn with `fold_in(key, time)`; sharded as `like`."""
    key = jax.random.fold_in(key_of_device(key, like), time)
    return jax.random.uniform(key, (rows,), jnp.float32)


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
    is_array = isinstance(outputs, jax.Array | np.ndarray)
    fix = "Compute the logits in `output_layer`."
    extend.check_type(is_array, "outputs", "be one array of logits", outputs, fix)
    logits = jnp.asarray(outputs)
    if embedding is not None:
        check_has_ids(embedding, logits)
    return logits
