"""Ids of a vocabulary: their checks, embeddings, probabilities and draws.

In this folder, `embed` maps ids to inputs, and `project` maps a cell's outputs to
logits. In `contrib`, the same functions are called `embedding` and `output_layer`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_count, as_integers, check_shape
from .._base.cell_keys import check_key
from .._base.errors import Verbatim, check_not_masked, expect, is_array
from .._base.math import clamped_to_int32, concrete_or_none
from .._base.sharding import key_of_device, read_at
from .._base.typing import Array, ArrayLike, DType, Key, PyTree

Embed: TypeAlias = Callable[[Array], PyTree]
"""`embed(ids [batch]) -> inputs`, a nest of arrays `[batch, ...]`."""

Project: TypeAlias = Callable[[PyTree], Array]
"""`project(output) -> logits [batch, vocab]`."""

Embedding: TypeAlias = ArrayLike | Embed
"""A table `[vocab, ...]`, or a function of ids."""


class Table(NamedTuple):
    """A table `[vocab, ...]` as a function of ids."""

    rows: Array

    def __call__(self, ids: Array) -> Array:
        return read_at(self.rows, ids, mode=None)


def as_embed(embedding: Embedding) -> Embed:
    """Returns a function that maps ids to inputs.

    Raises:
        TypeError: If `embedding` is neither a function nor a table `[vocab, ...]`.
    """
    if callable(embedding):
        return embedding
    check_not_masked("embedding", embedding)
    is_table = is_array(embedding) and np.ndim(embedding) > 0
    must = "be a table [vocab, ...] or a function of ids"
    fix = "Convert a list to an array with `jnp.asarray`."
    expect(is_table, "embedding", must, embedding, fix, error=TypeError)
    return Table(jnp.asarray(embedding))


def as_logits(
    outputs: PyTree, rows: tuple[int, ...], embed: Embed | None = None
) -> Array:
    """Checks the logits of a step, `[*rows, vocab]`, and returns them as an array.

    Raises:
        TypeError: If the outputs are not one floating-point array.
        ValueError: If their shape does not match, or `embed` is a table with fewer rows
            than there are logits.
    """
    is_floating = is_array(outputs) and jnp.issubdtype(outputs.dtype, jnp.floating)
    must = f"be floating-point {[*rows, Verbatim('vocab')]}"
    fix = "Check the result of `project` or `output_layer`, or else the cell's output."
    expect(is_floating, "logits", must, outputs, fix, error=TypeError)
    check_shape("logits", outputs, (*rows, None), must, fix)
    if isinstance(embed, Table):
        count = outputs.shape[-1]
        must = f"have at least one row per logit ({count})"
        fix = "If the cell does not output logits, pass an `output_layer`."
        expect(count <= len(embed.rows), "embedding", must, embed.rows, fix)
    return jnp.asarray(outputs)


def as_ids(
    name: str, ids: ArrayLike, what: str, *shapes: tuple[int | None, ...]
) -> Array:
    """Checks ids and converts them to int32.

    Ids that do not fit int32 are clamped, so they stay outside of any vocabulary.
    `what` describes valid ids in messages.

    Raises:
        TypeError: If the ids are not integers.
        ValueError: If their shape matches none of `shapes`, in which None stands for
            any size.
    """
    return jnp.asarray(clamped_to_int32(as_integers(name, ids, what, *shapes)))


def as_start_ids(name: str, start_ids: ArrayLike) -> Array:
    """Converts the start ids to int32 `[batch]`.

    Traced ids that do not fit int32 are clamped, because their values cannot be
    checked.

    Raises:
        TypeError: If the ids are not integers.
        ValueError: If the ids are not a vector, or a known id is beyond int32.
    """
    ids = as_integers(name, start_ids, "integers [batch]", (None,))
    known = None if np.can_cast(ids.dtype, np.int32) else concrete_or_none(ids)
    if known is not None and (wrong := known[known != clamped_to_int32(known)]).size:
        raise ValueError(f"`{name}` must hold ids that fit int32, got {wrong[0]}.")
    return jnp.asarray(clamped_to_int32(ids))


def as_eos_id(name: str, eos_id: ArrayLike) -> Array:
    """Converts an id that ends rows, which may be traced, to an int32 scalar.

    Raises:
        TypeError: If the id is not an integer.
        ValueError: If the id is not a scalar.
    """
    return as_ids(name, eos_id, "an integer scalar", ())


def as_number(
    name: str,
    value: ArrayLike,
    fix: str,
    low: float = -math.inf,
    high: float = math.inf,
) -> ArrayLike:
    """Checks a finite number or array scalar in `(low, high]` and returns it.

    A traced value is returned without a check of the range.

    Raises:
        TypeError: If the value is not a real number.
        ValueError: If the value is not a scalar, or is outside the range.
    """
    check_not_masked(name, value)
    is_number = is_array(value) or isinstance(value, int | float)
    dtype = jnp.result_type(value) if is_number else jnp.dtype(bool)
    is_real = jnp.isdtype(dtype, ("integral", "real floating"))
    expect(is_real, name, "be a number", value, fix, error=TypeError)
    check_shape(name, value, (), "be a scalar")
    known = concrete_or_none(value)
    fits = known is None or (math.isfinite(known) and low < known <= high)
    must = f"be in ({low:g}, {high:g}]"
    if math.isinf(high):
        must = "be finite" + ("" if math.isinf(low) else f" and above {low:g}")
    expect(fits, name, must, Verbatim(known), fix)
    return value


def score_dtype(tree: PyTree) -> DType:
    """The dtype of scores: float64 if any array in `tree` is float64, else float32."""
    is_wide = any(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(tree))
    return jnp.dtype(jnp.float64 if is_wide else jnp.float32)


def log_softmax(logits: Array) -> Array:
    """`jax.nn.log_softmax` over the last axis, but -inf where all logits are -inf.

    If all logits are -inf, `jax.nn.log_softmax` and its derivative are NaN.
    """
    logits, possible = without_dead_ends(logits)
    return jnp.where(possible, jax.nn.log_softmax(logits, axis=-1), -jnp.inf)


def is_minus_infinity(x: Array) -> Array:
    """`jnp.isneginf(x)`, but passes under `jax_debug_infs`, because it uses no inf."""
    return x < jnp.finfo(x.dtype).min


def without_dead_ends(logits: Array) -> tuple[Array, Array]:
    """Replaces the logits of a row with 0 if all of them are -inf.

    Returns:
        The logits, and whether any id is possible, bool `[..., 1]`.
    """
    possible = ~jnp.all(is_minus_infinity(logits), axis=-1, keepdims=True)
    return jnp.where(possible, logits, jnp.zeros((), logits.dtype)), possible


def most_likely(logits: Array, time: Array | None = None) -> Array:
    """The most likely id of each row, int32, or the lowest of several such ids."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def seeded(key: Key, name: str, seed: int | None) -> Key:
    """Derives a key from `key` and a seed; without a seed, returns `key` itself.

    Raises:
        TypeError: If `key` is not a random key, or `seed` is not an integer.
        ValueError: If `key` is an array of keys, or `seed` is not in `[0, 2**32)`.
    """
    check_key(key)
    if seed is None:
        return key
    return jax.random.fold_in(key, as_count(name, seed, 0, most=2**32 - 1))


def uniform(key: Key, like: PyTree, rows: int, time: Array) -> Array:
    """Uniform numbers `[rows]`, drawn with `fold_in(key, time)`.

    If `shard_map` divides the rows of the arrays in `like`, each device uses its own
    key.
    """
    key = jax.random.fold_in(key_of_device(key, like), time)
    return jax.random.uniform(key, (rows,), jnp.float32)


def draw(
    logits: Array,
    time: Array,
    key: Key,
    temperature: ArrayLike = 1.0,
    top_k: int | None = None,
    top_p: ArrayLike | None = None,
) -> Array:
    """Draws an id for each row, int32 `[batch]`.

    Args:
        logits: Logits or log-probabilities, `[batch, vocab]`.
        time: The index of the step.
        key: A random key; the draw uses `fold_in(key, time)`.
        temperature: The divisor of the logits.
        top_k: As in `sample`.
        top_p: As in `sample`.
    """
    logits = logits.astype(score_dtype(logits))
    # If no id is possible, draw any id instead of computing NaN.
    logits, _ = without_dead_ends(jax.lax.stop_gradient(logits))
    dtype = logits.dtype
    key = jax.random.fold_in(key_of_device(key, logits), time)
    noise = jax.random.gumbel(key, logits.shape, dtype)
    # Subtract the maximum, so that a small temperature cannot make logits inf or NaN.
    # The largest logit is 0, and others may become -inf.
    best = jnp.max(logits, axis=1, keepdims=True)
    temperature = jnp.maximum(jnp.asarray(temperature, dtype), jnp.finfo(dtype).tiny)
    logits = (logits - best) / temperature
    if top_k is None and top_p is None:
        return most_likely(logits + noise)
    vocab = logits.shape[1]
    logits, ids = jax.lax.top_k(logits, min(top_k or vocab, vocab))
    # Reorder the noise with the ids, so that a `top_k` of all ids draws the same ids as
    # `top_k=None`.
    drawn = logits + jnp.take_along_axis(noise, ids, axis=1)
    if top_p is not None:
        in_nucleus = _in_nucleus(logits, jnp.asarray(top_p, dtype))
        drawn = jnp.where(in_nucleus, drawn, jnp.finfo(dtype).min)
    place = most_likely(drawn)[:, None]
    return jnp.take_along_axis(ids, place, axis=1)[:, 0].astype(jnp.int32)


def _in_nucleus(logits: Array, top_p: Array) -> Array:
    """Whether each id is in the nucleus, for logits in descending order.

    The nucleus contains each id for which the total probability of all more likely ids
    is below `top_p`.
    """
    mass = jnp.cumsum(jax.nn.softmax(logits, axis=1), axis=1)
    before = jnp.pad(mass[:, :-1], ((0, 0), (1, 0)))
    # Handle a `top_p` of 1 separately, because the cumulative probability may round to
    # 1 before the last id.
    return (before < top_p) | (top_p >= 1)
