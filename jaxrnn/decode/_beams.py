"""The rows of beams: repeating them, reordering them, and tracing them back."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._base.arguments import as_count
from .._base.expect import expect
from .._base.inputs import as_arrays
from .._base.math import concrete_or_none
from .._base.trees import is_read_only, is_tensor_array, named_leaves
from .._base.typing import Array, ArrayLike, AxisSize, PyTree
from .._tensor_array.tensor_array import TensorArray
from . import _ids

# The beams of an example are chosen from width * vocab candidates with int32 indices. A
# larger width would overflow these indices for a vocabulary of 32,768 ids.
MAX_WIDTH = 2**16

ON_BEAMS = (
    "The cell and the functions of the decoder run on {} rows (batch size times number "
    "of beams). If they read a memory with one row for each example, tile the memory "
    "with `tile_beams`."
)


def tile_beams(tree: PyTree, beam_width: int) -> PyTree:
    """Repeats each row `beam_width` times, for beam search.

    Apply `tile_beams` to memories that a cell, `embed` or `project` closes over. In
    beam search, all arrays have `batch * beam_width` rows, with the beams of an example
    in adjacent rows. Beam search does not repeat a memory in the state of a
    `jaxrnn.contrib.AttentionWrapper`; the beams of an example share this memory.

    Args:
        tree: A nest of arrays `[batch, ...]`; scalars remain unchanged.
        beam_width: The number of beams, an int, at most 65,536.

    Returns:
        The nest, each leaf `[batch * beam_width, ...]`.

    Raises:
        TypeError: If a leaf is not an array, or `beam_width` is not an int.
        ValueError: If a leaf is a TensorArray, or `beam_width` is out of range.

    Source: `tf.contrib.seq2seq.tile_batch`.
    """
    return tile("tree", tree, as_width("beam_width", beam_width))


def tile_batch(t: PyTree, multiplier: int, name: str | None = None) -> PyTree:
    """Repeats each row `multiplier` times; the copies of a row are adjacent.

    Apply `tile_batch` to the initial state of a `BeamSearchDecoder`. The beams of a row
    share the memory in the state of an `AttentionWrapper`, so the memory is not
    repeated.

    Args:
        t: A nest of arrays `[batch, ...]`. Scalars stay unchanged, whereas TensorFlow
            raises an error. TensorArrays must be empty; elements that are written later
            must have `batch * multiplier` rows.
        multiplier: The number of beams, an int, at most 65,536.
        name: Accepted for compatibility with TensorFlow.

    Returns:
        The nest, each leaf `[batch * multiplier, ...]`.

    Raises:
        TypeError: If a leaf is not an array, `t` is a list of numbers, or `multiplier`
            is not an int.
        ValueError: If a TensorArray is not empty, or `multiplier` is out of range.

    Source: `tf.contrib.seq2seq.tile_batch`.
    """
    width = as_width("multiplier", multiplier)
    is_list = isinstance(t, list | tuple) and len(t) > 0
    are_numbers = is_list and all(isinstance(x, int | float) for x in t)
    fix = "Pass `np.array(t)`."
    expect(not are_numbers, "t", "hold arrays", t, fix, error=TypeError)

    def tiled(x: PyTree) -> PyTree:
        if not isinstance(x, TensorArray):
            return tile("t", x, width)
        if not x.element_shape:
            return x
        size = concrete_or_none(x.size())
        expect(size == 0, "t", "hold only TensorArrays of known size 0", size)
        rows, *shape = x.element_shape
        return TensorArray(x.dtype, 0, True, element_shape=(rows * width, *shape))

    return jax.tree.map(tiled, t, is_leaf=lambda x: x is None or is_shared(x))


def as_width(name: str, width: int) -> int:
    """Checks the number of beams and returns it.

    Raises:
        TypeError: If the number is not an int.
        ValueError: If the number is out of range.
    """
    return as_count(name, width, fix="", most=MAX_WIDTH)


def tile(name: str, tree: PyTree, width: int) -> PyTree:
    """Repeats each row of the tree `width` times.

    Raises:
        TypeError: If a leaf is not an array.
        ValueError: If a leaf is a TensorArray.
    """
    for leaf_name, leaf in named_leaves(name, tree, is_tensor_array):
        must = "be an array whose rows can be repeated"
        fix = "Store the contents in arrays [batch, ...]."
        expect(not is_tensor_array(leaf), leaf_name, must, leaf, fix)
    return map_rows(lambda x: repeated(x, width), as_arrays(name, tree))


def is_shared(x: object) -> bool:
    """Whether `x` is a TensorArray or a read-only part, which all rows share."""
    return is_read_only(x) or is_tensor_array(x)


def map_rows(fn: Callable[[Array], Array], tree: PyTree) -> PyTree:
    """Applies `fn` to each leaf that has a batch axis.

    Scalars, TensorArrays and read-only parts remain unchanged.
    """

    def of_rows(leaf: PyTree) -> PyTree:
        return leaf if is_shared(leaf) or not leaf.ndim else fn(leaf)

    return jax.tree.map(of_rows, tree, is_leaf=is_shared)


def repeated(x: Array, width: int) -> Array:
    """Repeats each row `width` times; unlike `jnp.repeat`, this works on any mesh."""
    rows, *rest = x.shape
    wide = jnp.broadcast_to(jnp.expand_dims(x, 1), (rows, width, *rest))
    return wide.reshape(rows * width, *rest)


def reordered(state: PyTree, parents: Array) -> PyTree:
    """Replaces the state of each beam with the state of its parent beam."""
    batch, width = parents.shape

    def reorder(x: Array) -> Array:
        # Index within each example, so that no device reads rows from another device.
        beams = x.reshape(batch, width, *x.shape[1:])
        return jax.vmap(lambda x, places: x[places])(beams, parents).reshape(x.shape)

    return map_rows(reorder, state)


def penalized(log_probs: Array, lengths: Array, length_penalty: ArrayLike) -> Array:
    """Log-probabilities with the length penalty; -inf for a beam without a sequence."""
    penalty = jnp.asarray(length_penalty, log_probs.dtype)
    factor = ((5 + lengths.astype(log_probs.dtype)) / 6) ** penalty
    exists = ~_ids.is_minus_infinity(log_probs)
    # Do not divide infinity, because the derivative with respect to the penalty would
    # be NaN or infinite.
    return jnp.where(exists, jnp.where(exists, log_probs, 0) / factor, -jnp.inf)


def pick(values: Array, places: Array) -> Array:
    """Gathers values along the second axis at the indices `places`."""
    return jnp.take_along_axis(values, places, axis=1)


def gather_tree(
    step_ids: ArrayLike,
    parent_ids: ArrayLike,
    max_sequence_lengths: ArrayLike,
    end_token: ArrayLike,
) -> Array:
    """The ids along the path of each final beam.

    Args:
        step_ids: Integers `[time, batch, beam]`, the id of each beam at each step.
        parent_ids: Integers `[time, batch, beam]` in `[0, beam)`: for each beam, the
            index of its parent beam in the previous step. On CPUs, TensorFlow raises an
            error for other values.
        max_sequence_lengths: Integers `[batch]`, the length of each row's longest beam,
            where the paths of the row end.
        end_token: The id that ends a sequence.

    Returns:
        The ids, int32 `[time, batch, beam]`, with `end_token` beyond the lengths and
        after the first `end_token` of a path.

    Raises:
        TypeError: If an argument does not hold integers.
        ValueError: If shapes do not match.

    Source: `tf.contrib.seq2seq.gather_tree`.
    """
    what = "integers [time, batch, beam]"
    ids = _ids.as_ids("step_ids", step_ids, what, (None, None, None))
    what = f"integers {list(ids.shape)} like `step_ids`"
    parents = _ids.as_ids("parent_ids", parent_ids, what, ids.shape)
    what = f"integers [{ids.shape[1]}], one for each row"
    lengths = _ids.as_ids(
        "max_sequence_lengths", max_sequence_lengths, what, ids.shape[1:2]
    )
    token = _ids.as_end_id("end_token", end_token)
    inside = _places(ids.shape)[0] < lengths[None, :, None]
    found = _along_paths(jnp.where(inside, ids, token), parents, inside)
    ended = jnp.cumsum((found == token).astype(jnp.int32), axis=0) > 0
    return jnp.where(ended, token, found)


def gather_tree_from_array(
    t: Array, parent_ids: Array, max_sequence_lengths: Array, lengths: Array
) -> Array:
    """The values that steps wrote along the path of each final beam.

    A step writes values in the order of the beams before the step. TensorFlow reads the
    values in the order of the beams after the step and therefore returns values of
    other beams.

    Args:
        t: `[time, batch * beam, ...]` or `[time, batch, beam, ...]`.
        parent_ids: See `gather_tree`.
        max_sequence_lengths: See `gather_tree`.
        lengths: `[batch, beam]`, the lengths of the final beams; values beyond them are
            not reordered.
    """
    shape = parent_ids.shape
    time = shape[0]
    # Under jit, the capacity of a TensorArray may differ from the number of steps.
    rows = to_time(t[:time], time)
    steps, own = _places(shape)
    inside = steps < max_sequence_lengths[None, :, None]
    places = _along_paths(parent_ids, parent_ids, inside)
    places = jnp.where(steps < lengths[None], places, own)
    # JAX cannot infer an axis of size -1 if the array is empty.
    split = rows.reshape(*shape, rows.size // max(1, parent_ids.size))
    return jnp.take_along_axis(split, places[..., None], axis=2).reshape(rows.shape)


def _places(shape: tuple[int, ...]) -> list[Array]:
    """The step index and the beam index of each entry `[time, batch, beam]`."""
    return [jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 2)]


def _along_paths(ids: Array, parents: Array, inside: Array) -> Array:
    return trace_back(ids, jnp.where(inside, parents - _places(ids.shape)[1], 0))


def to_time(rows: Array, time: AxisSize) -> Array:
    """Zero-pads `[steps, ...]` to `[time, ...]`."""
    return jnp.pad(rows, [(0, time - rows.shape[0])] + [(0, 0)] * (rows.ndim - 1))


@jax.jit
def trace_back(ids: Array, offsets: Array) -> Array:
    """Traces the ids of each final beam, `[time, batch, beam]`."""

    def back(places: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        ids, offsets = step
        return places + pick(offsets, places), pick(ids, places)

    own = jnp.arange(ids.shape[-1], dtype=jnp.int32)
    # In `shard_map`, zeros that are derived from the offsets vary over the same mesh
    # axes as the offsets.
    zeros = jnp.sum(jnp.zeros_like(offsets), axis=0, dtype=jnp.int32)
    last = zeros + own[None]
    return jax.lax.scan(back, last, (ids, offsets), reverse=True)[1]
