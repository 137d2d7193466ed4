"""`BeamSearchDecoder`: the beam search of `jaxrnn.decode` as a `Decoder`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import RNNCellLike, TensorShape

from ..._base.arguments import as_bool, check_is_cell
from ..._base.cell_keys import cell_at_step
from ..._base.errors import InvalidValue, describe
from ..._base.inputs import as_state, check_rows_of_state
from ..._base.math import concrete_or_none
from ..._base.serialization import serializable
from ..._base.trees import is_tensor_array
from ..._base.typing import Array, ArrayLike, PyTree
from ..._drivers.first_step import call_start
from ...decode import _beam as beam
from ...decode._checks import FINITE, as_number, as_start_ids
from .._fields import check_given_functions
from . import embedding_helpers as embeddings
from .basic_decoder import state_dtype
from .beams import gather_tree, gather_tree_from_array
from .dynamic_decode import Decoder


@serializable
class BeamSearchDecoderState(NamedTuple):
    """The state of a `BeamSearchDecoder`.

    Attributes:
        cell_state: The cell's state, each leaf `[batch, beam, ...]`.
        log_probs: `[batch, beam]`, the log-probability of each beam.
        finished: bool `[batch, beam]`, whether each beam is finished.
        lengths: int32 `[batch, beam]`, the number of ids, including the end token.
        accumulated_attention_probs: `[batch, beam, memory_time]`, the sum of the
            alignments; `()` without a coverage penalty.

    Source: `tf.contrib.seq2seq.BeamSearchDecoderState`.
    """

    cell_state: Any
    log_probs: Any
    finished: Any
    lengths: Any
    accumulated_attention_probs: Any


@serializable
class BeamSearchDecoderOutput(NamedTuple):
    """The outputs of a step of `BeamSearchDecoder`, each `[batch, beam]`.

    Attributes:
        scores: The scores of the beams, best first.
        predicted_ids: int32, the id of each beam.
        parent_ids: int32; for each beam, the index of the beam that it continues from
            the previous step.

    Source: `tf.contrib.seq2seq.BeamSearchDecoderOutput`.
    """

    scores: Any
    predicted_ids: Any
    parent_ids: Any


@serializable
class FinalBeamSearchDecoderOutput(NamedTuple):
    """The outputs that `dynamic_decode` returns for a `BeamSearchDecoder`.

    Attributes:
        predicted_ids: int32 `[batch, time, beam]` (`[time, batch, beam]` if
            `output_time_major`), the sequences, best first, padded with the end token.
        beam_search_decoder_output: The `BeamSearchDecoderOutput` of all steps; each
            array has the same axes as `predicted_ids`.

    Source: `tf.contrib.seq2seq.FinalBeamSearchDecoderOutput`.
    """

    predicted_ids: Any
    beam_search_decoder_output: Any


class BeamSearchDecoder(Decoder):
    """Beam search, which extends the `beam_width` best sequences of each row.

    The score of a sequence is its log-probability divided by
    `((5 + length) / 6) ** length_penalty_weight`. The length excludes the end token in
    the step that ends the sequence, and includes it in later steps. The score of a
    finished sequence also includes
    `coverage_penalty_weight * sum(log(min(coverage, 1)))`, where coverage is the sum of
    the alignments.

    This decoder differs from `jaxrnn.decode.beam_search` in the length used for scores,
    in the coverage penalty and in the results. It differs from TensorFlow's decoder in
    dtypes: lengths are int32, and scores and penalties are float32, or float64 if the
    state is float64. Penalties may reorder the beams of a row after all of them have
    finished. In that case, `predicted_ids` are in the final order, like the scores;
    TensorFlow keeps the earlier order.

    Args:
        cell: A bound cell, or any object that implements the RNNCell protocol. The cell
            runs on `batch * beam` rows. A coverage penalty requires an attribute
            `alignments` of the state or, if the state is a tuple, of one of its
            entries. This attribute must be an array `[batch * beam, memory_time]` or a
            tuple of such arrays, as in the state of an `AttentionWrapper`.
        embedding: Maps ids to inputs: a table `[vocab, ...]`, or a function of int32
            ids `[batch, beam]`.
        start_tokens: Integers `[batch]`, the ids for the first step.
        end_token: The id that ends a sequence, an integer; may be traced.
        initial_state: The cell's initial state for `batch * beam` rows, created by
            `tile_batch` or by the cell's `zero_state`. Scalar leaves apply to all rows.
        beam_width: The number of beams, an int, at most 65,536.
        output_layer: A function of the cell's outputs `[batch, beam, ...]` that returns
            logits `[batch, beam, vocab]`; None if the outputs are logits.
        length_penalty_weight: The exponent of the length penalty, a number or a scalar
            array; may be traced. 0 for no penalty.
        coverage_penalty_weight: The factor of the coverage penalty, a number or a
            scalar array; may be traced. 0 for no penalty.
        reorder_tensor_arrays: Whether to convert TensorArrays in the final state, with
            elements `[batch * beam, ...]`, to arrays `[time, batch * beam, ...]` that
            hold the values along each beam's path.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `start_tokens` is not a vector, `end_token` is not a scalar, a
            number is out of range, or a leaf of the state does not have `batch * beam`
            rows; if there is a coverage penalty and the state has no alignments; in a
            step, if the number of logits exceeds the number of rows in the table.

    Source: `tf.contrib.seq2seq.BeamSearchDecoder`; arXiv:1609.08144.
    """

    def __init__(
        self,
        cell: RNNCellLike,
        embedding: embeddings.Embedding,
        start_tokens: ArrayLike,
        end_token: ArrayLike,
        initial_state: PyTree,
        beam_width: int,
        output_layer: Callable[[PyTree], Array] | None = None,
        length_penalty_weight: ArrayLike = 0.0,
        coverage_penalty_weight: ArrayLike = 0.0,
        reorder_tensor_arrays: bool = True,
    ) -> None:
        check_is_cell("cell", cell)
        check_given_functions(output_layer=output_layer)
        self._cell = cell
        self._output_layer = output_layer or (lambda outputs: outputs)
        self._beam_width = width = beam.as_width(beam_width)
        self._embedding_fn = embeddings.as_embedding(embedding)
        end = embeddings.as_ids("end_token", end_token, (), "a scalar")
        self._end_token = end
        ids = as_start_ids(start_tokens, "start_tokens")
        self._start_tokens = jnp.broadcast_to(ids[:, None], (len(ids), width))
        finite = lambda name, x: as_number(name, x, FINITE, "0 disables it.")
        length, coverage = length_penalty_weight, coverage_penalty_weight
        self._length_penalty = finite("length_penalty_weight", length)
        self._coverage_penalty = finite("coverage_penalty_weight", coverage)
        known = concrete_or_none(coverage_penalty_weight)
        self._has_coverage = known is None or known != 0
        name, fix = "reorder_tensor_arrays", "False returns TensorArrays."
        self._reorders = as_bool(name, reorder_tensor_arrays, fix)
        self._initial_state = self._as_rows(initial_state)
        self._dtype = embeddings.score_dtype(state_dtype(self._initial_state))

    batch_size = property(lambda self: self._start_tokens.shape[0])
    tracks_own_finished = property(lambda self: True)  # Each step reorders beams.

    @property
    def output_size(self) -> BeamSearchDecoderOutput:
        """The output sizes; each output has one number per beam."""
        return BeamSearchDecoderOutput(*[TensorShape([self._beam_width])] * 3)

    @property
    def output_dtype(self) -> BeamSearchDecoderOutput:
        """The dtypes of scores and ids."""
        return BeamSearchDecoderOutput(self._dtype, jnp.int32, jnp.int32)

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree, PyTree]:
        """Starts with one beam per row, because equal beams would stay equal."""
        tokens = self._start_tokens
        fill = lambda value, dtype: jnp.full_like(tokens, value, dtype)
        # A sum is divided like the tokens; a broadcast is not.
        places = jnp.arange(self._beam_width, dtype=jnp.int32)[None]
        first = fill(0, jnp.int32) + places == 0
        log_probs = jnp.where(first, fill(0, self._dtype), fill(-jnp.inf, self._dtype))
        cell_state = self._split(call_start(self._cell, self._initial_state))
        coverage = self._alignments(cell_state) if self._has_coverage else ()
        beams = log_probs, ~first, fill(0, jnp.int32)
        state = BeamSearchDecoderState(cell_state, *beams, coverage)
        return state.finished, self._embedding_fn(tokens), state

    def step(
        self, time: Array, inputs: PyTree, state: PyTree, name: str | None = None
    ) -> tuple[BeamSearchDecoderOutput, PyTree, PyTree, Array]:
        """Extends the beams of each row by one id and keeps the best ones."""
        logits, cell_state = self._run_cell(time, inputs, state.cell_state)
        beams = beam.Beams(state.log_probs, state.lengths, state.finished)
        coverage, penalty = self._covered(self._split(cell_state), state)
        score = lambda p, n: beam.penalized(p, n, self._length_penalty) + penalty
        best, scores, parents, ids = beam.extend(
            beams,
            jax.nn.log_softmax(logits, axis=-1),
            self._end_token,
            score,
            counts_end=False,
            impossible=float(jnp.finfo(self._dtype).min),
        )
        next_state = BeamSearchDecoderState(
            self._split(beam.reordered(cell_state, parents)),
            best.log_probs,
            best.finished,
            best.lengths,
            jax.tree.map(lambda x: beam.pick(x, parents[..., None]), coverage),
        )
        emit = BeamSearchDecoderOutput(scores, ids, parents)
        return emit, next_state, self._embedding_fn(ids), best.finished

    def finalize(
        self, outputs: PyTree, final_state: PyTree, sequence_lengths: Array
    ) -> tuple[PyTree, PyTree]:
        """Builds the sequences with `gather_tree`."""
        ids, parents = outputs.predicted_ids, outputs.parent_ids
        # Paths run to the last step, because even finished beams may be reordered.
        steps = jnp.max(sequence_lengths, axis=1, initial=0)
        steps = jnp.full_like(steps, jnp.max(steps, initial=0))
        sequences = gather_tree(ids, parents, steps, self._end_token)
        if self._reorders:
            lengths, state = final_state.lengths, final_state.cell_state
            sort = lambda leaf: self._sorted(leaf, parents, steps, lengths)
            state = jax.tree.map(sort, state, is_leaf=is_tensor_array)
            final_state = final_state._replace(cell_state=state)
        return FinalBeamSearchDecoderOutput(sequences, outputs), final_state

    def _run_cell(
        self, time: Array, inputs: PyTree, cell_state: PyTree
    ) -> tuple[Array, PyTree]:
        """The logits `[batch, beam, vocab]` and the state `[batch * beam, ...]`."""
        inputs, cell_state = self._merge((inputs, cell_state))
        outputs, cell_state = cell_at_step(self._cell, time)(inputs, cell_state)
        logits = self._output_layer(self._split(outputs))
        rows = self._start_tokens.shape
        shape = getattr(logits, "shape", ())
        if len(shape) != 3 or shape[:2] != rows:
            raise InvalidValue(
                "logits must be one array [batch, beam, vocab] with [batch, "
                f"beam] = {list(rows)}, got {describe(logits)}. Logits are the "
                "output of the cell or of the `output_layer`."
            )
        embeddings.check_has_ids(self._embedding_fn, logits)
        return logits.astype(self._dtype), cell_state

    def _covered(self, cell_state: PyTree, state: BeamSearchDecoderState) -> Any:
        """The coverage after a step, `[batch, beam, memory_time]`, and its penalty.

        Returns `()` and 0 without a penalty.
        """
        if not self._has_coverage:
            return (), 0
        alive = (~state.finished).astype(self._dtype)[..., None]
        added = self._alignments(cell_state) * alive
        coverage = state.accumulated_attention_probs + added
        # An entry that never received attention is padding.
        covered = jnp.where(coverage == 0, 1, jnp.minimum(coverage, 1))
        penalty = jnp.sum(jnp.log(covered), axis=-1, keepdims=True) * (1 - alive)
        return coverage, penalty * jnp.asarray(self._coverage_penalty, self._dtype)

    def _alignments(self, cell_state: Any) -> Array:
        """The mean alignments of all attentions, `[batch, beam, memory_time]`."""
        is_pair = isinstance(cell_state, tuple | list)
        is_nest = is_pair and not hasattr(cell_state, "alignments")
        parts: Any = cell_state if is_nest else [cell_state]
        found = [x.alignments for x in parts if hasattr(x, "alignments")]
        if not found:
            raise InvalidValue(
                "`coverage_penalty_weight` must be 0 for a "
                f"cell without attention, got {describe(self._coverage_penalty)}. The "
                "cell's state has no `alignments`."
            )
        mean = lambda arrays: sum(arrays[1:], arrays[0]) / len(arrays)
        means = [mean(jax.tree.leaves(alignments)) for alignments in found]
        return jnp.asarray(mean(means), self._dtype)

    def _as_rows(self, state: PyTree) -> PyTree:
        """Checks that the initial state has a row for each beam; returns its arrays."""
        state = as_state("initial_state", state)
        rows, width = self.batch_size * self._beam_width, self._beam_width
        must = f"have {rows} rows, {width} for each entry of `start_tokens`"
        fix = "Apply `tile_batch` to the state, but not to `start_tokens`."
        check_rows_of_state(state, rows, must, fix)
        return state

    def _split(self, tree: PyTree) -> PyTree:
        """Reshapes leaves `[batch * beam, ...]` to `[batch, beam, ...]`."""
        rows = self._start_tokens.shape
        return beam.map_rows(lambda x: x.reshape(*rows, *x.shape[1:]), tree)

    def _merge(self, tree: PyTree) -> PyTree:
        """Reshapes leaves `[batch, beam, ...]` to `[batch * beam, ...]`."""
        return beam.map_rows(lambda x: jax.lax.collapse(x, 0, 2), tree)

    def _sorted(self, leaf: Any, *paths: Array) -> Any:
        """Converts a TensorArray to an array in which each beam has its own entries."""
        rows, shape = self._start_tokens.shape, getattr(leaf, "element_shape", None)
        shape = tuple(shape or ())
        if shape[:1] != (rows[0] * rows[1],) and shape[:2] != rows:
            return leaf
        return gather_tree_from_array(leaf.stack(), *paths)
