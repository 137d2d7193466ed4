"""Sums gradients over the steps of a loop in float32.

If every step of a loop reads an array, such as a parameter, the gradient of the array
is a sum over the steps. JAX accumulates this sum in the dtype of the array. In
bfloat16, after a thousand steps, a new term is too small to change the rounded sum and
is lost. This module gives such an array the tangent of a float32 copy, whose values are
never read. JAX therefore accumulates the cotangent in float32 and rounds it once, after
the loop.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.jax_internals import eval_jaxpr
from .._base.math import at_least_float32
from .._base.typing import Array, PyTree


def reader(tree: PyTree) -> Callable[[], PyTree]:
    """Returns a function that returns `tree`; each step of a loop calls the function.

    The cotangents of the results are accumulated in float32.
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
    """Turns the arrays that a function closes over into an argument.

    Args:
        fn: A function that closes over arrays. The function is traced once.
        *args: The arguments of `fn`.

    Returns:
        `(pure, arrays, types)`: `pure` closes over no arrays, and `pure(arrays, *args)`
        equals `fn(*args)`; `arrays` are the arrays that `fn` closed over; `types` are
        the types of the results.
    """
    closed, types = jax.make_jaxpr(fn, return_shape=True)(*args)
    structure = jax.tree.structure(types)

    def pure(arrays: list[Array], *args: Any) -> PyTree:
        results = eval_jaxpr(closed.jaxpr, arrays, *jax.tree.leaves(args))
        return structure.unflatten(results)

    return pure, closed.consts, types


@jax.custom_jvp
def with_tangent_of(x: Array, same: Array) -> Array:
    """Returns `x` with the tangent of another array, whose own values are not read."""
    del same
    return x


@with_tangent_of.defjvp
def _tangent_of_same(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    return primals[0], tangents[1]
