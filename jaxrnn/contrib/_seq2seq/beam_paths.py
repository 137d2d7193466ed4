"""Rows that are repeated for beams, and values along the paths of beams."""

import jax
import jax.numpy as jnp

from jaxrnn import TensorArray, extend
from jaxrnn.typing import Array, ArrayLike, PyTree

from ...decode import _beam as beam, _model


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
    width = beam.as_width(multiplier, "multiplier")
    is_list = isinstance(t, list | tuple) and len(t) > 0
    are_numbers = is_list and all(isinstance(x, int | float) for x in t)
    extend.expect(
        not are_numbers, "t", "hold arrays", t, "Pass `np.array(t)`.", error=TypeError
    )
    return jax.tree.map(
        lambda x: _tiled(x, width),
        t,
        is_leaf=lambda x: x is None or beam.is_shared(x),
    )


def _tiled(x: PyTree, width: int) -> PyTree:
    """Repeats the rows of a leaf, or of the element shape of an empty TensorArray."""
    if not isinstance(x, TensorArray):
        return beam.tile("t", x, width)
    if not x.element_shape:
        return x
    size = extend.concrete_or_none(x.size())
    must = "hold only TensorArrays of known size 0"
    extend.expect(size == 0, "t", must, size)
    rows, *shape = x.element_shape
    return TensorArray(x.dtype, 0, True, element_shape=(rows * width, *shape))


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
    ids = _model.as_ids("step_ids", step_ids, what, (None, None, None))
    what = f"integers {list(ids.shape)} like `step_ids`"
    parents = _model.as_ids("parent_ids", parent_ids, what, ids.shape)
    what = f"integers [{ids.shape[1]}], one for each row"
    lengths = _model.as_ids(
        "max_sequence_lengths", max_sequence_lengths, what, ids.shape[1:2]
    )
    token = _model.as_ids("end_token", end_token, "an integer scalar", ())
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
    rows = _model.to_time(t[:time], time)
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
    return beam.trace_back(ids, jnp.where(inside, parents - _places(ids.shape)[1], 0))
