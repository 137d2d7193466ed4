"""The loop function of greedy decoding and of sampling: one id for each row."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from .._base.typing import Array, PyTree
from ._decoded import Decoded, end_beyond, to_time
from ._model import Model


class Rows(NamedTuple):
    """The loop state: each row so far.

    Attributes:
        scores: `[batch]`, the sum of the log-probabilities of its ids.
        lengths: int32 `[batch]`, the number of its ids.
        finished: bool `[batch]`, whether its last id is the end id.
    """

    scores: Array
    lengths: Array
    finished: Array


@dataclasses.dataclass(frozen=True, eq=False)
class RowLoop:
    """A loop function that continues each row with a chosen id.

    It emits the ids, int32 `[batch]`; its loop state is `Rows`.

    Attributes:
        model: The arguments that all decoders share.
        choose: `choose(log_probs [batch, vocab], t) -> ids`, int32 `[batch]`, the ids
            at position t.
    """

    model: Model
    choose: Callable[[Array, Array], Array]

    def __call__(
        self, time: Array, output: PyTree, state: PyTree, loop_state: Rows | None
    ) -> tuple[Array, PyTree, PyTree, PyTree, Rows]:
        """One call of the loop function; see `raw_rnn`."""
        if loop_state is None:
            return self._first_call()
        scores, lengths, finished = loop_state
        log_probs = self.model.log_probs(output, scores.dtype)
        ids = self.choose(log_probs, time - 1)
        gain = jnp.take_along_axis(log_probs, ids[:, None], axis=1)[:, 0]
        # `raw_rnn` does not mask loop states.
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
        """The sequences from the results of `raw_rnn` with that `max_time`.

        Raises:
            ValueError: If there were more steps.
        """
        emit_ta, _, rows = results
        ids = to_time(emit_ta.stack(), max_time).T
        ids = end_beyond(rows.lengths, ids, self.model.end_id)
        return Decoded(ids, rows.scores, rows.lengths)
