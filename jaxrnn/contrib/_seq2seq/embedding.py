"""Embeddings, ids and random keys as the helpers and the beam search take them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._base.arguments import as_count
from ..._base.cell_keys import check_key
from ..._base.errors import describe, is_array
from ..._base.inputs import as_array
from ..._base.typing import Array, ArrayLike, DType, Key, PyTree

Embedding = ArrayLike | Callable[[Array], PyTree]
"""A table `[vocab, ...]`, or a function of ids."""


class Table(NamedTuple):
    """A table `[vocab, ...]` as a function of ids."""

    rows: Array

    def __call__(self, ids: Array) -> Array:
        return self.rows[ids]


def as_embedding(where: str, embedding: Any) -> Callable[[Array], PyTree]:
    """The function of ids that looks up inputs.

    Raises:
        TypeError: If it is neither a function nor a table with rows.
    """
    if callable(embedding):
        return embedding
    if not is_array(embedding) or not embedding.ndim:
        raise TypeError(
            f"{where}: `embedding` must be a table [vocab, ...] or a function of ids, "
            f"got {describe(embedding)}."
        )
    return Table(jnp.asarray(embedding))


def check_has_ids(where: str, embedding: Callable, logits: Array) -> None:
    """Raises ValueError if the logits have more ids than a table has rows."""
    vocab = logits.shape[-1]
    if isinstance(embedding, Table) and vocab > len(embedding.rows):
        raise ValueError(
            f"{where}: logits must be of ids with a row in `embedding`, "
            f"{len(embedding.rows)}, got {describe(logits)}. Was the decoder's "
            "`output_layer` forgotten?"
        )


def as_end_token(where: str, end_token: Any) -> Array:
    """The id that ends a row, an int32 scalar, which may be traced.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it has axes.
    """
    token = as_array(where, "end_token", end_token)
    if not jnp.issubdtype(token.dtype, jnp.integer):
        raise TypeError(
            f"{where}: `end_token` must be an integer, got {describe(end_token)}."
        )
    if token.ndim:
        raise ValueError(
            f"{where}: `end_token` must be a scalar, got {describe(token)}. It is one "
            "for all rows."
        )
    return token.astype(jnp.int32)


def seeded(where: str, key: Key, name: str, seed: int | None) -> Key:
    """The key for one kind of draws, another for each seed; `key` itself for None.

    Raises:
        TypeError: If `key` is not a random key, or `seed` not an integer.
        ValueError: If there are several keys, or `seed` exceeds 32 bits.
    """
    check_key(where, key)
    if seed is None:
        return key
    fix = "None is for the key itself."
    return jax.random.fold_in(key, as_count(where, name, seed, 0, fix, most=2**32 - 1))


def score_dtype(dtype: DType) -> DType:
    """The dtype of log-probabilities: float64 if that is given, else float32."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
