"""The result of decoding, and how a loop function is run."""

from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp

from .._base.arguments import check_is_cell
from .._base.read_only import without_read_only
from .._base.serialization import serializable
from .._base.trees import check_structure
from .._base.typing import Array, PyTree, RNNCellLike
from .._drivers.raw_rnn import raw_rnn
from .._tensor_array.carried import opaque
from ._checks import as_int
from ._model import Model


@serializable
class Decoded(NamedTuple):
    """Sequences of ids.

    Beam search adds an axis `beam` after the first, with the best first.

    Attributes:
        ids: int32 `[batch, max_time]`; `end_id` beyond a row's length.
        scores: `[batch]`, the log-probability of a row's ids up to its length,
            including the end id; in beam search divided by the length penalty.
        lengths: int32 `[batch]`, the number of ids including the end id; `max_time`
            for rows without one.
    """

    ids: Array
    scores: Array
    lengths: Array


class Loop(Protocol):
    """A loop function that makes a `Decoded` from its results."""

    @property
    def model(self) -> Model: ...

    def __call__(
        self, time: Array, output: PyTree, state: PyTree, loop_state: Any
    ) -> tuple[Array, PyTree, PyTree, PyTree, Any]: ...

    def decoded(
        self, results: tuple[PyTree, PyTree, Any], max_time: int
    ) -> Decoded: ...


def run(cell: RNNCellLike, loop: Loop, max_time: Any) -> Decoded:
    """Runs the loop until all rows are finished or have `max_time` ids."""
    where = loop.model.where
    check_is_cell(where, "cell", cell)
    limit = as_int(where, "max_time", max_time, 0, "It bounds the ids of a row.")
    check_structure(
        f"{where}: `initial_state` (by `cell.state_size`)",
        cell.state_size,
        opaque(without_read_only(loop.model.initial_state)),
        strict=True,
    )

    def until_limit(time: Array, output: PyTree, state: PyTree, loop_state: Any) -> Any:
        finished, *rest = loop(time, output, state, loop_state)
        # A truncated row is a result here, not the error that `raw_rnn` reports under
        # checkify when it stops a loop itself.
        return finished | (time >= limit), *rest

    return loop.decoded(raw_rnn(cell, until_limit, max_time=limit), limit)


def to_time(rows: Array, max_time: int) -> Array:
    """The emits of all steps `[max_time, ...]`, zeros where no step was taken.

    Raises:
        ValueError: If there were more steps.
    """
    missing = max_time - rows.shape[0]
    if missing < 0:
        raise ValueError(
            "decode: `max_time` must be what `raw_rnn` was given, at least the "
            f"{rows.shape[0]} steps that it took, got {max_time}."
        )
    return jnp.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1))


def end_beyond(lengths: Array, ids: Array, end_id: int) -> Array:
    """The ids `[..., max_time]` with `end_id` beyond each row's length."""
    time = jnp.arange(ids.shape[-1], dtype=lengths.dtype)
    inside = jnp.broadcast_to(time, ids.shape) < lengths[..., None]
    return jnp.where(inside, ids, jnp.asarray(end_id, ids.dtype))
