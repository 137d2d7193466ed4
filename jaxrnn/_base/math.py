"""Arithmetic, casts, and checks whether values are known at trace time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .typing import Array, AxisSize, DType, PyTree


def is_perturbed(tangent: object) -> bool:
    """Whether a tangent is an array, rather than None or a symbolic zero."""
    return isinstance(tangent, jax.Array)


def clip_symmetric(x: Array, bound: float | None) -> Array:
    """Clips `x` to `[-bound, bound]`, with gradient 1 inside and at the bounds.

    If `bound` is None, `x` does not change. At a bound, `jnp.clip` would halve the
    gradient, and `lax.clamp` would set the gradient to 0.
    """
    if bound is None:
        return x
    return jnp.where(x < -bound, -bound, jnp.where(x > bound, bound, x))


def expand_rows(mask: Array, leaf: Array) -> Array:
    """Appends axes of size 1 to the mask `[batch]`, up to the rank of `leaf`.

    A mask `[batch, size]` repeats one value in each row. If the leaf is
    `[batch, other_size]`, the result is the first column of the mask, `[batch, 1]`.
    """
    if mask.ndim == leaf.ndim == 2 and mask.shape[1] != leaf.shape[1]:
        return mask[:, :1]
    return mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim))


def where(condition: Array | bool, tree: PyTree, other: PyTree) -> PyTree:
    """Applies `jnp.where` to each leaf, with the same bool scalar for all leaves."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), tree, other)


def move_axes(tree: PyTree, source: PyTree, place: PyTree) -> PyTree:
    """Applies `jnp.moveaxis` to each leaf."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, source, place), tree)


def is_traced(x: object) -> bool:
    """Whether a value is a traced array, whose values are known only at run time."""
    try:  # For a traced array, `is_fully_addressable` raises an error.
        return isinstance(x, jax.Array) and x.is_fully_addressable is None
    except jax.errors.JAXTypeError:
        return True


def in_native_order(tree: PyTree) -> PyTree:
    """Converts NumPy arrays to the machine's byte order, which JAX requires.

    Some file formats (FITS, IDX, netCDF) store big-endian numbers.
    """
    if not any(map(_is_in_foreign_order, jax.tree.leaves(tree))):
        return tree

    def cast(x: Array) -> Array:
        return x.astype(x.dtype.newbyteorder("=")) if _is_in_foreign_order(x) else x

    return jax.tree.map(cast, tree)


def _is_in_foreign_order(x: object) -> bool:
    return isinstance(x, np.ndarray) and not x.dtype.isnative


def is_float(x: Any) -> bool:
    """Whether an array is floating-point or complex, so that it has a tangent."""
    return jnp.issubdtype(x.dtype, jnp.inexact)


def is_wider(dtype: DType, than: DType) -> bool:
    """Whether `dtype` has more bits; both are floating-point, or both complex."""
    return _kind(dtype) == _kind(than) > 1 and dtype.itemsize > than.itemsize


def widest_dtype(tree: PyTree) -> DType:
    """The widest dtype of the leaves, such as float32 for float32 and bfloat16."""
    return max((leaf.dtype for leaf in jax.tree.leaves(tree)), key=lambda d: d.itemsize)


def standardized(x: Array, epsilon: float) -> Array:
    """`(x - mean) / sqrt(variance + epsilon)` over the last axis."""
    centered = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
    return centered * jax.lax.rsqrt(variance + epsilon)


def at_least_float32(dtype: DType) -> DType:
    """Returns float32 if `dtype` has fewer than 32 bits, otherwise `dtype`."""
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else dtype


def widened(tree: PyTree) -> PyTree:
    """Casts arrays of fewer than 32 bits to float32."""
    return jax.tree.map(lambda x: x.astype(at_least_float32(x.dtype)), tree)


def cast(tree: PyTree, dtype: DType) -> PyTree:
    """Casts all leaves to `dtype`."""
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def cast_like(like: PyTree, tree: PyTree) -> PyTree:
    """Casts the arrays of `tree` to the dtypes of the arrays of `like`."""
    return jax.tree.map(lambda x, y: y.astype(x.dtype), like, tree)


def cast_number(array: Array, dtype: DType) -> Array:
    """Casts an array to `dtype` if `dtype` can represent this kind of number."""
    return array.astype(dtype) if _kind(array.dtype) <= _kind(dtype) else array


def clamped_to_int32(integers: Any) -> Any:
    """Casts integers to int32, clamped to int32's range instead of wrapping around."""
    if np.can_cast(integers.dtype, np.int32):
        return integers.astype(jnp.int32)
    own = jnp.iinfo(integers.dtype)
    int32 = jnp.iinfo(jnp.int32)
    clamped = integers.clip(max(own.min, int32.min), min(own.max, int32.max))
    return clamped.astype(jnp.int32)


def cast_if_weak(array: Array, dtype: DType) -> Array:
    """Applies `cast_number` to an array if the array is weakly typed."""
    weak = getattr(array, "weak_type", False)  # Random keys lack this attribute.
    return cast_number(array, dtype) if weak else array


def axis_size(size: AxisSize) -> Any:
    """The size of an axis as an int32 scalar; traced if the size is symbolic."""
    if jax.export.is_symbolic_dim(size):
        return jnp.asarray(size, np.int32)
    return np.int32(size)


def concrete_or_none(values: object) -> np.ndarray | None:
    """`values` as a NumPy array, or None if the values are known only at run time.

    Under a trace, even a constant JAX array counts as unknown. Otherwise, a check of a
    constant could raise an error in a branch of `lax.cond` that is never taken, because
    JAX traces both branches.
    """
    if is_traced(values):
        return None
    if isinstance(values, jax.Array):
        # A process cannot read arrays on devices of other processes.
        if is_traced(jnp.zeros(())) or not values.is_fully_addressable:
            return None
    return np.asarray(values)


def _kind(dtype: DType) -> int:
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    matches = (i for i, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind))
    return next(matches, -1)  # Random keys match none of these kinds.


@jax.custom_batching.custom_vmap
def batch_maximum(x: Array) -> Array:
    """Returns `x`; under `vmap`, its maximum over the mapped axis, without that axis.

    Apply this function to a condition that lets a loop skip work. If each mapped entry
    had its own condition, JAX would run both branches and select between the results.
    """
    return x


@batch_maximum.def_vmap
def _of_mapped(axis_size: int, in_batched: object, x: Array) -> Any:
    del axis_size, in_batched
    return batch_maximum(jnp.max(x, axis=0)), False
