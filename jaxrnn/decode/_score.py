"""The scores of given sequences."""

import math

import jax.numpy as jnp

from .._base.arguments import INT32_MAX
from .._base.typing import Array, ArrayLike, PyTree, RNNCellLike
from ._beam_rows import run_beams, tile_model
from ._checks import as_sequences
from ._greedy import RowLoop
from ._model import Embed, Model, Project, run


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
    the result equals the `scores` in the `Decoded` that contains the sequences. If a
    sequence has no end id, all of its ids count. Ids after an end id have no effect, so
    you can use `end_id` as padding. Leave out beams with score -inf, which
    `beam_search` could not fill. Such a beam contains only `end_id`, so `score` would
    return the score of the first `end_id`.

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
        score NaN if an id up to its end id is outside the vocabulary.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match, `end_id` is not in the vocabulary, or `ids`
            has an axis `beam` and the state contains a TensorArray.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`.
    """
    model = Model(embed, project, initial_state, start_ids, end_id)
    given = as_sequences(ids, model.batch_size)
    *shape, time = given.shape
    # JAX counts negative ids from the end of the vocabulary. An id that is too large
    # gives the NaN that `score` promises for ids outside the vocabulary.
    rows = jnp.where(given < 0, INT32_MAX, given).reshape(math.prod(shape), time)
    choose = lambda _, t: rows[:, t]
    if given.ndim == 2:
        return run(cell, RowLoop(model, choose), time).scores
    loop = RowLoop(tile_model(model, shape[1]), choose)
    return run_beams(cell, loop, time).scores.reshape(shape)
