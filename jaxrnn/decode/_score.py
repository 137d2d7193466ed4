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

    It is the score that `greedy` and `sample` give the sequences that they return, and
    `beam_search` without a length penalty. A sequence without the end id counts whole.
    What follows an end id has no effect, so pad with `end_id`. Leave out beams of score
    -inf, which `beam_search` could not fill: they hold `end_id` alone, which counts.

    Args:
        cell: A bound cell, or any object that keeps the RNNCell protocol.
        embed: `embed(ids)`, the cell's inputs for int32 ids `[batch]`: a nest of arrays
            `[batch, ...]`.
        project: `project(output)`, the logits `[batch, vocab]` for the cell's output.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or without
            axes.
        start_ids: Integers `[batch]`, the ids for the first step.
        end_id: The id that ends a row, an int.
        ids: Integers `[batch, time]`, or `[batch, beam, time]` for several sequences of
            each row. Then the cell, `embed` and `project` run on `batch * beam` rows,
            as in `beam_search`: apply `tile_beams` to a memory that they read.

    Returns:
        The scores, `[batch]` or `[batch, beam]`: float32, or float64 if the state or
        the inputs are. They are differentiable with respect to the arrays in `embed`,
        `project`, the cell and the initial state. The score is NaN if an id up to the
        end is outside of the vocabulary.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, `end_id` is not one of the ids, or there are
            beams and the state holds a TensorArray.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`.
    """
    caller = "decode.score"
    model = Model(caller, embed, project, initial_state, start_ids, end_id)
    given = as_sequences(caller, ids, model.batch_size)
    *shape, time = given.shape
    # JAX takes negative ids from the end of the vocabulary; the score is to be NaN.
    rows = jnp.where(given < 0, INT32_MAX, given).reshape(math.prod(shape), time)
    choose = lambda _, t: rows[:, t]
    if given.ndim == 2:
        return run(cell, RowLoop(model, choose), time).scores
    loop = RowLoop(tile_model(model, shape[1]), choose)
    return run_beams(cell, loop, time).scores.reshape(shape)
