"""Code that all decoders share: their arguments, their loop and their result."""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import (
    INT32_MAX,
    as_axis_size,
    as_count,
    as_integers,
    check_instance,
    check_is_cell,
    check_shape,
)
from .._base.errors import Verbatim, describe, error_note, is_array
from .._base.expect import expect
from .._base.inputs import as_arrays, check_rows_of_state
from .._base.like import check_structure
from .._base.math import axis_size, clamped_to_int32, concrete_or_none
from .._base.trees import named_leaves, opaque, serializable, without_read_only
from .._base.typing import Array, ArrayLike, AxisSize, DType, PyTree, RNNCellLike
from .._cells.fields import set_field
from .._drivers.raw_rnn import raw_rnn

Embed: TypeAlias = Callable[[Array], PyTree]
"""`embed(ids [batch]) -> inputs`, a nest of arrays `[batch, ...]`."""

Project: TypeAlias = Callable[[PyTree], Array]
"""`project(output) -> logits [batch, vocab]`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """The arguments that all decoders share, checked and normalized.

    Attributes:
        embed: Maps ids to the cell's inputs.
        project: Maps the cell's output to logits.
        initial_state: The initial state, each leaf `[batch, ...]` or a scalar.
        start_ids: The ids for the first step, int32 `[batch]`.
        end_id: The id that ends a row.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match, or `end_id` is negative.
    """

    embed: Embed
    project: Project
    initial_state: PyTree
    start_ids: Any
    end_id: int

    def __post_init__(self) -> None:
        what = "a function of ids [batch]"
        fix = "For a table of embeddings, pass `lambda ids: table[ids]`."
        fix = fix if is_array(self.embed) else ""
        check_instance("embed", self.embed, Callable, what, fix)
        what = "a function of the cell's output"
        fix = "For a kernel, pass `lambda output: output @ kernel`."
        fix = fix if is_array(self.project) else ""
        check_instance("project", self.project, Callable, what, fix)
        ids = as_start_ids("start_ids", self.start_ids)
        fix = "Pass an id of the vocabulary or, if no id ends a text, "
        fix += "append a logit of -inf in `project`, and pass its index."
        end_id = as_int("end_id", self.end_id, 0, fix)
        state = as_arrays("initial_state", self.initial_state)
        must = f"have one row for each of `start_ids` ({describe(ids)})"
        check_rows_of_state(state, ids.shape[0], must)
        set_field(self, "start_ids", ids)
        set_field(self, "end_id", end_id)
        set_field(self, "initial_state", state)

    @property
    def batch_size(self) -> int:
        """The number of rows."""
        return self.start_ids.shape[0]

    def inputs(self, ids: Array) -> PyTree:
        """The cell's inputs for `ids`.

        Raises:
            ValueError: If `embed` does not return one row for each id.
        """
        with error_note(f"Raised by `embed`, called with ids {describe(ids)}."):
            inputs = self.embed(ids)
        for name, leaf in named_leaves("embed(ids)", inputs):
            fits = is_array(leaf) and leaf.shape[:1] == (self.batch_size,)
            must = f"be an array [{self.batch_size}, ...], one row for each id"
            expect(fits, name, must, leaf)
        return inputs

    def log_probs(self, output: PyTree, dtype: DType) -> Array:
        """The log-probabilities of the next id, `[batch, vocab]`.

        Raises:
            TypeError: If `project` does not return a floating-point array.
            ValueError: If the array is not `[batch, vocab]`, or has no entry for
                `end_id`.
        """
        with error_note("Raised by `project`, called with the cell's output."):
            logits = self.project(output)
        check_floating("`project(output)`", logits)
        fits = logits.ndim == 2 and logits.shape[0] == self.batch_size
        must = f"be [{self.batch_size}, vocab]"
        expect(fits, "project(output)", must, logits)
        vocab = logits.shape[1]
        must = f"be less than {vocab}, the number of logits of each row"
        expect(self.end_id < vocab, "end_id", must, self.end_id)
        return log_softmax(jnp.asarray(logits, dtype))

    def score_dtype(self, inputs: PyTree) -> DType:
        """The dtype of scores, which is chosen before any logits are computed."""
        return score_dtype((self.initial_state, inputs))


@serializable
class Decoded(NamedTuple):
    """Decoded sequences of ids.

    Beam search adds a second axis `beam`, with the best beam first.

    Attributes:
        ids: The ids, int32 `[batch, max_time]`; `end_id` past a row's length.
        scores: The log-probability of a row's ids up to its length, including the end
            id, `[batch]`. Beam search divides the log-probability by the length
            penalty. -inf for a row that reached a step at which all logits are -inf.
        lengths: The number of ids, including the end id, int32 `[batch]`; `max_time`
            for rows without an end id; 0 for rows with score -inf.
    """

    ids: Array
    scores: Array
    lengths: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Loop(abc.ABC):
    """A loop function for `raw_rnn` that also builds a `Decoded` from the results.

    Attributes:
        model: The arguments that all decoders share.
    """

    model: Model

    @abc.abstractmethod
    def __call__(self, time: Array, output: PyTree, state: PyTree, rows: Any) -> tuple:
        """The loop function, with `rows` as its loop state; see `raw_rnn`."""

    @abc.abstractmethod
    def decoded(self, results: tuple, max_time: int) -> Decoded:
        """Builds the `Decoded` from the results of `raw_rnn` with this `max_time`."""


def run(cell: RNNCellLike, loop: Loop, max_time: AxisSize) -> Decoded:
    """Runs the loop until all rows are finished or have `max_time` ids."""
    check_is_cell("cell", cell)
    fix = "Pass the largest number of ids per row."
    limit = as_axis_size("max_time", max_time, fix)
    end = axis_size(limit)
    state = opaque(without_read_only(loop.model.initial_state))
    what = "`initial_state` (see `cell.state_size`)"
    check_structure(what, cell.state_size, state, strict=True)

    def until_limit(
        time: Array, output: PyTree, state: PyTree, loop_state: PyTree
    ) -> tuple:
        finished, *rest = loop(time, output, state, loop_state)
        # Finish all rows at the limit. If `raw_rnn` stopped the loop instead, it would
        # report an error under checkify, but a truncated row is a valid result here.
        return finished | (time >= end), *rest

    return loop.decoded(raw_rnn(cell, until_limit, max_time=limit), limit)


def to_time(rows: Array, max_time: AxisSize) -> Array:
    """Zero-pads the values emitted in all steps to `[max_time, ...]`.

    Raises:
        ValueError: If there are more than `max_time` steps.
    """
    steps = rows.shape[0]
    missing = max_time - steps
    must = f"be at least {steps}, the number of steps that `raw_rnn` ran"
    fix = "Pass the `max_time` of `raw_rnn`."
    expect(missing >= 0, "max_time", must, max_time, fix)
    return jnp.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1))


def end_beyond(lengths: Array, ids: Array, end_id: int) -> Array:
    """Replaces the ids `[..., max_time]` past each row's length with `end_id`."""
    time = jnp.arange(ids.shape[-1], dtype=lengths.dtype)
    inside = jnp.broadcast_to(time, ids.shape) < lengths[..., None]
    return jnp.where(inside, ids, jnp.asarray(end_id, ids.dtype))


def as_ids(
    name: str, ids: ArrayLike, what: str, *shapes: tuple[int | None, ...]
) -> Array:
    """Checks ids, which `what` describes, and converts them to int32.

    Ids beyond int32 are clamped, so they stay outside any vocabulary.

    Raises:
        TypeError: If the ids are not integers.
        ValueError: If their shape matches none of `shapes`, in which None stands for
            any size.
    """
    return jnp.asarray(clamped_to_int32(as_integers(name, ids, what, *shapes)))


def as_start_ids(name: str, start_ids: ArrayLike) -> Array:
    """Converts the start ids to int32 `[batch]`.

    Traced ids beyond int32 are clamped.

    Raises:
        TypeError: If the ids are not integers.
        ValueError: If the ids are not a vector, or a known id is beyond int32.
    """
    ids = as_integers(name, start_ids, "integers [batch]", (None,))
    known = None if np.can_cast(ids.dtype, np.int32) else concrete_or_none(ids)
    if known is not None and (wrong := known[known != clamped_to_int32(known)]).size:
        raise ValueError(f"`{name}` must hold ids that fit int32, got {wrong[0]}.")
    return jnp.asarray(clamped_to_int32(ids))


def as_int(name: str, value: int, least: int, fix: str, most: int = INT32_MAX) -> int:
    """Checks that a static integer is between `least` and `most`, and returns it.

    Raises:
        TypeError: If the value is not an integer, or is traced.
        ValueError: If the value is out of range.
    """
    return as_count(name, value, least, fix, most=most)


class Range(NamedTuple):
    """A range of numbers, with a description for messages and a predicate."""

    words: str
    holds: Callable[[float], bool]


FINITE = Range("finite", math.isfinite)
POSITIVE = Range("positive and finite", lambda x: x > 0 and math.isfinite(x))
PROBABILITY = Range("in (0, 1]", lambda x: 0 < x <= 1)


def as_number(name: str, value: ArrayLike, within: Range, fix: str) -> ArrayLike:
    """Checks a real number or array scalar and returns it.

    The range of a traced value is not checked.

    Raises:
        TypeError: If the value is not a real number.
        ValueError: If the value is not a scalar, or is outside the range.
    """
    must = f"be {within.words}"
    is_number = is_array(value) or isinstance(value, int | float)
    dtype = jnp.result_type(value) if is_number else jnp.dtype(bool)
    is_real = any(jnp.issubdtype(dtype, kind) for kind in (jnp.integer, jnp.floating))
    expect(
        is_real,
        name,
        f"be a number that is {within.words}",
        value,
        fix,
        error=TypeError,
    )
    check_shape(name, value, (), "be a scalar")
    known = concrete_or_none(value)
    if known is not None:
        number = float(known)
        expect(within.holds(number), name, must, Verbatim(f"{number:g}"), fix)
    return value


def check_floating(what: str, logits: PyTree) -> None:
    """Raises TypeError unless logits are a floating-point array."""
    if not is_array(logits) or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(
            f"{what} must be floating-point [batch, vocab], got {describe(logits)}."
        )


def log_softmax(logits: Array) -> Array:
    """`jax.nn.log_softmax` over the last axis, but -inf where all logits are -inf.

    For such logits, `jax.nn.log_softmax` and its derivative are NaN.
    """
    logits, possible = without_dead_ends(logits)
    return jnp.where(possible, jax.nn.log_softmax(logits, axis=-1), -jnp.inf)


def is_minus_infinity(x: Array) -> Array:
    """`jnp.isneginf(x)`, but without infinity, which `jax_debug_infs` would report."""
    return x < jnp.finfo(x.dtype).min


def without_dead_ends(logits: Array) -> tuple[Array, Array]:
    """Replaces logits with 0 where all logits along the last axis are -inf.

    Returns:
        The logits, and whether any id is possible, bool `[..., 1]`.
    """
    possible = ~jnp.all(is_minus_infinity(logits), axis=-1, keepdims=True)
    return jnp.where(possible, logits, jnp.zeros((), logits.dtype)), possible


def score_dtype(tree: PyTree) -> DType:
    """The dtype of scores: float64 if an array is float64, otherwise float32."""
    is_wide = any(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(tree))
    return jnp.dtype(jnp.float64 if is_wide else jnp.float32)
