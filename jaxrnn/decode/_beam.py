"""Beam search, which extends several sequences in parallel and keeps the best."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._base.errors import counted, error_note
from .._base.expect import expect
from .._base.inputs import as_arrays
from .._base.trees import is_read_only, is_tensor_array, named_leaves
from .._base.typing import Array, ArrayLike, PyTree, RNNCellLike
from . import _model
from ._model import Decoded, Embed, Loop, Model, Project

# The beams of an example are chosen from width * vocab candidates with int32 indices. A
# larger width would overflow these indices for a vocabulary of 32,768 ids.
MAX_WIDTH = 2**16


def tile_beams(tree: PyTree, beam_width: int) -> PyTree:
    """Repeats each row `beam_width` times, for beam search.

    Apply `tile_beams` to memories that a cell, `embed` or `project` closes over. In
    beam search, all arrays have `batch * beam_width` rows, with the beams of an example
    in adjacent rows. Beam search does not repeat a memory in the state of a
    `jaxrnn.contrib.AttentionWrapper`; the beams of an example share this memory.

    Args:
        tree: A nest of arrays `[batch, ...]`; scalars remain unchanged.
        beam_width: The number of beams, an int, at most 65,536.

    Returns:
        The nest, each leaf `[batch * beam_width, ...]`.

    Raises:
        TypeError: If a leaf is not an array, or `beam_width` is not an int.
        ValueError: If a leaf is a TensorArray, or `beam_width` is out of range.

    Source: `tf.contrib.seq2seq.tile_batch`.
    """
    return tile("tree", tree, as_width(beam_width))


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

    The loop has `batch * beam_width` rows. The beams of an example are in adjacent rows
    and finish together. The loop emits `(ids, offsets)`, each int32 `[batch * beam]`:
    the new id of each beam, and the position of the parent beam relative to the beam's
    own position. The loop state is a named tuple of `log_probs`, `lengths` and
    `finished`, each `[batch, beam]`.

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
        builds a `Decoded` from the results of
        `raw_rnn(cell, loop_fn, max_time=max_time)`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match, `beam_width` is out of range, or the state
            contains a TensorArray; in the loop, if the logits are not
            `[batch * beam, vocab]` or have no entry for `end_id`.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`; arXiv:1609.08144.
    """
    model = Model(embed, project, initial_state, start_ids, end_id)
    return _make_loop(model, beam_width, length_penalty)


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
    """Decodes by beam search: keeps the `beam_width` best sequences of each example.

    The score of a sequence is its log-probability divided by `((5 + length) / 6) **
    length_penalty`. A finished sequence is not extended; its score competes with the
    scores of the other sequences. The loop ends when all beams of all examples are
    finished, at the latest after `max_time` steps.

    Args:
        cell: A bound cell, or any object that implements the RNNCell protocol. It runs
            on `batch * beam` rows; apply `tile_beams` to memories that the cell closes
            over.
        embed: `embed(ids)`, which returns the cell's inputs for int32 ids
            `[batch * beam]`: a nest of arrays with `batch * beam` rows.
        project: `project(output)`, which returns the logits `[batch * beam, vocab]` for
            the cell's output.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or a scalar.
        start_ids: The ids for the first step, integers `[batch]` below 2**31.
        end_id: The id that ends a sequence, an int.
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
    model = Model(embed, project, initial_state, start_ids, end_id)
    loop = _make_loop(model, beam_width, length_penalty)
    return run_beams(cell, loop, max_time)


def _make_loop(model: Model, beam_width: int, length_penalty: ArrayLike) -> "BeamLoop":
    width = as_width(beam_width)
    fix = "For no penalty, pass 0."
    penalty = _model.as_number("length_penalty", length_penalty, _model.FINITE, fix)
    return BeamLoop(tile_model(model, width), width, penalty)


class Beams(NamedTuple):
    """The loop state, with one entry per beam and the best beam first.

    Attributes:
        log_probs: The log-probability of each sequence, `[batch, beam]`; -inf for a
            beam without a sequence.
        lengths: The number of ids in each sequence, int32 `[batch, beam]`.
        finished: Whether each sequence ends with the end id, bool `[batch, beam]`.
    """

    log_probs: Array
    lengths: Array
    finished: Array


@dataclasses.dataclass(frozen=True, eq=False)
class BeamLoop(Loop):
    """A loop function that keeps the best continuations of each example's beams.

    Attributes:
        width: The number of beams.
        length_penalty: The exponent of the length penalty.
    """

    width: int
    length_penalty: ArrayLike

    def __call__(
        self, time: Array, output: PyTree, state: PyTree, rows: Beams | None
    ) -> tuple[Array, PyTree, PyTree, PyTree, Beams]:
        """The loop function, with `rows` as its loop state; see `raw_rnn`."""
        del time
        if rows is None:
            return self._first_call()
        log_probs = self.model.log_probs(output, rows.log_probs.dtype)
        log_probs = log_probs.reshape(*rows.lengths.shape, log_probs.shape[-1])
        beams, _, parents, ids = extend(
            rows, log_probs, self.model.end_id, self._scores
        )
        own = jnp.broadcast_to(jnp.arange(self.width, dtype=jnp.int32), parents.shape)
        # `raw_rnn` emits zeros for finished rows. Because parents are emitted as
        # offsets, a zero leaves a beam in its place.
        offsets = (parents - own).reshape(-1)
        ids = ids.reshape(-1)
        state = reordered(state, parents)
        inputs = self.model.inputs(ids)
        return self._finished(beams), inputs, state, (ids, offsets), beams

    def _first_call(self) -> tuple[Array, PyTree, PyTree, PyTree, Beams]:
        model = self.model
        shape = (model.batch_size // self.width, self.width)
        inputs = model.inputs(model.start_ids)
        # All beams of an example are identical at the start and would remain identical,
        # so only the first beam starts with a probability above zero.
        start_ids = model.start_ids.reshape(shape)
        first = jnp.arange(self.width, dtype=jnp.int32) == 0
        log_probs = jnp.full_like(start_ids, -jnp.inf, model.score_dtype(inputs))
        beams = Beams(
            log_probs=jnp.where(first, jnp.zeros_like(log_probs), log_probs),
            lengths=jnp.zeros_like(start_ids, jnp.int32),
            finished=jnp.zeros_like(start_ids, bool),
        )
        emit = (jnp.int32(0), jnp.int32(0))
        return self._finished(beams), inputs, model.initial_state, emit, beams

    def _finished(self, beams: Beams) -> Array:
        """Whether all beams of an example are finished, with one entry for each beam.

        The order of an example's beams changes between steps, so all beams of an
        example share one flag.
        """
        over = beams.finished | _model.is_minus_infinity(beams.log_probs)
        return repeated(jnp.all(over, axis=1), self.width)

    def _scores(self, log_probs: Array, lengths: Array) -> Array:
        return penalized(log_probs, lengths, self.length_penalty)

    def decoded(self, results: tuple[PyTree, PyTree, Beams], max_time: int) -> Decoded:
        """Builds the `Decoded` from the results of `raw_rnn` with this `max_time`.

        Raises:
            ValueError: If `raw_rnn` ran more than `max_time` steps.
        """
        emit_ta, _, beams = results
        shape = (max_time, *beams.lengths.shape)
        ids, offsets = (
            _model.to_time(ta.stack(), max_time).reshape(shape) for ta in emit_ta
        )
        ids = jnp.moveaxis(trace_back(ids, offsets), 0, -1)
        scores = self._scores(beams.log_probs, beams.lengths)
        lengths = jnp.where(_model.is_minus_infinity(scores), 0, beams.lengths)
        return Decoded(
            _model.end_beyond(lengths, ids, self.model.end_id), scores, lengths
        )


def as_width(beam_width: int, name: str = "beam_width") -> int:
    """Checks the number of beams and returns it.

    Raises:
        TypeError: If the number is not an int.
        ValueError: If the number is out of range.
    """
    return _model.as_int(name, beam_width, 1, fix="", most=MAX_WIDTH)


def tile(name: str, tree: PyTree, width: int) -> PyTree:
    """Repeats each row of the tree `width` times.

    Raises:
        TypeError: If a leaf is not an array.
        ValueError: If a leaf is a TensorArray.
    """
    for leaf_name, leaf in named_leaves(name, tree, is_tensor_array):
        must = "be an array whose rows can be repeated"
        fix = "Store the contents in arrays [batch, ...]."
        expect(not is_tensor_array(leaf), leaf_name, must, leaf, fix)
    return map_rows(lambda x: repeated(x, width), as_arrays(name, tree))


def tile_model(model: Model, width: int) -> Model:
    """Repeats each row of the model's initial state and start ids `width` times.

    Raises:
        ValueError: If the state contains a TensorArray.
    """
    state = tile("initial_state", model.initial_state, width)
    ids = repeated(model.start_ids, width)
    return dataclasses.replace(model, initial_state=state, start_ids=ids)


def run_beams(cell: RNNCellLike, loop: Loop, max_time: int) -> Decoded:
    """Calls `run` for a tiled model; adds a note about the row count to any error."""
    rows = counted(loop.model.batch_size, "row")
    with error_note(
        f"The cell, `embed` and `project` run on {rows} (batch size times number of "
        "beams). Apply `jaxrnn.decode.tile_beams` to memories that the cell and these "
        "functions close over."
    ):
        return _model.run(cell, loop, max_time)


def is_shared(x: object) -> bool:
    """Whether `x` is a TensorArray or a read-only part, which all rows share."""
    return is_read_only(x) or is_tensor_array(x)


def map_rows(fn: Callable[[Array], Array], tree: PyTree) -> PyTree:
    """Applies `fn` to each leaf that has a batch axis.

    Scalars, TensorArrays and read-only parts remain unchanged.
    """

    def of_rows(leaf: PyTree) -> PyTree:
        return leaf if is_shared(leaf) or not leaf.ndim else fn(leaf)

    return jax.tree.map(of_rows, tree, is_leaf=is_shared)


def repeated(x: Array, width: int) -> Array:
    """Repeats each row `width` times; unlike `jnp.repeat`, this works on any mesh."""
    rows, *rest = x.shape
    wide = jnp.broadcast_to(jnp.expand_dims(x, 1), (rows, width, *rest))
    return wide.reshape(rows * width, *rest)


def reordered(state: PyTree, parents: Array) -> PyTree:
    """Replaces the state of each beam with the state of its parent beam."""
    batch, width = parents.shape

    def reorder(x: Array) -> Array:
        # Index within each example, so that no device reads rows from another device.
        beams = x.reshape(batch, width, *x.shape[1:])
        return jax.vmap(lambda x, places: x[places])(beams, parents).reshape(x.shape)

    return map_rows(reorder, state)


def extend(
    beams: Beams,
    log_probs: Array,
    end_id: ArrayLike,
    score: Callable[[Array, Array], Array],
    *,
    counts_end: bool = True,
    impossible: float = -jnp.inf,
) -> tuple[Beams, Array, Array, Array]:
    """Extends each beam by one id and keeps the best beams.

    A finished beam continues only with the end id, which leaves its log-probability
    unchanged.

    Args:
        beams: The beams before the step.
        log_probs: The log-probabilities of the next id, `[batch, beam, vocab]`.
        end_id: The id that ends a beam.
        score: `score(log_probs, lengths)`, which returns the scores of the candidates.
            Scores and log-probabilities are `[batch, beam, vocab]`, and the lengths
            broadcast to this shape.
        counts_end: Whether the lengths passed to `score` count an end id that is chosen
            in this step. The lengths in the returned beams always count the end id.
        impossible: The log-probability of every id except `end_id` in a finished beam.

    Returns:
        `(beams, scores, parents, ids)`, with the best beam first. Each leaf is
        `[batch, beam]`.
    """
    batch, width, vocab = log_probs.shape
    candidates = (batch, width * vocab)
    is_end = jnp.arange(vocab, dtype=jnp.int32) == end_id
    ended = jnp.where(is_end, 0.0, impossible).astype(log_probs.dtype)
    ended = jnp.broadcast_to(ended, log_probs.shape)
    alive = ~beams.finished
    total = beams.log_probs[..., None] + jnp.where(alive[..., None], log_probs, ended)
    lengths = beams.lengths + alive.astype(jnp.int32)
    scored = lengths[..., None]
    if not counts_end:
        scored = scored - (alive[..., None] & is_end[None, None]).astype(jnp.int32)
    scores = score(total, scored).reshape(candidates)
    _, chosen = jax.lax.top_k(jax.lax.stop_gradient(scores), width)
    parents = chosen // vocab
    ids = chosen % vocab
    best = Beams(
        log_probs=pick(total.reshape(candidates), chosen),
        lengths=pick(lengths, parents),
        finished=pick(beams.finished, parents) | (ids == end_id),
    )
    return best, pick(scores, chosen), parents, ids


def penalized(log_probs: Array, lengths: Array, length_penalty: ArrayLike) -> Array:
    """Log-probabilities with the length penalty; -inf for a beam without a sequence."""
    penalty = jnp.asarray(length_penalty, log_probs.dtype)
    factor = ((5 + lengths.astype(log_probs.dtype)) / 6) ** penalty
    exists = ~_model.is_minus_infinity(log_probs)
    # Do not divide infinity, because the derivative with respect to the penalty would
    # be NaN or infinite.
    return jnp.where(exists, jnp.where(exists, log_probs, 0) / factor, -jnp.inf)


def pick(values: Array, places: Array) -> Array:
    """Gathers values along the second axis at the indices `places`."""
    return jnp.take_along_axis(values, places, axis=1)


@jax.jit
def trace_back(ids: Array, offsets: Array) -> Array:
    """Traces the ids of each final beam, `[time, batch, beam]`."""

    def back(places: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        ids, offsets = step
        return places + pick(offsets, places), pick(ids, places)

    own = jnp.arange(ids.shape[-1], dtype=jnp.int32)
    # In `shard_map`, zeros that are derived from the offsets vary over the same mesh
    # axes as the offsets.
    zeros = jnp.sum(jnp.zeros_like(offsets), axis=0, dtype=jnp.int32)
    last = zeros + own[None]
    return jax.lax.scan(back, last, (ids, offsets), reverse=True)[1]
