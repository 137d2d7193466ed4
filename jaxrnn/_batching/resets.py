"""Computes the argument `resets` from segment ids, or from `done` of a rollout."""

import jax.numpy as jnp

from .._base.arguments import (
    as_integers,
    check_given,
    check_shape,
    check_time_major,
)
from .._base.inputs import as_booleans
from .._base.typing import Array, ArrayLike


def resets_of_segments(segment_ids: ArrayLike, *, time_major: bool = False) -> Array:
    """Finds the resets of packed rows: true at each step that begins a segment.

    A segment is consecutive steps with the same positive id, such as a document. The
    numbers may start again in each row, because only changes of the id matter. Steps
    with the id 0 (as in maxtext and marin) or less are padding, which begins no
    segment. If all padding is at the end of rows, also pass the lengths
    `(segment_ids > 0).sum(1)` to `dynamic_rnn`. Otherwise, pass
    `mask=segment_ids > 0`.

    Args:
        segment_ids: Integers `[batch, time]`, or `[time, batch]` if `time_major`; 0
            or less at padding.
        time_major: Whether time is the first axis of the ids and of the result.

    Returns:
        Bool, with the shape of the ids: true at the first step, and where a positive
        id differs from the id of the step before. If a row continues a segment of
        an earlier call, set the row's first step to False, or use `Packed.resets`.

    Raises:
        TypeError: If the ids are not integers, or `time_major` is not a bool.
        ValueError: If the ids do not have two axes.

    Example:
        >>> import jaxrnn
        >>> jaxrnn.resets_of_segments([[1, 1, 2, 2, 2, 0]]).astype(int).tolist()
        [[1, 0, 1, 0, 0, 0]]
    """
    is_time_major = check_time_major(time_major)
    axes = "[time, batch]" if is_time_major else "[batch, time]"
    ids = as_integers("segment_ids", segment_ids, f"integers {axes}", (None, None))
    ids = ids.T if is_time_major else ids
    changes = (ids[:, 1:] != ids[:, :-1]) & (ids[:, 1:] > 0)
    resets = jnp.concatenate([jnp.ones_like(ids[:, :1], bool), changes], axis=1)
    return resets.T if is_time_major else resets


def resets_of_done(
    done: ArrayLike, last_done: ArrayLike | None = None, *, time_major: bool = False
) -> Array:
    """Finds the resets of a rollout: true at each step after the end of an episode.

    Args:
        done: Bool `[batch, time]`, or `[time, batch]` if `time_major`: true at the last
            step of each episode. If the environment returns `terminated` and
            `truncated`, pass `terminated | truncated`.
        last_done: Bool `[batch]`, required: `done` of the step before these steps, such
            as the last step of the previous rollout. Before the first rollout, pass
            True for rows that begin an episode.
        time_major: Whether time is the first axis of `done` and of the result.

    Returns:
        Bool, with the shape of `done`.

    Raises:
        TypeError: If `done` or `last_done` are not booleans, or `time_major` is not a
            bool.
        ValueError: If `done` does not have two axes, or `last_done` is missing or does
            not have one entry for each row.

    Example:
        >>> import jaxrnn
        >>> done, last_done = [[False, True, False]], [True]
        >>> jaxrnn.resets_of_done(done, last_done).tolist()
        [[True, False, True]]
    """
    is_time_major = check_time_major(time_major)
    ends = as_booleans("done", done, "Convert numbers with `done > 0`.")
    must = f"have the axes {'[time, batch]' if is_time_major else '[batch, time]'}"
    check_shape("done", ends, (None, None), must)
    ends = ends.T if is_time_major else ends
    fix = "Pass `done` of the step before these steps. If all rows begin an episode, "
    check_given("last_done", last_done, f"{fix}pass `jnp.ones({len(ends)}, bool)`.")
    fix = "Convert numbers with `last_done > 0`."
    before = as_booleans("last_done", last_done, fix)
    must = f"be a vector with one entry for each of {len(ends)} rows"
    check_shape("last_done", before, (len(ends),), must, "Check `time_major`.")
    resets = jnp.concatenate([before[:, None], ends], axis=1)[:, :-1]
    return resets.T if is_time_major else resets
