"""Greedy decoding and scoring, by a loop that extends each row by one id per step."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from .._base.arguments import INT32_MAX
from .._base.errors import counted
from .._base.typing import Array, ArrayLike, PyTree, RNNCellLike
from . import _model
from ._beam import run_beams, tile_model
from ._model import Decoded, Embed, Loop, Model, Project, run


class Rows(NamedTuple):
    """The loop state, with one entry per row.

    Attributes:
        scores: The sum of the log-probabilities of each row's ids, `[batch]`.
        lengths: The number of ids in each row, int32 `[batch]`.
        finished: Whether each row ends with the end id, bool `[batch]`.
    """

    scores: Array
    lengths: Array
    finished: Array


@dataclasses.dataclass(frozen=True, eq=False)
class RowLoop(Loop):
    """A loop function that extends each row by one id, which `choose` selects.

    The loop emits the ids, int32 `[batch]`. Its loop state is `Rows`.

    Attributes:
        choose: `choose(log_probs, t)`, which returns the ids at position t, int32
            `[batch]`, for log-probabilities `[batch, vocab]`.
    """

    choose: Callable[[Array, Array], Array]

    def __call__(
        self, time: Array, output: PyTree, state: PyTree, rows: Rows | None
    ) -> tuple[Array, PyTree, PyTree, PyTree, Rows]:
        """The loop function, with `rows` as its loop state; see `raw_rnn`."""
        if rows is None:
            return self._first_call()
        scores, lengths, finished = rows
        log_probs = self.model.log_probs(output, scores.dtype)
        ids = self.choose(log_probs, time - 1)
        ids = jnp.where(finished, self.model.end_id, ids)
        gain = jnp.take_along_axis(log_probs, ids[:, None], axis=1)[:, 0]
        # `raw_rnn` does not mask the loop state, so keep the entries of finished rows
        # unchanged here.
        scores = jnp.where(finished, scores, scores + gain)
        lengths = jnp.where(finished, lengths, lengths + 1)
        # A row in which no id is possible has no continuation.
        is_dead_end = jnp.all(_model.is_minus_infinity(log_probs), axis=1)
        finished = finished | (ids == self.model.end_id) | is_dead_end
        rows = Rows(scores, lengths, finished)
        return finished, self.model.inputs(ids), state, ids, rows

    def _first_call(self) -> tuple[Array, PyTree, PyTree, PyTree, Rows]:
        model = self.model
        inputs = model.inputs(model.start_ids)
        rows = Rows(
            scores=jnp.zeros_like(model.start_ids, model.score_dtype(inputs)),
            lengths=jnp.zeros_like(model.start_ids, jnp.int32),
            finished=jnp.zeros_like(model.start_ids, bool),
        )
        return rows.finished, inputs, model.initial_state, jnp.int32(0), rows

    def decoded(self, results: tuple[PyTree, PyTree, Rows], max_time: int) -> Decoded:
        """Builds the `Decoded` from the results of `raw_rnn` with this `max_time`.

        Raises:
            ValueError: If `raw_rnn` ran more than `max_time` steps.
        """
        emit_ta, _, rows = results
        ids = _model.to_time(emit_ta.stack(), max_time).T
        lengths = jnp.where(_model.is_minus_infinity(rows.scores), 0, rows.lengths)
        ids = _model.end_beyond(lengths, ids, self.model.end_id)
        return Decoded(ids, rows.scores, lengths)


def greedy_loop(
    embed: Embed,
    project: Project,
    initial_state: PyTree,
    start_ids: ArrayLike,
    end_id: int,
) -> RowLoop:
    """A loop function for `raw_rnn` that extends each row by the most likely id.

    A row finishes when its new id is `end_id`, or when no id is possible because all of
    its logits are -inf. The loop emits the ids, int32 `[batch]`,
    with 0 for rows that finished in an earlier step. Its loop state is a named tuple of
    `scores`, `lengths` and `finished`, each `[batch]`.

    Args:
        embed: As in `greedy`.
        project: As in `greedy`.
        initial_state: As in `greedy`.
        start_ids: As in `greedy`.
        end_id: As in `greedy`.

    Returns:
        `loop_fn`. Its method `decoded(results, max_time)` builds a `Decoded` from the
        results of `raw_rnn(cell, loop_fn, max_time=max_time)`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match; in the loop, if the logits are not
            `[batch, vocab]` or have no entry for `end_id`.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`.
    """
    model = Model(embed, project, initial_state, start_ids, end_id)
    return RowLoop(model, _most_likely)


def greedy(
    cell: RNNCellLike,
    embed: Embed,
    project: Project,
    initial_state: PyTree,
    start_ids: ArrayLike,
    end_id: int,
    max_time: int,
) -> Decoded:
    """Decodes greedily: chooses the most likely id at each step.

    If several ids are equally likely, the lowest id is chosen. The loop ends when all
    rows are finished, at the latest after `max_time` steps. Scores are differentiable
    with respect to the arrays in `embed`, `project`, the cell and the initial state,
    with the ids held constant.

    Args:
        cell: A bound cell, or any object that implements the RNNCell protocol.
        embed: `embed(ids)`, which returns the cell's inputs for int32 ids `[batch]`: a
            nest of arrays `[batch, ...]`. Finished rows read the inputs for `end_id`.
        project: `project(output)`, which returns the logits `[batch, vocab]` for the
            cell's output.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or a scalar.
        start_ids: The ids for the first step, integers `[batch]` below 2**31.
        end_id: The id that ends a row, an int.
        max_time: The maximum number of ids in a row, an int, or symbolic under
            `jax.export`.

    Returns:
        `Decoded`: ids `[batch, max_time]`, scores `[batch]`, lengths `[batch]`. Scores
        are float32, or float64 if the state or the inputs contain float64. A row that
        reaches a step at which all of its logits are -inf has score -inf and length 0.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match, or `end_id` is not in the vocabulary.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn.decode
        >>> cell = jaxrnn.GRUCell(4)
        >>> table = jnp.eye(6, 4, dtype=jnp.float32)  # Six ids.
        >>> params = cell.init(jax.random.key(0), table[:2])
        >>> decoded = jaxrnn.decode.greedy(
        ...     cell.bind(params),
        ...     embed=lambda ids: table[ids],
        ...     project=lambda output: output @ table.T,
        ...     initial_state=cell.zero_state(2, jnp.float32),
        ...     start_ids=jnp.array([1, 2]),
        ...     end_id=0,
        ...     max_time=5,
        ... )
        >>> decoded.ids.shape, decoded.scores.shape, decoded.lengths.shape
        ((2, 5), (2,), (2,))

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`.
    """
    model = Model(embed, project, initial_state, start_ids, end_id)
    return run(cell, RowLoop(model, _most_likely), max_time)


def _most_likely(log_probs: Array, t: Array) -> Array:
    del t
    return jnp.argmax(log_probs, axis=1).astype(jnp.int32)


def score(
    cell: RNNCellLike,
    embed: Embed,
    project: Project,
    initial_state: PyTree,
    start_ids: ArrayLike,
    end_id: int,
    ids: ArrayLike,
) -> Array:
    """The log-probability of each given sequence, up to and including its end id.

    For sequences from `greedy`, `sample`, or `beam_search` without a length penalty,
    the result equals, up to rounding, the `scores` in the `Decoded` that contains the
    sequences. If a sequence has no end id, all of its ids count. Ids after an end id
    have no effect, so you can use `end_id` as padding. Leave out beams with score -inf,
    which `beam_search` could not fill. Such a beam contains only `end_id`, so `score`
    would return the log-probability of the first `end_id`.

    Args:
        cell: A bound cell, or any object that implements the RNNCell protocol.
        embed: `embed(ids)`, which returns the cell's inputs for int32 ids `[batch]`: a
            nest of arrays `[batch, ...]`.
        project: `project(output)`, which returns the logits `[batch, vocab]` for the
            cell's output.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or a scalar.
        start_ids: The ids for the first step, integers `[batch]` below 2**31.
        end_id: The id that ends a row, an int.
        ids: Integers `[batch, time]`, or `[batch, beam, time]` for several sequences
            per row. In the second case, the cell, `embed` and `project` run on
            `batch * beam` rows, as in `beam_search`; apply `tile_beams` to memories
            that these functions read.

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
    model = Model(embed, project, initial_state, start_ids, end_id)
    rows = model.batch_size
    what = "integers [batch, time] or [batch, beam, time]"
    what = f"{what} with {counted(rows, 'row')}"
    given = _model.as_ids("ids", ids, what, (rows, None), (rows, None, None))
    *shape, time = given.shape
    # JAX would count negative ids from the end of the vocabulary. Replace each negative
    # id with an id that is too large, for which `score` returns NaN as documented.
    given = jnp.where(given < 0, INT32_MAX, given).reshape(math.prod(shape), time)

    def choose(log_probs: Array, t: Array) -> Array:
        del log_probs
        return given[:, t]

    if len(shape) == 1:
        return run(cell, RowLoop(model, choose), time).scores
    loop = RowLoop(tile_model(model, shape[1]), choose)
    return run_beams(cell, loop, time).scores.reshape(shape)
