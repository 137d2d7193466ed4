"""Greedy decoding, and the loop function that greedy decoding and sampling share."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from .._base.typing import Array, ArrayLike, PyTree, RNNCellLike
from ._model import Decoded, Embed, Loop, Model, Project, end_beyond, run, to_time


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
        """Runs one call of the loop function, given its loop state; see `raw_rnn`."""
        if rows is None:
            return self._first_call()
        scores, lengths, finished = rows
        log_probs = self.model.log_probs(output, scores.dtype)
        ids = self.choose(log_probs, time - 1)
        gain = jnp.take_along_axis(log_probs, ids[:, None], axis=1)[:, 0]
        # `raw_rnn` does not mask the loop state, so keep finished rows unchanged here.
        scores = jnp.where(finished, scores, scores + gain)
        lengths = jnp.where(finished, lengths, lengths + 1)
        ids = jnp.where(finished, self.model.end_id, ids)
        finished = finished | (ids == self.model.end_id)
        rows = Rows(scores, lengths, finished)
        return finished, self.model.inputs(ids), state, ids, rows

    def _first_call(self) -> tuple[Array, PyTree, PyTree, PyTree, Rows]:
        model = self.model
        inputs = model.inputs(model.start_ids)
        dtypes = model.score_dtype(inputs), jnp.int32, bool
        rows = Rows(*(jnp.zeros_like(model.start_ids, dtype) for dtype in dtypes))
        return rows.finished, inputs, model.initial_state, jnp.int32(0), rows

    def decoded(self, results: tuple[PyTree, PyTree, Rows], max_time: int) -> Decoded:
        """Builds the `Decoded` from the results of `raw_rnn` with this `max_time`.

        Raises:
            ValueError: If `raw_rnn` ran more than `max_time` steps.
        """
        emit_ta, _, rows = results
        ids = to_time(emit_ta.stack(), max_time).T
        ids = end_beyond(rows.lengths, ids, self.model.end_id)
        return Decoded(ids, rows.scores, rows.lengths)


def greedy_loop(
    embed: Embed,
    project: Project,
    initial_state: PyTree,
    start_ids: ArrayLike,
    end_id: int,
) -> RowLoop:
    """A loop function for `raw_rnn` that extends each row by the most likely id.

    A row finishes when its new id is `end_id`. The loop emits the ids, int32 `[batch]`,
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
    rows are finished. Scores are differentiable with respect to the arrays in `embed`,
    `project`, the cell and the initial state, with the ids held constant.

    Args:
        cell: A bound cell, or any object that implements the RNNCell protocol.
        embed: `embed(ids)`, which returns the cell's inputs for int32 ids `[batch]`: a
            nest of arrays `[batch, ...]`. Finished rows read the inputs for `end_id`.
        project: `project(output)`, which returns the logits `[batch, vocab]` for the
            cell's output.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or a scalar.
        start_ids: The ids for the first step, integers `[batch]` below 2**31.
        end_id: The id that ends a row, an int.
        max_time: The maximum number of ids in a row, an int.

    Returns:
        `Decoded`: ids `[batch, max_time]`, scores `[batch]`, lengths `[batch]`. Scores
        are float32, or float64 if the state or the inputs contain float64.

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
