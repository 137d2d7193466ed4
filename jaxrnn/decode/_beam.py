"""Beam search: several sequences are extended in parallel, and the best are kept."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._base.typing import Array, ArrayLike, PyTree, RNNCellLike
from ._beam_rows import (
    map_rows as map_rows,
    reordered,
    repeated,
    run_beams,
    tile,
    tile_model,
)
from ._checks import FINITE, as_int, as_number
from ._model import Decoded, Embed, Loop, Model, Project, end_beyond, to_time

# The beams of an example are chosen among width * vocab, numbered in int32; and the
# state has as many rows: a greater width exhausts the memory.
MAX_WIDTH = 2**16


def tile_beams(tree: PyTree, beam_width: int) -> PyTree:
    """Repeats each row for each of its beams.

    Apply it to memories over which a cell, `embed` or `project` closes: in beam search
    all arrays have `batch * beam_width` rows, those of one example next to each other.
    A memory in the state of a `jaxrnn.contrib.AttentionWrapper` is shared by the beams
    of an example, and stays as it is.

    Args:
        tree: A nest of arrays `[batch, ...]`; those without axes stay as they are.
        beam_width: The number of beams, an int, at most 65,536.

    Returns:
        The nest, each leaf `[batch * beam_width, ...]`.

    Raises:
        TypeError: If a leaf is not an array, or `beam_width` not an int.
        ValueError: If a leaf is a TensorArray, or `beam_width` is out of range.

    Source: `tf.contrib.seq2seq.tile_batch`.
    """
    width = as_width("decode.tile_beams", beam_width)
    return tile("decode.tile_beams", "tree", tree, width)


def beam_loop(
    embed: Embed,
    project: Project,
    initial_state: PyTree,
    start_ids: ArrayLike,
    end_id: int,
    beam_width: int,
    *,
    length_penalty: ArrayLike = 0.0,
) -> "BeamLoop":
    """A loop function for `raw_rnn` that extends the best beams of each example.

    The loop has `batch * beam_width` rows, those of one example next to each other,
    which finish together. It emits `(ids, offsets)`, each int32 `[batch * beam]`: the
    id of each beam, and the position of the beam that it continues, relative to its
    own. Its loop state is a named tuple of `log_probs`, `lengths` and `finished`, each
    `[batch, beam]`.

    Args:
        embed: As in `beam_search`.
        project: As in `beam_search`.
        initial_state: As in `beam_search`.
        start_ids: As in `beam_search`.
        end_id: As in `beam_search`.
        beam_width: As in `beam_search`.
        length_penalty: As in `beam_search`.

    Returns:
        `loop_fn`. Its method `decoded(results, max_time)` traces the beams back and
        makes a `Decoded` from the results of `raw_rnn(cell, loop_fn,
        max_time=max_time)`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, `beam_width` is out of range, or the state
            holds a TensorArray; in the loop, if logits are not `[batch * beam,
            vocab]` or `end_id` is not one of their ids.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`; arXiv:1609.08144.
    """
    model = Model("decode.beam_loop", embed, project, initial_state, start_ids, end_id)
    return _make(model, beam_width, length_penalty)


def beam_search(
    cell: RNNCellLike,
    embed: Embed,
    project: Project,
    initial_state: PyTree,
    start_ids: ArrayLike,
    end_id: int,
    max_time: int,
    beam_width: int,
    *,
    length_penalty: ArrayLike = 0.0,
) -> Decoded:
    """Decodes by beam search: each step extends an example's `beam_width` best beams.

    The score of a sequence is its log-probability divided by `((5 + length) / 6) **
    length_penalty`. Finished sequences stay in the beam unchanged. The loop ends when
    all beams of all examples are finished.

    Args:
        cell: A bound cell, or any object that keeps the RNNCell protocol. It runs on
            `batch * beam` rows; apply `tile_beams` to memories over which it closes.
        embed: `embed(ids)`, the cell's inputs for int32 ids `[batch * beam]`: a nest of
            arrays with as many rows.
        project: `project(output)`, the logits `[batch * beam, vocab]` for the cell's
            output.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or without
            axes.
        start_ids: Integers `[batch]`, the ids for the first step.
        end_id: The id that ends a row, an int.
        max_time: The maximum number of ids of a row, an int.
        beam_width: The number of beams, an int, at most 65,536.
        length_penalty: The exponent of the length penalty; 0 for none. A number or an
            array scalar, which may be traced.

    Returns:
        `Decoded`: ids `[batch, beam, max_time]`, scores `[batch, beam]`, lengths
        `[batch, beam]`, the best first. Where there are fewer sequences than beams, the
        last ones score -inf and have length 0. Scores are float32, or float64 if the
        state or the inputs are.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, `beam_width` is out of range, the state holds
            a TensorArray, or `end_id` is not one of the ids.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`; arXiv:1609.08144.
    """
    caller = "decode.beam_search"
    model = Model(caller, embed, project, initial_state, start_ids, end_id)
    loop = _make(model, beam_width, length_penalty)
    return run_beams(cell, loop, max_time)


class Beams(NamedTuple):
    """The loop state: each beam so far, the best first.

    Attributes:
        log_probs: `[batch, beam]`; -inf where there is no sequence.
        lengths: int32 `[batch, beam]`, the number of its ids.
        finished: bool `[batch, beam]`, whether its last id is the end id.
    """

    log_probs: Array
    lengths: Array
    finished: Array


@dataclasses.dataclass(frozen=True, eq=False)
class BeamLoop(Loop):
    """A loop function that keeps the best continuations of an example's beams.

    Attributes:
        width: The number of beams.
        length_penalty: The exponent of the length penalty.
    """

    width: int
    length_penalty: Any

    def __call__(
        self, time: Array, output: PyTree, state: PyTree, rows: Beams | None
    ) -> tuple[Array, PyTree, PyTree, PyTree, Beams]:
        """One call of the loop function, with its loop state; see `raw_rnn`."""
        del time
        if rows is None:
            return self._first_call()
        log_probs = self.model.log_probs(output, rows.log_probs.dtype)
        log_probs = log_probs.reshape(*rows.lengths.shape, log_probs.shape[-1])
        end_id = self.model.end_id
        beams, _, parents, ids = extend(rows, log_probs, end_id, self._scores)
        own = jnp.broadcast_to(jnp.arange(self.width, dtype=jnp.int32), parents.shape)
        # Relative, so that the zeros that `raw_rnn` emits for finished rows move none.
        emit = ids.reshape(-1), (parents - own).reshape(-1)
        state = reordered(state, parents)
        inputs = self.model.inputs(emit[0])
        return self._finished(beams), inputs, state, emit, beams

    def _first_call(self) -> tuple[Array, PyTree, PyTree, PyTree, Beams]:
        model = self.model
        shape = (model.batch_size // self.width, self.width)
        inputs = model.inputs(model.start_ids)
        # All beams start equal, and would stay equal if more than one were alive.
        start_ids = model.start_ids.reshape(shape)
        fill = lambda value, dtype: jnp.full_like(start_ids, value, dtype)
        first = jnp.arange(self.width, dtype=jnp.int32) == 0
        log_probs = fill(-jnp.inf, model.score_dtype(inputs))
        log_probs = jnp.where(first, jnp.zeros_like(log_probs), log_probs)
        beams = Beams(log_probs, fill(0, jnp.int32), fill(False, bool))
        emit = jnp.int32(0), jnp.int32(0)
        return self._finished(beams), inputs, model.initial_state, emit, beams

    def _finished(self, beams: Beams) -> Array:
        """One flag for all beams of an example, as beams change places."""
        over = beams.finished | jnp.isneginf(beams.log_probs)
        return repeated(jnp.all(over, axis=1), self.width)

    def _scores(self, log_probs: Array, lengths: Array) -> Array:
        return penalized(log_probs, lengths, self.length_penalty)

    def decoded(self, results: tuple[PyTree, PyTree, Beams], max_time: int) -> Decoded:
        """The sequences from the results of `raw_rnn` with that `max_time`.

        Raises:
            ValueError: If there were more steps.
        """
        emit_ta, _, beams = results
        shape = (max_time, *beams.lengths.shape)
        stacked = [to_time(ta.stack(), max_time).reshape(shape) for ta in emit_ta]
        ids = jnp.moveaxis(trace_back(*stacked), 0, -1)
        scores = self._scores(beams.log_probs, beams.lengths)
        lengths = jnp.where(jnp.isneginf(scores), 0, beams.lengths)
        return Decoded(end_beyond(lengths, ids, self.model.end_id), scores, lengths)


def extend(
    beams: Beams,
    log_probs: Array,
    end_id: ArrayLike,
    score: Callable[[Array, Array], Array],
    *,
    counts_end: bool = True,
    impossible: float = -jnp.inf,
) -> tuple[Beams, Array, Array, Array]:
    """The best beams with one more id, their scores, their parents, and the ids.

    A finished beam continues only with the end id, at no cost.

    Args:
        beams: The beams so far.
        log_probs: `[batch, beam, vocab]`, of the next id of each beam.
        end_id: The id that ends a beam.
        score: `score(log_probs, lengths)`, by which they are compared: `[batch, beam,
            vocab]` for log-probabilities of that shape and lengths that broadcast.
        counts_end: Whether the length that `score` gets counts an end id that is chosen
            now. The lengths of the beams count it in any case.
        impossible: The log-probability of another id after the end.

    Returns:
        `(beams, scores, parents, ids)`, all `[batch, beam]`, the best first.
    """
    batch, width, vocab = log_probs.shape
    is_end = jnp.arange(vocab, dtype=jnp.int32) == end_id
    ended = jnp.where(is_end, 0.0, impossible).astype(log_probs.dtype)
    ended = jnp.broadcast_to(ended, log_probs.shape)
    alive = ~beams.finished
    total = beams.log_probs[..., None] + jnp.where(alive[..., None], log_probs, ended)
    lengths = beams.lengths + alive.astype(jnp.int32)
    counted = lengths[..., None]
    if not counts_end:
        counted = counted - (alive[..., None] & is_end[None, None]).astype(jnp.int32)
    flat = lambda x: x.reshape(batch, width * vocab)
    scores = flat(score(total, counted))
    _, chosen = jax.lax.top_k(jax.lax.stop_gradient(scores), width)
    parents, ids = chosen // vocab, chosen % vocab
    finished = pick(beams.finished, parents) | (ids == end_id)
    best = Beams(pick(flat(total), chosen), pick(lengths, parents), finished)
    return best, pick(scores, chosen), parents, ids


def penalized(log_probs: Array, lengths: Array, length_penalty: ArrayLike) -> Array:
    """Log-probabilities with the length penalty, -inf without a sequence."""
    penalty = jnp.asarray(length_penalty, log_probs.dtype)
    factor = ((5 + lengths.astype(log_probs.dtype)) / 6) ** penalty
    exists = ~jnp.isneginf(log_probs)
    # Infinity is not divided: the derivative with respect to the penalty would be
    # infinite.
    return jnp.where(exists, jnp.where(exists, log_probs, 0) / factor, -jnp.inf)


def _make(model: Model, beam_width: Any, length_penalty: Any) -> BeamLoop:
    caller = model.caller
    width = as_width(caller, beam_width)
    fix = "0 is for none."
    penalty = as_number(caller, "length_penalty", length_penalty, FINITE, fix)
    return BeamLoop(tile_model(model, width), width, penalty)


def as_width(caller: str, beam_width: Any, name: str = "beam_width") -> int:
    """The number of beams, checked.

    Raises:
        TypeError: If it is not an int.
        ValueError: If it is out of range.
    """
    fix = "With one it is greedy."
    return as_int(caller, name, beam_width, 1, fix, MAX_WIDTH)


def pick(values: Array, places: Array) -> Array:
    """The values of each row at those indices of the second axis."""
    return jnp.take_along_axis(values, places, axis=1)


@jax.jit
def trace_back(ids: Array, offsets: Array) -> Array:
    """The ids of each final beam, `[time, batch, beam]`."""

    def back(places: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        ids, offsets = step
        return places + pick(offsets, places), pick(ids, places)

    own = jnp.arange(ids.shape[-1], dtype=jnp.int32)
    # Computed from the offsets: within shard_map it varies over the same axes.
    zeros = jnp.sum(jnp.zeros_like(offsets), axis=0, dtype=jnp.int32)
    last = zeros + own[None]
    return jax.lax.scan(back, last, (ids, offsets), reverse=True)[1]
