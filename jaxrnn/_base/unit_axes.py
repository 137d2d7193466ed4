"""Works around slow sums in XLA for CPUs (JAX 0.10): drops axes of size 1.

The derivative of a product is often a sum of products along one axis. This sum is five
times as slow if another axis has size 1, as with one row, one head or one step.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .typing import Array, PyTree


def scaled(factor: Array, x: Array) -> Array:
    """Multiplies `x` by a factor whose axes are the first axes of `x`."""

    def product(factor: Array, x: Array) -> Array:
        return jnp.expand_dims(factor, tuple(range(factor.ndim, x.ndim))) * x

    return without_unit_axes(product, factor.ndim, factor, x)


def unit(x: Array, epsilon: float = 1e-6) -> Array:
    """Divides `x` by its norm over the last axis, with a finite derivative at 0."""

    def divided(x: Array) -> Array:
        square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(square + epsilon)

    return without_unit_axes(divided, x.ndim - 1, x)


def without_unit_axes(
    product: Callable[..., PyTree], count: int, *arrays: PyTree
) -> PyTree:
    """Computes `product(*arrays)` without leading axes of size 1.

    Args:
        product: A function whose result has the same leading axes as the arrays.
        count: The number of leading axes that all arrays share.
        arrays: The arguments of `product`, arrays or nests of arrays.
    """
    sizes = zip(*(x.shape[:count] for x in jax.tree.leaves(arrays)), strict=True)
    ones = tuple(axis for axis, each in enumerate(sizes) if set(each) == {1})
    result = product(*jax.tree.map(lambda x: jnp.squeeze(x, ones), arrays))
    return jax.tree.map(lambda x: jnp.expand_dims(x, ones), result)
