"""The beam search that `decode.beam_search` and `contrib.BeamSearchDecoder` share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._base.errors import error_note, expect
from .._base.trees import TensorShape, serializable
from .._base.typing import Array, ArrayLike, PyTree, RNNCellLike
from .._run.first_step import call_start
from . import _beams, _ids
from ._decoder import CellDecoder


@serializable
class BeamSearchDecoderState(NamedTuple):
    """The state of a `BeamSearchDecoder`: cell states, scores and lengths of beams.

    Attributes:
        cell_state: The cell's state, each leaf `[batch, beam, ...]`.
        log_probs: `[batch, beam]`, the log-probability of each beam.
        finished: bool `[batch, beam]`, whether each beam is finished.
        lengths: int32 `[batch, beam]`, the number of ids, including the end token.
        accumulated_attention_probs: `[batch, beam, memory_time]`, the sum of the
            alignments of all steps, or `()` without a coverage penalty.

    Source: `tf.contrib.seq2seq.BeamSearchDecoderState`.
    """

    cell_state: PyTree
    log_probs: Array
    finished: Array
    lengths: Array
    accumulated_attention_probs: PyTree


@serializable
class BeamSearchDecoderOutput(NamedTuple):
    """The outputs of a step of `BeamSearchDecoder`, each `[batch, beam]`.

    Attributes:
        scores: The scores of the beams, best first.
        predicted_ids: int32, the id of each beam.
        parent_ids: int32; for each beam, the index of its parent beam in the previous
            step.

    Source: `tf.contrib.seq2seq.BeamSearchDecoderOutput`.
    """

    scores: PyTree
    predicted_ids: PyTree
    parent_ids: PyTree


class BeamSearch(CellDecoder):
    """Extends the best beams of each example by one id per step.

    A subclass checks its arguments, defines `_impossible`, and builds its results in
    `finalize`. The cell runs on `batch * beam` rows.

    Args:
        cell: See `BeamSearchDecoder`.
        embed: `embed(ids)` returns the inputs for ids `[batch, beam]`.
        start_ids: The ids for the first step, int32 `[batch]`.
        eos_id: The id that ends a beam, an integer scalar.
        initial_state: The cell's state for `batch * beam` rows.
        num_beams: The number of beams.
        project: Maps the cell's outputs to logits `[batch, beam, vocab]`. If None, the
            cell's outputs are the logits.
        score: See `_beams.extended`.
        coverage_penalty: The factor of the coverage penalty. If None, there is no
            penalty.
    """

    _impossible: Any
    """The log-probability of each id except `eos_id` in a finished beam."""

    def __init__(
        self,
        cell: RNNCellLike,
        embed: _ids.Embed,
        start_ids: Array,
        eos_id: ArrayLike,
        initial_state: PyTree,
        num_beams: int,
        project: _ids.Project | None,
        score: _beams.Score,
        coverage_penalty: ArrayLike | None = None,
    ) -> None:
        super().__init__(cell, initial_state, project)
        shape = (start_ids.shape[0], num_beams)
        self._start_ids = jnp.broadcast_to(start_ids[:, None], shape)
        self._embed = embed
        self._eos_id = eos_id
        self._score = score
        self._coverage_penalty = coverage_penalty
        self._start_inputs = embed(self._start_ids)
        self._dtype = _ids.score_dtype((self._initial_state, self._start_inputs))

    batch_size = property(lambda self: self._start_ids.shape[0])

    @property
    def output_size(self) -> BeamSearchDecoderOutput:
        """The size of each output, `[beam]`."""
        size = TensorShape(self._start_ids.shape[1:])
        return BeamSearchDecoderOutput(size, size, size)

    @property
    def output_dtype(self) -> BeamSearchDecoderOutput:
        """The dtypes of scores and ids."""
        return BeamSearchDecoderOutput(self._dtype, jnp.int32, jnp.int32)

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree, PyTree]:
        """Returns `(finished, inputs, state)` before the first step.

        At first, only beam 0 of each row is active, because equal beams would choose
        the same ids at every step.
        """
        cell_state = self._split(call_start(self._cell, self._initial_state))
        state = BeamSearchDecoderState(
            cell_state,
            *_beams.first_beams(self._start_ids, self._dtype),
            accumulated_attention_probs=(
                () if self._coverage_penalty is None else self._alignments(cell_state)
            ),
        )
        return self._finished(state), self._start_inputs, state

    def step(
        self, time: Array, inputs: PyTree, state: PyTree, name: str | None = None
    ) -> tuple[BeamSearchDecoderOutput, PyTree, PyTree, Array]:
        """Extends the beams of each row by one id and keeps the best beams."""
        with error_note(_beams.ON_BEAMS.format(self._start_ids.size)):
            rows = _beams.merge_beams((inputs, state.cell_state))
            outputs, cell_state = self._run(time, *rows)
            logits = self._project(self._split(outputs))
            logits = _ids.as_logits(logits, self._start_ids.shape, self._embed)
            coverage, penalty = self._covered(state, cell_state)
            beams = _beams.Beams(state.log_probs, state.finished, state.lengths)
            best, scores, parents, ids = _beams.extended(
                beams,
                logits.astype(self._dtype),
                self._eos_id,
                self._impossible,
                lambda *candidates: self._score(*candidates) + penalty,
            )
            next_inputs = self._embed(ids)
        next_state = BeamSearchDecoderState(
            self._split(_beams.reordered(cell_state, parents)),
            *best,
            accumulated_attention_probs=jax.tree.map(
                lambda x: _beams.pick(x, parents[..., None]), coverage
            ),
        )
        emit = BeamSearchDecoderOutput(scores, ids, parents)
        return emit, next_state, next_inputs, self._finished(next_state)

    def _finished(self, state: BeamSearchDecoderState) -> Array:
        """Which beams are finished, `[batch, beam]`. Decoding ends if all are True."""
        return state.finished

    def _covered(
        self, state: BeamSearchDecoderState, cell_state: PyTree
    ) -> tuple[PyTree, ArrayLike]:
        """The coverage after a step, `[batch, beam, memory_time]`, and its penalty."""
        if self._coverage_penalty is None:
            return (), 0
        alive = (~state.finished).astype(self._dtype)[..., None]
        added = self._alignments(self._split(cell_state)) * alive
        coverage = state.accumulated_attention_probs + added
        # Treat an entry that has never received attention as padding.
        covered = jnp.where(coverage == 0, 1, jnp.minimum(coverage, 1))
        sums = jnp.sum(jnp.log(covered), axis=-1, keepdims=True) * (1 - alive)
        return coverage, sums * jnp.asarray(self._coverage_penalty, self._dtype)

    def _alignments(self, cell_state: PyTree) -> Array:
        """The mean alignments of all attentions, `[batch, beam, memory_time]`."""
        parts = [cell_state]
        if isinstance(cell_state, tuple | list):
            parts += cell_state
        found = [part.alignments for part in parts if hasattr(part, "alignments")]
        must = "be 0, because the state of the cell has no attribute `alignments`"
        weight = self._coverage_penalty
        expect(found, "coverage_penalty_weight", must, weight)
        means = [sum(each) / len(each) for each in map(jax.tree.leaves, found)]
        return jnp.asarray(sum(means) / len(means), self._dtype)

    def _split(self, tree: PyTree) -> PyTree:
        return _beams.split_beams(tree, self._start_ids.shape)
