"""Gradients that a loop sums over its steps, in float32.

What every step of a loop reads, such as parameters, has a gradient that is a sum over
the steps. JAX adds it up in the dtype of the array that is read: in bfloat16, after a
thousand steps, a term is smaller than the last digit of the sum, and is lost. Here the
tangent of such an array is that of a copy in float32, whose values nobody reads; so the
cotangent is added up in float32 and rounded once, after the loop.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.jax_internals import eval_jaxpr
from .._base.math import at_least_float32
from .._base.typing import Array, PyTree


def reader(tree: PyTree) -> Callable[[], PyTree]:
    """A function that returns `tree`, for each step of a loop to call.

    The cotangents of the results are added up in float32.
    """
    leaves, structure = jax.tree.flatten(tree)
    readers = [_leaf_reader(leaf) for leaf in leaves]
    return lambda: structure.unflatten([read() for read in readers])


def _leaf_reader(leaf: Any) -> Callable[[], Any]:
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        return lambda: leaf
    if at_least_float32(dtype) == dtype:
        return lambda: leaf
    wide = leaf.astype(jnp.float32)
    return lambda: with_tangent_of(leaf, wide.astype(dtype))


def closed_over(
    fn: Callable[..., PyTree], *args: Any
) -> tuple[Callable[..., PyTree], list[Array], PyTree]:
    """`(pure, arrays, types)`, where `pure(arrays, *args)` is `fn(*args)`.

    Args:
        fn: A function that closes over arrays. It is traced once.
        *args: Its arguments.

    Returns:
        A function that closes over none; what it is to be given in their place; the
        types of the results.
    """
    closed, types = jax.make_jaxpr(fn, return_shape=True)(*args)
    structure = jax.tree.structure(types)

    def pure(arrays: list[Array], *args: Any) -> PyTree:
        results = eval_jaxpr(closed.jaxpr, arrays, *jax.tree.leaves(args))
        return structure.unflatten(results)

    return pure, closed.consts, types


@jax.custom_jvp
def with_tangent_of(x: Array, same: Array) -> Array:
    """`x`, with the tangent of an equal array, whose values are not read."""
    del same
    return x


@with_tangent_of.defjvp
def _tangent_of_same(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    return primals[0], tangents[1]
