"""Functions on beams, the best sequences of each example in a beam search.

The beams of an example are adjacent rows of all arrays. `tile_beams` repeats the rows
of a state or a memory. In each step, `extended` chooses the best extensions,
`penalized` computes their scores, and `reordered` gives each beam the state of its
parent. At the end, `ids_along_paths` traces the final beams back.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from .._base import arguments
from .._base.errors import expect
from .._base.hints import with_hints
from .._base.inputs import as_arrays
from .._base.math import concrete_or_none
from .._base.trees import is_read_only, is_tensor_array, map_named
from .._base.typing import Array, ArrayLike, AxisSize, DType, PyTree
from .._run.tensor_array.tensor_array import TensorArray
from . import _ids

# A step indexes `beams * vocab` candidates with int32. More beams would overflow these
# indices for a vocabulary of 32,768 ids.
MAX_BEAMS = 2**16

NO_PENALTY = "For no penalty, pass 0."

LengthPenalty: TypeAlias = Literal["power", "gnmt"]
"""A divisor of log-probabilities: `n ** w`, or TensorFlow's `((5 + n) / 6) ** w`."""

Score: TypeAlias = Callable[[Array, Array, Array], Array]
"""`score(log_probs, lengths, ends) -> scores`; see `extended`."""

ON_BEAMS = (
    "The cell and the functions of the decoder run on {} rows (batch size times number "
    "of beams). If they read a memory with one row for each example, tile the memory "
    "with `tile_beams`."
)


class Beams(NamedTuple):
    """The beams of each example.

    Attributes:
        log_probs: `[batch, beam]`, the log-probability of each beam.
        finished: Bool `[batch, beam]`, whether each beam is finished.
        lengths: int32 `[batch, beam]`, the number of ids, including `eos_id`.
    """

    log_probs: Array
    finished: Array
    lengths: Array


def first_beams(start_ids: Array, dtype: DType) -> Beams:
    """The beams before the first step, for start ids `[batch, beam]`.

    Only beam 0 of each example is active, because equal beams would choose the same ids
    at every step.
    """
    zeros = jnp.zeros_like(start_ids, jnp.int32)
    # Add zeros, so that the result has the sharding of the ids.
    is_first = zeros + jnp.arange(start_ids.shape[1], dtype=jnp.int32)[None] == 0
    log_probs = jnp.where(is_first, 0.0, -jnp.inf).astype(dtype)
    return Beams(log_probs, ~is_first, zeros)


def extended(
    beams: Beams,
    logits: Array,
    eos_id: ArrayLike,
    impossible: float,
    score: Score,
) -> tuple[Beams, Array, Array, Array]:
    """Extends each beam by one id and keeps the best beams of each example.

    A finished beam continues only with `eos_id`, which leaves its log-probability
    unchanged.

    Args:
        beams: The beams before the step.
        logits: The logits of the next ids, `[batch, beam, vocab]`.
        eos_id: The id that ends a beam.
        impossible: The log-probability of each id except `eos_id` in a finished beam.
        score: `score(log_probs, lengths, ends)` returns the scores of all candidates,
            `[batch, beam, vocab]`. The lengths `[batch, beam, 1]` include `eos_id`, and
            `ends` is True where a candidate ends its beam in this step.

    Returns:
        `(beams, scores, parents, ids)`, with the best beam first. Each array is
        `[batch, beam]`.
    """
    log_probs = _ids.log_softmax(logits)
    batch, width, vocab = log_probs.shape
    candidates = (batch, width * vocab)
    is_end = jnp.arange(vocab, dtype=jnp.int32) == eos_id
    ended = jnp.where(is_end, 0.0, impossible).astype(log_probs.dtype)
    ended = jnp.broadcast_to(ended, log_probs.shape)
    alive = ~beams.finished
    gain = jnp.where(alive[..., None], log_probs, ended)
    total = beams.log_probs[..., None] + gain
    lengths = beams.lengths + alive.astype(jnp.int32)
    ends = alive[..., None] & is_end[None, None]
    scores = score(total, lengths[..., None], ends).reshape(candidates)
    _, chosen = jax.lax.top_k(jax.lax.stop_gradient(scores), width)
    parents, ids = chosen // vocab, chosen % vocab
    best = Beams(
        log_probs=pick(total.reshape(candidates), chosen),
        finished=pick(beams.finished, parents) | (ids == eos_id),
        lengths=pick(lengths, parents),
    )
    return best, pick(scores, chosen), parents, ids


@with_hints
def tile_beams(tree: PyTree, num_beams: int) -> PyTree:
    """Repeats each row `num_beams` times, for beam search.

    Apply `tile_beams` to memories that a cell, `embed` or `project` closes over,
    because beam search runs them on `batch * num_beams` rows. The beams of an example
    are adjacent rows. You need not repeat the memory in the state of a
    `jaxrnn.contrib.AttentionWrapper`, because the beams of an example share it.

    Args:
        tree: A nest of arrays `[batch, ...]`; scalars remain unchanged.
        num_beams: The number of beams, an int, at most 65,536.

    Returns:
        The nest, each leaf `[batch * num_beams, ...]`.

    Raises:
        TypeError: If a leaf is not an array, or `num_beams` is not an int.
        ValueError: If a TensorArray is not empty, or `num_beams` is out of range.

    Source: `tf.contrib.seq2seq.tile_batch`.
    """
    return tile("tree", tree, as_num_beams("num_beams", num_beams))


def as_num_beams(name: str, number: int) -> int:
    """Checks the number of beams and returns it.

    Raises:
        TypeError: If the number is not an int.
        ValueError: If the number is out of range.
    """
    return arguments.as_count(name, number, fix="", most=MAX_BEAMS)


def tile(name: str, tree: PyTree, width: int) -> PyTree:
    """Repeats each row of the tree `width` times.

    Raises:
        TypeError: If a leaf is not an array.
        ValueError: If a TensorArray is not empty.
    """

    def tiled(name: str, leaf: PyTree) -> PyTree:
        if is_read_only(leaf):
            return leaf
        if not is_tensor_array(leaf):
            return map_rows(lambda x: repeated(x, width), as_arrays(name, leaf))
        size = concrete_or_none(leaf.size())
        fix = "Store the contents in arrays [batch, ...]."
        must = "be an array whose rows can be repeated, or an empty TensorArray"
        expect(size == 0, name, must, leaf, fix)
        if not leaf.element_shape:
            return leaf
        rows, *shape = leaf.element_shape
        return TensorArray(leaf.dtype, 0, True, element_shape=(rows * width, *shape))

    return map_named(name, tiled, tree, is_shared)


def is_shared(x: object) -> bool:
    """Whether `x` is a TensorArray or a read-only part of a state, e.g. a memory."""
    return is_read_only(x) or is_tensor_array(x)


def map_rows(fn: Callable[[Array], Array], tree: PyTree) -> PyTree:
    """Applies `fn` to each leaf that has a batch axis.

    Scalars, TensorArrays and read-only parts such as a memory remain unchanged.
    """

    def of_rows(leaf: PyTree) -> PyTree:
        return leaf if is_shared(leaf) or not leaf.ndim else fn(leaf)

    return jax.tree.map(of_rows, tree, is_leaf=is_shared)


def repeated(x: Array, width: int) -> Array:
    """Repeats each row `width` times. Unlike `jnp.repeat`, this works on any mesh."""
    rows, *rest = x.shape
    wide = jnp.broadcast_to(jnp.expand_dims(x, 1), (rows, width, *rest))
    return wide.reshape(rows * width, *rest)


def reordered(state: PyTree, parents: Array) -> PyTree:
    """Replaces the state of each beam with the state of its parent beam."""
    batch, width = parents.shape

    def reorder(x: Array) -> Array:
        # Index within each example, so that devices need not exchange rows.
        beams = x.reshape(batch, width, *x.shape[1:])
        return jax.vmap(lambda x, places: x[places])(beams, parents).reshape(x.shape)

    return map_rows(reorder, state)


def penalized(
    log_probs: Array, lengths: Array, length_penalty: ArrayLike, form: LengthPenalty
) -> Array:
    """Divides log-probabilities by the length penalty; -inf stays -inf."""
    count = lengths.astype(log_probs.dtype)
    # Without steps, the length is 0. Then do not divide by 0.
    base = (5 + count) / 6 if form == "gnmt" else jnp.maximum(count, 1)
    factor = base ** jnp.asarray(length_penalty, log_probs.dtype)
    exists = ~_ids.is_minus_infinity(log_probs)
    # Do not divide -inf, because the derivative with respect to the penalty would be
    # NaN or infinite.
    return jnp.where(exists, jnp.where(exists, log_probs, 0) / factor, -jnp.inf)


def pick(values: Array, places: Array) -> Array:
    """Gathers values along the second axis at the indices `places`."""
    return jnp.take_along_axis(values, places, axis=1)


def split_beams(tree: PyTree, shape: tuple[int, ...]) -> PyTree:
    """Reshapes leaves `[batch * beam, ...]` to `[batch, beam, ...]`."""
    return map_rows(lambda x: x.reshape(*shape, *x.shape[1:]), tree)


def merge_beams(tree: PyTree) -> PyTree:
    """Reshapes leaves `[batch, beam, ...]` to `[batch * beam, ...]`."""
    return map_rows(lambda x: jax.lax.collapse(x, 0, 2), tree)


def ids_along_paths(
    ids: Array, parents: Array, lengths: Array, eos_id: ArrayLike
) -> Array:
    """Traces each final beam back and returns its ids; see `gather_tree`."""
    inside = places_of(ids.shape)[0] < lengths[None, :, None]
    found = along_paths(jnp.where(inside, ids, eos_id), parents, inside)
    ended = jnp.cumsum((found == eos_id).astype(jnp.int32), axis=0) > 0
    return jnp.where(ended, eos_id, found)


def places_of(shape: tuple[int, ...]) -> list[Array]:
    """The step index and the beam index of each entry `[time, batch, beam]`."""
    return [jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 2)]


def along_paths(ids: Array, parents: Array, inside: Array) -> Array:
    return trace_back(ids, jnp.where(inside, parents - places_of(ids.shape)[1], 0))


def to_time(rows: Array, time: AxisSize) -> Array:
    """Zero-pads `[steps, ...]` to `[time, ...]`."""
    return jnp.pad(rows, [(0, time - rows.shape[0])] + [(0, 0)] * (rows.ndim - 1))


@jax.jit
def trace_back(ids: Array, offsets: Array) -> Array:
    """Follows each final beam from the last step to the first and reads its ids.

    A beam's parent has the index of the beam plus the beam's entry in `offsets`.
    """

    def back(places: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        ids, offsets = step
        return places + pick(offsets, places), pick(ids, places)

    own = jnp.arange(ids.shape[-1], dtype=jnp.int32)
    # Derive the zeros from the offsets, so that `shard_map` accepts them as the carry:
    # both then vary over the same mesh axes.
    zeros = jnp.sum(jnp.zeros_like(offsets), axis=0, dtype=jnp.int32)
    last = zeros + own[None]
    return jax.lax.scan(back, last, (ids, offsets), reverse=True)[1]
