"""TensorFlow's `BeamSearchDecoder`, which keeps the best sequences of each example."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._base.math import concrete_or_none
from .._base.trees import serializable
from .._base.typing import Array, ArrayLike, PyTree, RNNCellLike
from .._run.arguments import check_rows_of_state
from . import _beams, _ids
from ._beam_search import BeamSearch, BeamSearchDecoderOutput


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

    predicted_ids: Array
    beam_search_decoder_output: BeamSearchDecoderOutput


class BeamSearchDecoder(BeamSearch):
    """Beam search, which extends the `beam_width` best sequences of each row.

    The score of a sequence is its log-probability divided by
    `((5 + length) / 6) ** length_penalty_weight`. As in TensorFlow, the length includes
    the end token only in the steps after the step that ends the sequence. With a
    coverage penalty, the score of a finished sequence is increased by
    `coverage_penalty_weight * sum(log(min(coverage, 1)))`, where coverage is the sum of
    the alignments of all steps.

    `jaxrnn.decode.beam_search` runs the same search without a coverage penalty, and
    returns a `Decoded`, whose lengths always include the end token.

    Differences from TensorFlow:

    - Lengths are int32. Scores and penalties are float32, or float64 if the state or
      the inputs contain float64.
    - The penalties may reorder the beams of a row after all of them have finished. In
      this case, `predicted_ids` follow the final order, like the scores. TensorFlow
      keeps the earlier order.
    - A beam whose logits are all -inf has the score -inf instead of NaN.

    Args:
        cell: A bound cell, or any object that implements the RNNCell protocol. The cell
            runs on `batch * beam` rows. A coverage penalty requires that the state, or
            an entry of the state if it is a tuple, has an attribute `alignments`: an
            array `[batch * beam, memory_time]` or a tuple of such arrays. The state of
            an `AttentionWrapper` has this attribute.
        embedding: Maps ids to inputs: a table `[vocab, ...]`, or a function of int32
            ids `[batch, beam]`.
        start_tokens: Integers `[batch]`, the ids for the first step.
        end_token: The id that ends a sequence, an integer, which may be traced.
        initial_state: The cell's initial state for `batch * beam` rows, created by
            `tile_batch` or by the cell's `zero_state`. Scalar leaves apply to all rows.
        beam_width: The number of beams, an int, at most 65,536.
        output_layer: A function of the cell's outputs `[batch, beam, ...]` that returns
            logits `[batch, beam, vocab]`. Omit this function if the outputs
            are logits.
        length_penalty_weight: The exponent of the length penalty, a number or a scalar
            array, which may be traced. With 0, there is no penalty.
        coverage_penalty_weight: The factor of the coverage penalty, a number or a
            scalar array, which may be traced. With 0, there is no penalty.
        reorder_tensor_arrays: Whether TensorArrays in the final state, with elements
            `[batch * beam, ...]`, become arrays `[time, batch * beam, ...]` that hold
            the values of each beam and its earlier parents.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `start_tokens` is not a vector, `end_token` is not a scalar, a
            number is out of range, or a leaf of the state does not have `batch * beam`
            rows.
        ValueError: If there is a coverage penalty, but the state has no `alignments`.
        ValueError: In a step, if there are more logits than rows in the table.

    Source: `tf.contrib.seq2seq.BeamSearchDecoder`; arXiv:1609.08144.
    """

    def __init__(
        self,
        cell: RNNCellLike,
        embedding: _ids.Embedding,
        start_tokens: ArrayLike,
        end_token: ArrayLike,
        initial_state: PyTree,
        beam_width: int,
        output_layer: Callable[[PyTree], Array] | None = None,
        length_penalty_weight: ArrayLike = 0.0,
        coverage_penalty_weight: ArrayLike = 0.0,
        reorder_tensor_arrays: bool = True,
    ) -> None:
        width = _beams.as_num_beams("beam_width", beam_width)
        ids = _ids.as_start_ids("start_tokens", start_tokens)
        fix = _beams.NO_PENALTY
        weight = _ids.as_number("length_penalty_weight", length_penalty_weight, fix)
        coverage = coverage_penalty_weight
        _ids.as_number("coverage_penalty_weight", coverage, fix)
        known = concrete_or_none(coverage)
        self._reorders = reorder_tensor_arrays

        def score(log_probs: Array, lengths: Array, ends: Array) -> Array:
            lengths = lengths - ends.astype(jnp.int32)
            return _beams.penalized(log_probs, lengths, weight, "gnmt")

        embed = _ids.as_embed(embedding)
        eos_id = _ids.as_eos_id("end_token", end_token)
        given = cell, embed, ids, eos_id, initial_state, width, output_layer, score
        super().__init__(*given, None if known is not None and known == 0 else coverage)
        rows = self._start_ids.size
        why = f"for {width} beams of each of {len(ids)} rows"
        fix = f"Apply `tile_batch` to a state with batch size {len(ids)}."
        check_rows_of_state(self._initial_state, rows, why, fix)

    _impossible = property(lambda self: float(jnp.finfo(self._dtype).min))
    # Each step reorders the beams, so earlier `finished` flags belong to other beams.
    tracks_own_finished = property(lambda self: True)

    def finalize(
        self, outputs: PyTree, final_state: PyTree, sequence_lengths: Array
    ) -> tuple[PyTree, PyTree]:
        """Traces the ids of each beam, and reorders TensorArrays in the state."""
        parents = outputs.parent_ids
        # Trace all beams back from the last step, because finished beams may be
        # reordered.
        steps = jnp.max(sequence_lengths, axis=1, initial=0)
        steps = jnp.full_like(steps, jnp.max(steps, initial=0))
        sequences = gather_tree(outputs.predicted_ids, parents, steps, self._eos_id)

        def reordered(leaf: PyTree) -> PyTree:
            """Converts a TensorArray to an array of each final beam's values."""
            shape = tuple(getattr(leaf, "element_shape", None) or ())
            rows = self._start_ids.shape
            if shape[:1] != (rows[0] * rows[1],) and shape[:2] != rows:
                return leaf
            lengths = final_state.lengths
            return gather_tree_from_array(leaf.stack(), parents, steps, lengths)

        if self._reorders:
            state = final_state.cell_state
            state = jax.tree.map(reordered, state, is_leaf=_beams.is_shared)
            final_state = final_state._replace(cell_state=state)
        return FinalBeamSearchDecoderOutput(sequences, outputs), final_state


def tile_batch(t: PyTree, multiplier: int, name: str | None = None) -> PyTree:
    """Repeats each row `multiplier` times; the copies of a row are adjacent.

    Apply `tile_batch` to the initial state of a `BeamSearchDecoder`. The memory in the
    state of an `AttentionWrapper` is not repeated, because all beams of a row share it.

    Args:
        t: A nest of arrays `[batch, ...]`. Scalars stay unchanged; TensorFlow raises an
            error. TensorArrays must be empty. Elements that are written later must have
            `batch * multiplier` rows.
        multiplier: The number of beams, an int, at most 65,536.
        name: Accepted for compatibility with TensorFlow.

    Returns:
        The nest, each leaf `[batch * multiplier, ...]`.

    Raises:
        TypeError: If a leaf is not an array, or `multiplier` is not an int.
        ValueError: If a TensorArray is not empty, or `multiplier` is out of range.

    Source: `tf.contrib.seq2seq.tile_batch`.
    """
    return _beams.tile("t", t, _beams.as_num_beams("multiplier", multiplier))


def gather_tree(
    step_ids: ArrayLike,
    parent_ids: ArrayLike,
    max_sequence_lengths: ArrayLike,
    end_token: ArrayLike,
) -> Array:
    """Traces each final beam back through its parents and returns the ids on the way.

    Args:
        step_ids: Integers `[time, batch, beam]`, the id of each beam at each step.
        parent_ids: Integers `[time, batch, beam]` in `[0, beam)`: for each beam, the
            index of its parent beam in the previous step. On CPUs, TensorFlow raises an
            error for other values.
        max_sequence_lengths: Integers `[batch]`, the length of each row's longest beam.
        end_token: The id that ends a sequence.

    Returns:
        The ids, int32 `[time, batch, beam]`, with `end_token` beyond the lengths and
        after the first `end_token` of a path.

    Raises:
        TypeError: If an argument does not hold integers.
        ValueError: If the shapes of the arguments do not match.

    Source: `tf.contrib.seq2seq.gather_tree`.
    """
    what = "integers [time, batch, beam]"
    ids = _ids.as_ids("step_ids", step_ids, what, (None, None, None))
    parents = _ids.as_ids("parent_ids", parent_ids, what, ids.shape)
    name = "max_sequence_lengths"
    rows = ids.shape[1:2]
    lengths = _ids.as_ids(name, max_sequence_lengths, "integers [batch]", rows)
    token = _ids.as_eos_id("end_token", end_token)
    return _beams.ids_along_paths(ids, parents, lengths, token)


def gather_tree_from_array(
    t: Array, parent_ids: Array, max_sequence_lengths: Array, lengths: Array
) -> Array:
    """Traces each final beam back through its parents and returns the written values.

    A step writes values in the order of the beams before the step. TensorFlow reads
    them in the order after the step, and therefore returns values of other beams.

    Args:
        t: `[time, batch * beam, ...]` or `[time, batch, beam, ...]`.
        parent_ids: See `gather_tree`.
        max_sequence_lengths: See `gather_tree`.
        lengths: `[batch, beam]`, the lengths of the final beams. Values past a beam's
            length are not reordered.
    """
    shape = parent_ids.shape
    time = shape[0]
    # Under jit, the capacity of a TensorArray may differ from the number of steps.
    rows = _beams.to_time(t[:time], time)
    steps, own = _beams.places_of(shape)
    inside = steps < max_sequence_lengths[None, :, None]
    places = _beams.along_paths(parent_ids, parent_ids, inside)
    places = jnp.where(steps < lengths[None], places, own)
    # JAX cannot infer an axis of size -1 if the array is empty.
    split = rows.reshape(*shape, rows.size // max(1, parent_ids.size))
    return jnp.take_along_axis(split, places[..., None], axis=2).reshape(rows.shape)
