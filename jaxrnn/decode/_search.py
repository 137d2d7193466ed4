"""Greedy decoding, sampling, beam search, and scores of given sequences."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp

from .._base import arguments, trees
from .._base.cell_keys import check_key
from .._base.errors import describe, error_note, expect, is_array
from .._base.hints import with_hints
from .._base.math import is_traced
from .._base.typing import Array, ArrayLike, AxisSize, Key, PyTree
from . import _beams as beams, _ids
from ._basic import BasicDecoder, BasicDecoderOutput, EmbeddingHelper
from ._beam_search import BeamSearch, BeamSearchDecoderState
from ._decoder import Decoder, dynamic_decode
from ._ids import Embed, Project
from ._model import Model, check_model


@trees.serializable
class Decoded(NamedTuple):
    """Decoded sequences of ids.

    Beam search adds a second axis `beam`, with the best beam first.

    Attributes:
        ids: The ids, int32 `[batch, max_length]`. Past a row's length, the ids are
            `eos_id`, or -1 if `eos_id` is None.
        scores: The log-probability of each row's ids, including `eos_id`, `[batch]`.
            Beam search divides the log-probability by the length penalty. The score is
            -inf for a row that reached a step at which all logits are -inf.
        lengths: The number of ids, including `eos_id`, int32 `[batch]`. The length is
            `max_length` for rows without `eos_id`, and 0 for rows with score -inf.
    """

    ids: Array
    scores: Array
    lengths: Array


@with_hints
def greedy(model: Model, max_length: int) -> Decoded:
    """Decodes greedily: chooses the most likely id at each step.

    If several ids are equally likely, the lowest id is chosen. The loop ends when all
    rows are finished, at the latest after `max_length` steps. You can differentiate the
    scores with respect to the arrays in `embed`, `project`, the cell and the initial
    state. The ids then count as constants.

    Args:
        model: The model.
        max_length: The maximum number of ids in a row, an int or, under `jax.export`, a
            symbolic size.

    Returns:
        `Decoded`: ids `[batch, max_length]`, scores `[batch]`, lengths `[batch]`.
        Scores are float32, or float64 if the state or the inputs contain float64. A row
        that reaches a step at which all of its logits are -inf has score -inf and
        length 0.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the shapes of ids, states and logits do not match, or `eos_id` is
            not in the vocabulary.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`.
    """
    check_model("model", model)
    return _extended(model, max_length, _ids.most_likely)


@with_hints
def sample(
    model: Model,
    max_length: int,
    key: Key,
    *,
    temperature: ArrayLike = 1.0,
    top_k: int | None = None,
    top_p: ArrayLike | None = None,
) -> Decoded:
    """Decodes by sampling: draws ids at random, independently for each row.

    The loop ends when all rows are finished, at the latest after `max_length` steps. To
    draw several samples per row, repeat the rows of the model, which is faster than
    `jax.vmap` over keys.

    Args:
        model: The model.
        max_length: The maximum number of ids in a row, an int or, under `jax.export`, a
            symbolic size.
        key: A random key. Position t, counted from 0, uses `fold_in(key, t)`.
        temperature: The positive divisor of the logits, a number or an array scalar,
            which may be traced.
        top_k: Draws only from the `top_k` most likely ids, an int. By default, all ids
            can be drawn. If several ids are equally likely, the lower ids come first.
        top_p: A probability in (0, 1], a number or an array scalar, which may be
            traced. Ids are drawn from the smallest set of most likely ids whose total
            probability, after temperature and `top_k`, is at least `top_p`. By default,
            all ids can be drawn.

    Returns:
        `Decoded`: ids `[batch, max_length]`, scores `[batch]`, lengths `[batch]`.
        Scores are log-probabilities without temperature, `top_k` and `top_p`, in
        float32, or in float64 if the state or the inputs contain float64. A row that
        reaches a step at which all of its logits are -inf has score -inf and length 0.
        If a traced `temperature` or `top_p` is NaN, the scores are NaN.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the shapes of ids, states and logits do not match, a number is
            outside its range, or `eos_id` is not in the vocabulary.

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
    decoded = _extended(model, max_length, draw)
    scores = decoded.scores
    for number in (temperature, top_p):
        if is_traced(number):  # With NaN, every draw returns the same id.
            number = jnp.asarray(number, scores.dtype)
            scores = jnp.where(jnp.isnan(number), number, scores)
    return decoded._replace(scores=scores)


@with_hints
def beam_search(
    model: Model,
    max_length: int,
    num_beams: int,
    *,
    length_penalty: ArrayLike = 0.0,
    length_penalty_form: beams.LengthPenalty = "power",
) -> Decoded:
    """Decodes by beam search: keeps the `num_beams` best sequences of each example.

    The score of a sequence of n ids, including `eos_id`, is its log-probability divided
    by the length penalty, by default `n ** length_penalty`. A finished sequence is not
    extended, but its score competes with the scores of the other sequences. The loop
    ends when all beams of all examples are finished, at the latest after `max_length`
    steps.

    Args:
        model: The model, with a state and start ids of `batch` rows. Its cell, `embed`
            and `project` run on `batch * beam` rows. Apply `tile_beams` to memories
            that the cell or the functions read.
        max_length: The maximum number of ids in a sequence, without the start id: an
            int or, under `jax.export`, a symbolic size.
        num_beams: The number of beams, an int, at most 65,536.
        length_penalty: The exponent of the length penalty, a number or an array scalar,
            which may be traced. Positive numbers favor long sequences. With the default
            of 0, scores are log-probabilities, as `score` returns them.
        length_penalty_form: "power" divides by `n ** length_penalty`, like `generate`
            of `transformers`. "gnmt" divides by `((5 + n) / 6) ** length_penalty`, like
            TensorFlow and arXiv:1609.08144.

    Returns:
        `Decoded`: ids `[batch, beam, max_length]`, scores `[batch, beam]`, lengths
        `[batch, beam]`, with the best beam first. If an example has fewer possible
        sequences than beams, the remaining beams have score -inf and length 0. Scores
        are float32, or float64 if the state or the inputs contain float64.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the shapes of ids, states and logits do not match, `num_beams` is
            out of range, `length_penalty_form` is unknown, the state contains a
            TensorArray, or `eos_id` is not in the vocabulary.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`; arXiv:1609.08144.
    """
    check_model("model", model)
    width = beams.as_num_beams("num_beams", num_beams)
    penalty = _ids.as_number("length_penalty", length_penalty, beams.NO_PENALTY)
    form = length_penalty_form
    known = [*get_args(beams.LengthPenalty)]
    expect(form in known, "length_penalty_form", f"be one of {known}", form)
    state = beams.tile("initial_state", model.initial_state, width)
    embed, project = _on_rows(model, width)
    score = lambda total, lengths, _: beams.penalized(total, lengths, penalty, form)
    start, end = jnp.asarray(model.start_ids), _eos_id(model)
    search = _Search(model.cell, embed, start, end, state, width, project, score)
    return _run(search, end, max_length)


@with_hints
def score(model: Model, ids: ArrayLike) -> Array:
    """Computes the log-probability of given sequences, up to the first `eos_id`.

    The first `eos_id` counts. Later ids have no effect, so you can use `eos_id` as
    padding. If a sequence has no `eos_id`, all of its ids count.

    For sequences from `greedy`, `sample`, or `beam_search` without a length penalty,
    the result equals the `scores` of the `Decoded`, up to rounding. For beams with
    score -inf, which `beam_search` could not fill, the results may differ. Ignore the
    results for these beams.

    Args:
        model: The model.
        ids: Integers `[batch, time]`, or `[batch, beam, time]` for several sequences
            per row. With an axis `beam`, the cell, `embed` and `project` run on
            `batch * beam` rows, as in `beam_search`. Apply `tile_beams` to memories
            that the cell or the functions close over.

    Returns:
        The scores, `[batch]` or `[batch, beam]`, in float32, or in float64 if the state
        or the inputs contain float64. You can differentiate the scores with respect to
        the arrays in `embed`, `project`, the cell and the initial state. The score of a
        sequence is -inf if one of its ids has a logit of -inf, and NaN if an id up to
        its `eos_id` is outside of the vocabulary.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the shapes of ids, states and logits do not match, `eos_id` is
            not in the vocabulary, or `ids` has an axis `beam` and the state contains a
            TensorArray.

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
    """Checks the ids, and replaces all ids after the first `eos_id` with `eos_id`.

    Raises:
        TypeError: If the ids are not integers.
        ValueError: If the ids are neither `[rows, time]` nor `[rows, beam, time]`.
    """
    eos_id, [rows] = _eos_id(model), jnp.shape(model.start_ids)
    what = f"integers [{rows}, time] or [{rows}, beam, time]"
    given = _ids.as_ids("ids", ids, what, (rows, None), (rows, None, None))
    # JAX would count negative ids from the end of the vocabulary. Replace them with an
    # id that is too large, so that `score` returns NaN.
    given = jnp.where(given < 0, arguments.INT32_MAX, given)
    # The loop also reads ids after the end, which may be out of range. Replace them.
    is_end = given == eos_id
    ends = jnp.cumsum(is_end, axis=-1, dtype=jnp.int32)
    return jnp.where((ends > 0) & ~is_end, eos_id, given)


def _eos_id(model: Model) -> int:
    """The model's `eos_id`, or -1, an id that is never chosen, if there is none."""
    return -1 if model.eos_id is None else model.eos_id


def _on_rows(model: Model, *beam: int) -> tuple[Embed, Project]:
    """Adapts `embed` and `project` to ids `[batch]` or, with beams, `[batch, beam]`.

    The model's functions get ids of shape `[batch * beam]`. Their results are checked,
    and `eos_id` must be in the vocabulary.
    """
    shape = (*jnp.shape(model.start_ids), *beam)
    rows, eos_id = math.prod(shape), _eos_id(model)

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
        expect(eos_id < vocab, "eos_id", must, eos_id)
        return logits.reshape(*shape, vocab)

    return embed_all, project_all


def _extended(
    model: Model, max_length: AxisSize, choose: Callable[[Array, Array], Array]
) -> Decoded:
    """Extends each row by the ids that `choose(logits, time)` returns."""
    end = _eos_id(model)
    embed, project = _on_rows(model)
    helper = EmbeddingHelper(embed, model.start_ids, end, choose)
    decoder = _Scored(model.cell, helper, model.initial_state, project)
    return _run(decoder, end, max_length)


def _run(decoder: Decoder, eos_id: int, max_length: AxisSize) -> Decoded:
    """Runs a decoder of this file, and pads its ids to `max_length`."""
    fix = "Pass the largest number of ids per row."
    limit = arguments.as_axis_size("max_length", max_length, fix)
    found, _, _ = dynamic_decode(decoder, True, True, max_time=limit)
    lengths = jnp.where(_ids.is_minus_infinity(found.scores), 0, found.lengths)
    ids = jnp.moveaxis(beams.to_time(found.ids, limit), 0, -1)
    time = jnp.arange(ids.shape[-1], dtype=lengths.dtype)
    inside = jnp.broadcast_to(time, ids.shape) < lengths[..., None]
    ids = jnp.where(inside, ids, jnp.asarray(eos_id, ids.dtype))
    return Decoded(ids, found.scores, lengths)


class _Scored(BasicDecoder):
    """A `BasicDecoder` that emits only ids and sums their log-probabilities."""

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
        """Extends each row by one id. A row whose logits are all -inf ends."""
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


class _Search(BeamSearch):
    """A beam search that ends an example once all its beams are finished."""

    _impossible = -jnp.inf

    def _finished(self, state: BeamSearchDecoderState) -> Array:
        """Whether all beams of each example have ended or are impossible."""
        over = state.finished | _ids.is_minus_infinity(state.log_probs)
        return jnp.broadcast_to(jnp.all(over, axis=1, keepdims=True), over.shape)

    def finalize(
        self, outputs: PyTree, final_state: PyTree, sequence_lengths: Array
    ) -> tuple[PyTree, PyTree]:
        """Returns the ids of the final beams, with their scores, and the state."""
        steps = jnp.max(sequence_lengths, axis=1)
        _, ids, parents = outputs
        ids = beams.ids_along_paths(ids, parents, steps, self._eos_id)
        _, log_probs, finished, lengths, _ = final_state
        scores = self._score(log_probs, lengths, finished)
        return Decoded(ids, scores, lengths), final_state
