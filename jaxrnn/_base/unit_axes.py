"""Products without axes of size 1.

In JAX 0.10, XLA for CPUs sums products along one axis, as derivatives of such products
do, five times as slowly if another axis has size 1: that of the rows of one sequence,
of a single head, or of the last step.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .typing import Array, PyTree


def scaled(factor: Array, x: Array) -> Array:
    """`x` times a factor for each head, step or key, whichever axes the factor has."""

    def product(factor: Array, x: Array) -> Array:
        return jnp.expand_dims(factor, tuple(range(factor.ndim, x.ndim))) * x

    return without_unit_axes(product, factor.ndim, factor, x)


def unit(x: Array, epsilon: float = 1e-6) -> Array:
    """`x` divided by its norm over the last axis, with a finite derivative at 0."""

    def divided(x: Array) -> Array:
        square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(square + epsilon)

    return without_unit_axes(divided, x.ndim - 1, x)


def without_unit_axes(
    product: Callable[..., PyTree], count: int, *arrays: PyTree
) -> PyTree:
    """`product(*arrays)`, computed without those leading axes that have size 1.

    Args:
        product: A function whose result has the leading axes of all arrays.
        count: The number of leading axes.
        arrays: The arguments of `product`, arrays or nests of arrays.
    """
    sizes = zip(*(x.shape[:count] for x in jax.tree.leaves(arrays)), strict=True)
    ones = tuple(axis for axis, each in enumerate(sizes) if set(each) == {1})
    result = product(*jax.tree.map(lambda x: jnp.squeeze(x, ones), arrays))
    return jax.tree.map(lambda x: jnp.expand_dims(x, ones), result)
