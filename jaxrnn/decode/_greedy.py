"""Greedy decoding: always the most likely id."""

import jax.numpy as jnp

from .._base.typing import Array, ArrayLike, PyTree, RNNCellLike
from ._decoded import Decoded, run
from ._model import Embed, Model, Project
from ._rows import RowLoop


def greedy_loop(
    embed: Embed,
    project: Project,
    initial_state: PyTree,
    start_ids: ArrayLike,
    end_id: int,
) -> RowLoop:
    """A loop function for `raw_rnn` that continues with the most likely id.

    A row is finished when its id is `end_id`. The loop emits the ids, int32 `[batch]`,
    0 in rows that were finished before; its loop state is a named tuple of `scores`,
    `lengths` and `finished`, each `[batch]`.

    Args:
        embed: As in `greedy`.
        project: As in `greedy`.
        initial_state: As in `greedy`.
        start_ids: As in `greedy`.
        end_id: As in `greedy`.

    Returns:
        `loop_fn`. Its method `decoded(results, max_time)` makes a `Decoded` from the
        results of `raw_rnn(cell, loop_fn, max_time=max_time)`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit; in the loop, if logits are not `[batch,
            vocab]` or `end_id` is not one of their ids.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`.
    """
    where = "decode.greedy_loop"
    model = Model(where, embed, project, initial_state, start_ids, end_id)
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
    """Decodes greedily: each id is the most likely one, the first of equal ones.

    The loop ends with the longest row. Scores are differentiable with respect to the
    arrays in `embed`, `project`, the cell and the initial state, with the ids held
    constant.

    Args:
        cell: A bound cell, or any object that keeps the RNNCell protocol.
        embed: `embed(ids)`, the cell's inputs for int32 ids `[batch]`: a nest of arrays
            `[batch, ...]`. Finished rows read the inputs for `end_id`.
        project: `project(output)`, the logits `[batch, vocab]` for the cell's output.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or without
            axes.
        start_ids: Integers `[batch]`, the ids for the first step.
        end_id: The id that ends a row, an int.
        max_time: The maximum number of ids of a row, an int.

    Returns:
        `Decoded`: ids `[batch, max_time]`, scores `[batch]`, lengths `[batch]`. Scores
        are float32, or float64 if the state or the inputs are.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, or `end_id` is not one of the ids.

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
    where = "decode.greedy"
    model = Model(where, embed, project, initial_state, start_ids, end_id)
    return run(cell, RowLoop(model, _most_likely), max_time)


def _most_likely(log_probs: Array, t: Array) -> Array:
    del t
    return jnp.argmax(log_probs, axis=1).astype(jnp.int32)
