"""Decoding by sampling, optionally restricted to the most likely ids."""

import functools

import jax
import jax.numpy as jnp

from .._base.cell_keys import check_key
from .._base.sharding import key_of_device
from .._base.typing import Array, ArrayLike, Key, PyTree, RNNCellLike
from . import _model
from ._greedy import RowLoop
from ._model import Decoded, Embed, Model, Project, as_int, as_number, run


def sampling_loop(
    embed: Embed,
    project: Project,
    initial_state: PyTree,
    start_ids: ArrayLike,
    end_id: int,
    key: Key,
    *,
    temperature: ArrayLike = 1.0,
    top_k: int | None = None,
    top_p: ArrayLike | None = None,
) -> RowLoop:
    """A loop function for `raw_rnn` that extends each row by an id drawn at random.

    The emitted values and the loop state have the same form as in `greedy_loop`.

    Args:
        embed: As in `sample`.
        project: As in `sample`.
        initial_state: As in `sample`.
        start_ids: As in `sample`.
        end_id: As in `sample`.
        key: As in `sample`.
        temperature: As in `sample`.
        top_k: As in `sample`.
        top_p: As in `sample`.

    Returns:
        `loop_fn`. Its method `decoded(results, max_time)` builds a `Decoded` from the
        results of `raw_rnn(cell, loop_fn, max_time=max_time)`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match, or a number is outside its range; in the
            loop, if the logits are not `[batch, vocab]` or have no entry for `end_id`.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`; arXiv:1805.04833 for `top_k`;
        arXiv:1904.09751 for `top_p`.
    """
    model = Model(embed, project, initial_state, start_ids, end_id)
    return _make_loop(model, key, temperature, top_k, top_p)


def sample(
    cell: RNNCellLike,
    embed: Embed,
    project: Project,
    initial_state: PyTree,
    start_ids: ArrayLike,
    end_id: int,
    max_time: int,
    key: Key,
    *,
    temperature: ArrayLike = 1.0,
    top_k: int | None = None,
    top_p: ArrayLike | None = None,
) -> Decoded:
    """Decodes by sampling: draws ids at random, independently for each row.

    The loop ends when all rows are finished, at the latest after `max_time` steps. To
    draw several samples per row, repeat the rows, which is faster than `jax.vmap` over
    keys.

    Args:
        cell: A bound cell, or any object that implements the RNNCell protocol.
        embed: `embed(ids)`, which returns the cell's inputs for int32 ids `[batch]`: a
            nest of arrays `[batch, ...]`. Finished rows read the inputs for `end_id`.
        project: `project(output)`, which returns the logits `[batch, vocab]` for the
            cell's output.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or a scalar.
        start_ids: The ids for the first step, integers `[batch]` below 2**31.
        end_id: The id that ends a row, an int. If the vocabulary has no such id, let
            `project` append a logit of -inf, and pass the index of this logit.
        max_time: The maximum number of ids in a row, an int, or symbolic under
            `jax.export`.
        key: A random key. Position t, counted from 0, uses `fold_in(key, t)`.
        temperature: The positive divisor of the logits, a number or an array scalar,
            which may be traced.
        top_k: The number of most likely ids to draw from, an int; None or a number
            above the vocabulary's size selects all ids. If ids are equally likely, the
            lowest ids are selected.
        top_p: A probability in (0, 1], a number or an array scalar, which may be
            traced. Ids are drawn from the smallest set of most likely ids whose total
            probability, after temperature and `top_k`, is at least `top_p`. None for
            all ids.

    Returns:
        `Decoded`: ids `[batch, max_time]`, scores `[batch]`, lengths `[batch]`. Scores
        are log-probabilities without temperature, `top_k` and `top_p`, in float32, or
        in float64 if the state or the inputs contain float64. A row that reaches a step
        at which all of its logits are -inf has score -inf and length 0.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match, a number is outside its range, or `end_id`
            is not in the vocabulary.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`; arXiv:1805.04833 for `top_k`;
        arXiv:1904.09751 for `top_p`.
    """
    model = Model(embed, project, initial_state, start_ids, end_id)
    return run(cell, _make_loop(model, key, temperature, top_k, top_p), max_time)


def _make_loop(
    model: Model,
    key: Key,
    temperature: ArrayLike,
    top_k: int | None,
    top_p: ArrayLike | None,
) -> RowLoop:
    check_key(key)
    fix = "To choose the most likely id, use `greedy`."
    as_number("temperature", temperature, _model.POSITIVE, fix)
    fix = "To draw from all ids, pass None."
    if top_k is not None:
        top_k = as_int("top_k", top_k, 1, fix)
    if top_p is not None:
        as_number("top_p", top_p, _model.PROBABILITY, fix)
    return RowLoop(model, functools.partial(draw, key, temperature, top_k, top_p))


def draw(
    key: Key,
    temperature: ArrayLike,
    top_k: int | None,
    top_p: ArrayLike | None,
    log_probs: Array,
    t: Array,
) -> Array:
    """Draws an id for each row at position t, int32 `[batch]`.

    Args:
        key: A random key; the draw uses `fold_in(key, t)`.
        temperature: The divisor of the log-probabilities.
        top_k: As in `sample`.
        top_p: As in `sample`.
        log_probs: Log-probabilities or logits, `[batch, vocab]`.
        t: The position.
    """
    # If no id is possible, any id may be drawn.
    log_probs, _ = _model.without_dead_ends(jax.lax.stop_gradient(log_probs))
    dtype = log_probs.dtype
    key = jax.random.fold_in(key_of_device(key, log_probs), t)
    noise = jax.random.gumbel(key, log_probs.shape, dtype)
    # Subtract the maximum, so that the largest logit is 0 at any temperature. If the
    # temperature is small, the other logits may become -inf, but not inf or NaN.
    best = jnp.max(log_probs, axis=1, keepdims=True)
    temperature = jnp.maximum(jnp.asarray(temperature, dtype), jnp.finfo(dtype).tiny)
    logits = (log_probs - best) / temperature
    if top_k is None and top_p is None:
        return jnp.argmax(logits + noise, axis=1).astype(jnp.int32)
    vocab = log_probs.shape[1]
    logits, ids = jax.lax.top_k(logits, min(top_k or vocab, vocab))
    # The noise belongs to the ids, not to their ranks, so a `top_k` that includes all
    # ids draws the same ids as `top_k=None`.
    drawn = logits + jnp.take_along_axis(noise, ids, axis=1)
    if top_p is not None:
        in_nucleus = _in_nucleus(logits, jnp.asarray(top_p, dtype))
        drawn = jnp.where(in_nucleus, drawn, jnp.finfo(dtype).min)
    place = jnp.argmax(drawn, axis=1, keepdims=True)
    return jnp.take_along_axis(ids, place, axis=1)[:, 0].astype(jnp.int32)


def _in_nucleus(logits: Array, top_p: Array) -> Array:
    """Whether each id is in the nucleus, for logits in descending order.

    An id belongs to the nucleus if the total probability of all earlier ids is below
    `top_p`.
    """
    mass = jnp.cumsum(jax.nn.softmax(logits, axis=1), axis=1)
    before = jnp.pad(mass[:, :-1], ((0, 0), (1, 0)))
    # The cumulative probability may round to 1 before the last id, so a `top_p` of 1 is
    # handled separately.
    return (before < top_p) | (top_p >= 1)
