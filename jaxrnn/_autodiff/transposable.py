"""A linear function with a custom transpose.

JAX transposes a linear function by transposing its operations. Where that is impossible
(a loop that ends at run time) or slow, the transpose can be written by hand. Unlike one
with a `custom_vjp`, the function has tangents, can be batched and differentiated again,
and so can its transpose.

`jax.custom_derivatives.linear_call` has the same purpose, but does less (jax 0.10.2):

* it has no batching rule: `vmap` raises `NotImplementedError`;
* it cannot be differentiated with respect to its residuals: `jvp` and `grad` raise an
  `AssertionError`, and so does every derivative of a derivative in which residuals
  depend on what is perturbed, as the states of an RNN do;
* tangents some of which are symbolic zeros raise a `TypeError`;
* the transpose receives arrays of zeros for outputs that nothing reads, not
  `SymbolicZero`s.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.gathers import broadcast_first
from .._base.typing import PyTree
from .jax_internals import (
    SymbolicZero,
    Zero,
    dce_jaxpr,
    instantiate_zeros,
    is_undefined_primal,
    primitive_transposes,
)
from .leaves import merge, split
from .primitive import program_primitive, run, vmap_over

# Compiled, since outside of jit the transpose alone is run on later calls.
_compiled = functools.partial(jax.jit, static_argnums=0, inline=True)


def transposable(
    forward: Callable[[PyTree, PyTree], PyTree],
    backward: Callable[[PyTree, PyTree], PyTree],
    residuals: PyTree,
    tangents: PyTree,
) -> PyTree:
    """`forward(residuals, tangents)`, whose transpose is `backward`.

    Args:
        forward: Linear in the tangents; it closes over no arrays.
        backward: `backward(residuals, cotangents)`, from cotangents of what `forward`
            returns, `SymbolicZero`s for results that nothing reads, to cotangents of
            the tangents. It closes over no arrays. Both functions can be differentiated
            with respect to all of their arguments.
        residuals: What both read.
        tangents: What `forward` is linear in, floating.
    """
    closed, out = jax.make_jaxpr(forward, return_shape=True)(residuals, tangents)
    # A `forward` that calls `jax.jvp` also computes the values, which nothing reads.
    is_read = [True] * len(closed.out_avals)
    closed = closed.replace(jaxpr=dce_jaxpr(closed.jaxpr, is_read, instantiate=True)[0])
    leaves, residuals_tree = jax.tree.flatten(residuals)
    count, out_tree = len(leaves), jax.tree.structure(out)

    @_compiled
    def flat_backward(is_zero: tuple[bool, ...], *leaves: Any) -> list:
        avals, zeros = closed.out_avals, list(is_zero)
        symbolic = [SymbolicZero(aval) for aval in split(avals, zeros)[1]]
        cotangents = merge(list(leaves[count:]), symbolic, zeros)
        residuals = residuals_tree.unflatten(leaves[:count])
        return jax.tree.leaves(backward(residuals, out_tree.unflatten(cotangents)))

    outs = _transposable_p.bind(
        *leaves,
        *jax.tree.leaves(tangents),
        forward=closed,
        backward=flat_backward,
        count=count,
    )
    return out_tree.unflatten(outs)


def dense(cotangents: PyTree) -> PyTree:
    """Cotangents as arrays: zeros in place of `SymbolicZero`s."""

    def as_array(c: Any) -> Any:
        return instantiate_zeros(Zero(c.aval)) if isinstance(c, SymbolicZero) else c

    return jax.tree.map(as_array, cotangents)


def only_arrays(cotangents: PyTree) -> list:
    """The leaves that are arrays."""
    leaves = jax.tree.leaves(cotangents)
    return [c for c in leaves if not isinstance(c, SymbolicZero)]


def _push_forward(primals: Any, tangents: Any, **params: Any) -> tuple[list, list]:
    count, terms = params["count"], []
    outs = _transposable_p.bind(*primals, **params)
    if any(map(_is_perturbed, tangents[count:])):
        d_tangents = map(instantiate_zeros, tangents[count:])
        terms.append(_transposable_p.bind(*primals[:count], *d_tangents, **params))
    if any(map(_is_perturbed, tangents[:count])):
        terms.append(_from_residuals(params["forward"], primals, tangents[:count]))
    if not terms:  # Only integers are perturbed.
        return outs, [Zero(jax.typeof(out).to_tangent_aval()) for out in outs]
    return outs, [sum(pair[1:], pair[0]) for pair in zip(*terms, strict=True)]


def _from_residuals(forward: Any, primals: Any, d_residuals: Any) -> list:
    """What perturbed residuals contribute to the tangents of the outputs."""
    rest = [False] * (len(primals) - len(d_residuals))
    marks = [*map(_is_perturbed, d_residuals), *rest]
    unperturbed, perturbed = split(primals, marks)

    def of_perturbed(*perturbed: Any) -> list:
        return run(*merge(unperturbed, list(perturbed), marks), forward=forward)

    d_perturbed = [d for d in d_residuals if _is_perturbed(d)]
    return jax.jvp(of_perturbed, perturbed, d_perturbed)[1]


def _is_perturbed(tangent: Any) -> bool:
    return type(tangent) is not Zero and tangent.dtype != jax.dtypes.float0


def _transpose(
    cotangents: Any, *args: Any, forward: Any, backward: Any, count: int
) -> list:
    is_zero = tuple(type(c) is Zero for c in cotangents)
    arrays = split(cotangents, list(is_zero))[0]
    transposed = backward(is_zero, *args[:count], *arrays)
    pairs = zip(args[count:], transposed, strict=True)
    linear = [c if is_undefined_primal(primal) else None for primal, c in pairs]
    return [None] * count + linear


def _batch(
    axis: Any, args: Any, dims: Any, *, forward: Any, backward: Any, count: int
) -> tuple[list, list]:
    # All tangents are batched, so that the results of the transpose are too.
    like = next((x, d) for x, d in zip(args, dims, strict=True) if d is not None)
    as_batch = lambda x, d: _batched(x, d, *like)
    tangents = map(as_batch, args[count:], dims[count:])
    args = [*args[:count], *tangents]
    vmap = vmap_over(axis)
    axes = lambda args: (*dims[:count], *[0] * (len(args) - count))
    one = functools.partial(run, forward=forward)

    @_compiled
    def batched_backward(is_zero: tuple[bool, ...], *leaves: Any) -> list:
        return vmap(functools.partial(backward, is_zero), axes(leaves))(*leaves)

    outs = _transposable_p.bind(
        *args,
        forward=jax.make_jaxpr(vmap(one, axes(args)))(*args),
        backward=batched_backward,
        count=count,
    )
    return outs, [0] * len(outs)


def _batched(x: Any, dim: int | None, like: Any, like_dim: int) -> Any:
    if dim is None:
        return broadcast_first(x, like, like_dim)
    return jnp.moveaxis(x, dim, 0)


_transposable_p = program_primitive(
    "transposable", push_forward=_push_forward, batch=_batch
)
primitive_transposes[_transposable_p] = _transpose
