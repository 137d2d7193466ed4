"""Greedy decoding, sampling, beam search, and scores of given sequences."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._base import arguments, trees
from .._base.cell_keys import check_key
from .._base.errors import describe, error_note, expect, is_array
from .._base.math import is_traced
from .._base.typing import Array, ArrayLike, AxisSize, Key, PyTree
from . import _beams as beams, _ids
from ._basic import BasicDecoder, BasicDecoderOutput, EmbeddingHelper
from ._beam_search import BeamSearchDecoder, BeamSearchDecoderState
from ._decoder import Decoder, dynamic_decode
from ._ids import Embed, Project
from ._model import Model, check_model


@trees.serializable
class Decoded(NamedTuple):
    """Decoded sequences of ids.

    Beam search adds a second axis `beam`, with the best beam first.

    Attributes:
        ids: The ids, int32 `[batch, max_time]`; past a row's length, `end_id` or, if
            that is None, -1.
        scores: The log-probability of a row's ids up to its length, including the end
            id, `[batch]`. Beam search divides the log-probability by the length
            penalty. -inf for a row that reached a step at which all logits are -inf.
        lengths: The number of ids, including the end id, int32 `[batch]`; `max_time`
            for rows without an end id; 0 for rows with score -inf.
    """

    ids: Array
    scores: Array
    lengths: Array


def greedy(model: Model, max_time: int) -> Decoded:
    """Decodes greedily: chooses the most likely id at each step.

    If several ids are equally likely, the lowest id is chosen. The loop ends when all
    rows are finished, at the latest after `max_time` steps. Scores are differentiable
    with respect to the arrays in `embed`, `project`, the cell and the initial state,
    with the ids held constant.

    Args:
        model: The model.
        max_time: The maximum number of ids in a row, an int, or symbolic under
            `jax.export`.

    Returns:
        `Decoded`: ids `[batch, max_time]`, scores `[batch]`, lengths `[batch]`. Scores
        are float32, or float64 if the state or the inputs contain float64. A row that
        reaches a step at which all of its logits are -inf has score -inf and length 0.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match, or `end_id` is not in the vocabulary.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`.
    """
    check_model("model", model)
    return _extended(model, max_time, _ids.most_likely)


def sample(
    model: Model,
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
        model: The model.
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
        at which all of its logits are -inf has score -inf and length 0. If a traced
        `temperature` or `top_p` is NaN, so are the scores.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match, a number is outside its range, or `end_id`
            is not in the vocabulary.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`; arXiv:1805.04833 for `top_k`;
    arXiv:1904.09751 for `top_p`.
    """
    check_model("model", model)
    check_key(key)
    fix = "To choose the most likely id, use `greedy`."
    _ids.as_number("temperature", temperature, fix, low=0)
    fix = "To draw from all ids, pass None."
    if top_k is not None:
        top_k = arguments.as_count("top_k", top_k, 1, fix)
    if top_p is not None:
        _ids.as_number("top_p", top_p, fix, low=0, high=1)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    draw = functools.partial(_ids.draw, key=key, **options)
    decoded = _extended(model, max_time, draw)
    scores = decoded.scores
    for number in (temperature, top_p):
        if is_traced(number):  # With NaN, every draw returns the same id.
            number = jnp.asarray(number, scores.dtype)
            scores = jnp.where(jnp.isnan(number), number, scores)
    return decoded._replace(scores=scores)


def beam_search(
    model: Model,
    max_time: int,
    beam_width: int,
    *,
    length_penalty: ArrayLike = 0.0,
) -> Decoded:
    """Decodes by beam search: keeps the `beam_width` best sequences of each example.

    The score of a sequence is its log-probability divided by `((5 + length) / 6) **
    length_penalty`. A finished sequence is not extended; its score competes with the
    scores of the other sequences. The loop ends when all beams of all examples are
    finished, at the latest after `max_time` steps.

    Args:
        model: The model, with a state and start ids of `batch` rows. Its cell, `embed`
            and `project` run on `batch * beam` rows; apply `tile_beams` to memories
            that they close over.
        max_time: The maximum number of ids in a sequence, an int, or symbolic under
            `jax.export`.
        beam_width: The number of beams, an int, at most 65,536.
        length_penalty: The exponent of the length penalty, a number or an array scalar,
            which may be traced; 0 for no penalty.

    Returns:
        `Decoded`: ids `[batch, beam, max_time]`, scores `[batch, beam]`, lengths
        `[batch, beam]`, with the best beam first. If an example has fewer possible
        sequences than beams, the remaining beams have score -inf and length 0. Scores
        are float32, or float64 if the state or the inputs contain float64.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match, `beam_width` is out of range, the state
            contains a TensorArray, or `end_id` is not in the vocabulary.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`; arXiv:1609.08144.
    """
    check_model("model", model)
    width = beams.as_width("beam_width", beam_width)
    penalty = _ids.as_number("length_penalty", length_penalty, beams.NO_PENALTY)
    state = beams.tile("initial_state", model.initial_state, width)
    start, end = model.start_ids, _end_id(model)
    embed, project = _on_rows(model, width)
    search = _Search(model.cell, embed, start, end, state, width, project, penalty)
    return _run(search, end, max_time)


def score(model: Model, ids: ArrayLike) -> Array:
    """The log-probability of each given sequence, up to and including its end id.

    For sequences from `greedy`, `sample`, or `beam_search` without a length penalty,
    the result equals, up to rounding, the `scores` in the `Decoded` that contains the
    sequences. If a sequence has no end id, all of its ids count. Ids after an end id
    have no effect, so you can use `end_id` as padding. Ignore the results for beams
    with score -inf, which `beam_search` could not fill. Such a beam contains only
    `end_id`, so `score` returns the log-probability of the first `end_id`, or NaN if
    `end_id` is None.

    Args:
        model: The model.
        ids: Integers `[batch, time]`, or `[batch, beam, time]` for several sequences
            per row. In the second case, the cell, `embed` and `project` run on
            `batch * beam` rows, as in `beam_search`; apply `tile_beams` to memories
            that they close over.

    Returns:
        The scores, `[batch]` or `[batch, beam]`, in float32, or in float64 if the state
        or the inputs contain float64. The scores are differentiable with respect to the
        arrays in `embed`, `project`, the cell and the initial state. A sequence has the
        score -inf if one of its ids has a logit of -inf, and the score NaN if an id up
        to its end id is outside the vocabulary.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match, `end_id` is not in the vocabulary, or `ids`
            has an axis `beam` and the state contains a TensorArray.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`.
    """
    check_model("model", model)
    given = _given_ids(ids, model)
    *shape, time = given.shape
    note = contextlib.nullcontext()
    if len(shape) == 2:
        state = beams.tile("initial_state", model.initial_state, shape[1])
        start = beams.repeated(jnp.asarray(model.start_ids), shape[1])
        model = dataclasses.replace(model, initial_state=state, start_ids=start)
        note = error_note(beams.ON_BEAMS.format(start.shape[0]))
    given = given.reshape(math.prod(shape), time)
    with note:
        found = _extended(model, time, lambda logits, t: given[:, t])
    return found.scores.reshape(shape)


def _given_ids(ids: ArrayLike, model: Model) -> Array:
    """The ids `[batch, time]` or `[batch, beam, time]`, with `end_id` after an end id.

    Raises:
        TypeError: If the ids are not integers.
        ValueError: If the ids have another shape.
    """
    end_id, [rows] = _end_id(model), jnp.shape(model.start_ids)
    what = f"integers [{rows}, time] or [{rows}, beam, time]"
    given = _ids.as_ids("ids", ids, what, (rows, None), (rows, None, None))
    # JAX would count negative ids from the end of the vocabulary. Replace each negative
    # id with an id that is too large, for which `score` returns NaN as documented.
    given = jnp.where(given < 0, arguments.INT32_MAX, given)
    # Ids after the end have no effect, but are read. They may be out of range.
    is_end = given == end_id
    ends = jnp.cumsum(is_end, axis=-1, dtype=jnp.int32)
    return jnp.where((ends > 0) & ~is_end, end_id, given)


def _end_id(model: Model) -> int:
    """The id that ends a row; without one, an id that is never chosen."""
    return -1 if model.end_id is None else model.end_id


def _on_rows(model: Model, *beam: int) -> tuple[Embed, Project]:
    """Adapts `embed` and `project` to ids `[batch]` or, with beams, `[batch, beam]`.

    The model's own functions run on all rows. Their results are checked, and the end id
    must be in the vocabulary.
    """
    shape = (*jnp.shape(model.start_ids), *beam)
    rows, end_id = math.prod(shape), _end_id(model)

    def embed_all(ids: Array) -> PyTree:
        ids = ids.reshape(rows)
        with error_note(f"Raised by `embed`, called with ids {describe(ids)}."):
            inputs = model.embed(ids)
        for name, leaf in trees.named_leaves("embed(ids)", inputs):
            fits = is_array(leaf) and leaf.shape[:1] == (rows,)
            must = f"be an array [{rows}, ...], one row for each id"
            expect(fits, name, must, leaf)
        return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), inputs)

    def project_all(output: PyTree) -> Array:
        output = jax.tree.map(lambda x: jax.lax.collapse(x, 0, len(shape)), output)
        with error_note("Raised by `project`, called with the cell's output."):
            logits = _ids.as_logits(model.project(output), (rows,))
        vocab = logits.shape[1]
        must = f"be less than {vocab}, the number of logits of each row"
        expect(end_id < vocab, "end_id", must, end_id)
        return logits.reshape(*shape, vocab)

    return embed_all, project_all


def _extended(
    model: Model, max_time: AxisSize, choose: Callable[[Array, Array], Array]
) -> Decoded:
    """Extends each row by the ids that `choose(logits, time)` returns."""
    end = _end_id(model)
    embed, project = _on_rows(model)
    helper = EmbeddingHelper(embed, model.start_ids, end, choose)
    decoder = _Scored(model.cell, helper, model.initial_state, project)
    return _run(decoder, end, max_time)


def _run(decoder: Decoder, end_id: int, max_time: AxisSize) -> Decoded:
    """Runs a decoder that returns a `Decoded` of the steps that ran, time first."""
    fix = "Pass the largest number of ids per row."
    limit = arguments.as_axis_size("max_time", max_time, fix)
    found, _, _ = dynamic_decode(decoder, True, True, max_time=limit)
    lengths = jnp.where(_ids.is_minus_infinity(found.scores), 0, found.lengths)
    ids = jnp.moveaxis(beams.to_time(found.ids, limit), 0, -1)
    time = jnp.arange(ids.shape[-1], dtype=lengths.dtype)
    inside = jnp.broadcast_to(time, ids.shape) < lengths[..., None]
    ids = jnp.where(inside, ids, jnp.asarray(end_id, ids.dtype))
    return Decoded(ids, found.scores, lengths)


class _Scored(BasicDecoder):
    """Emits ids, and sums their log-probabilities in its state."""

    @functools.cached_property
    def _output_types(self) -> PyTree:
        return ()  # Steps do not emit the logits.

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree, PyTree]:
        """Returns `(finished, inputs, (cell_state, scores))`."""
        finished, inputs, cell_state = super().initialize()
        dtype = _ids.score_dtype((self._initial_state, inputs))
        return finished, inputs, (cell_state, jnp.zeros_like(finished, dtype))

    def step(
        self, time: Array, inputs: PyTree, state: PyTree, name: str | None = None
    ) -> tuple[BasicDecoderOutput, PyTree, PyTree, Array]:
        """Extends each row by one id; a row without a possible id ends."""
        cell_state, scores = state
        emit, cell_state, inputs, over = super().step(time, inputs, cell_state)
        logits, ids = emit
        log_probs = _ids.log_softmax(logits.astype(scores.dtype))
        gain = jnp.take_along_axis(log_probs, ids[:, None], axis=1)[:, 0]
        is_dead_end = jnp.all(_ids.is_minus_infinity(log_probs), axis=1)
        emit = BasicDecoderOutput((), ids)
        return emit, (cell_state, scores + gain), inputs, over | is_dead_end

    def finalize(
        self, outputs: PyTree, final_state: PyTree, sequence_lengths: Array
    ) -> tuple[PyTree, PyTree]:
        """Returns the ids of each row, with their score and length, and the state."""
        _, scores = final_state
        return Decoded(outputs.sample_id, scores, sequence_lengths), final_state


class _Search(BeamSearchDecoder):
    """A beam search in which the beams of an example finish together.

    The lengths in the scores count the end id. Steps emit no scores.
    """

    tracks_own_finished = property(lambda self: False)
    _impossible = -jnp.inf
    output_dtype: Any = property(lambda self: (jnp.int32, jnp.int32))
    output_size: Any = property(
        lambda self: (trees.TensorShape([self._beam_width]),) * 2
    )

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree, PyTree]:
        """Returns `(finished, inputs, state)` before the first step."""
        _, inputs, state = super().initialize()
        return _all_finished(state), inputs, state

    def step(
        self, time: Array, inputs: PyTree, state: PyTree, name: str | None = None
    ) -> tuple[PyTree, PyTree, PyTree, Array]:
        """Extends the beams of each example by one id and keeps the best beams."""
        (_, *emit), state, inputs, _ = super().step(time, inputs, state)
        return tuple(emit), state, inputs, _all_finished(state)

    def finalize(
        self, outputs: PyTree, final_state: PyTree, sequence_lengths: Array
    ) -> tuple[PyTree, PyTree]:
        """Returns the ids of the final beams, with their scores, and the state."""
        steps = jnp.max(sequence_lengths, axis=1)
        ids, parents = outputs
        ids = beams.ids_along_paths(ids, parents, steps, self._end_token)
        _, log_probs, _, lengths, _ = final_state
        scores = beams.penalized(log_probs, lengths, self._length_penalty)
        return Decoded(ids, scores, lengths), final_state

    def _score(
        self, penalty: ArrayLike, log_probs: Array, lengths: Array, ends: Array
    ) -> Array:
        return beams.penalized(log_probs, lengths, self._length_penalty)


def _all_finished(found: BeamSearchDecoderState) -> Array:
    """Whether all beams of an example are finished or impossible, `[batch, beam]`."""
    over = found.finished | _ids.is_minus_infinity(found.log_probs)
    return jnp.broadcast_to(jnp.all(over, axis=1, keepdims=True), over.shape)
