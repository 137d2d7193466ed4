"""A linear function that brings its own transpose.

JAX transposes a linear function by transposing its parts. Where that is impossible (a
loop that ends at run time) or slow, the transpose can be written out; unlike a
`custom_vjp`, the function can still be pushed forward, batched and differentiated
again, as its transpose can.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.interpreters import ad, batching

from .._base.typing import PyTree
from .primitive import program_primitive, run, vmap_over


def transposable(
    forward: Callable[[PyTree, PyTree], PyTree],
    backward: Callable[[PyTree, PyTree], PyTree],
    res: PyTree,
    lin: PyTree,
) -> PyTree:
    """`forward(res, lin)`, of which `backward(res, cotangents)` is the transpose.

    Args:
        forward: Linear in `lin`; it closes over no arrays.
        backward: From cotangents of what `forward` returns to those of `lin`, of which
            those that nothing depends on may be `SymbolicZero`s. It closes over no
            arrays, and both can be differentiated by all of their arguments.
        res: What both need to know.
        lin: What `forward` is linear in, floating.
    """
    closed, out = jax.make_jaxpr(forward, return_shape=True)(res, lin)
    leaves, res_tree = jax.tree.flatten(res)
    count, out_tree = len(leaves), jax.tree.structure(out)

    # Compiled, as outside of jit the transpose is all that a second call runs.
    @functools.partial(jax.jit, static_argnums=0, inline=True)
    def flat_backward(is_zero: tuple[bool, ...], *leaves: Any) -> list:
        nothing, moved = SymbolicZero, iter(leaves[count:])
        pairs = zip(closed.out_avals, is_zero, strict=True)
        cotangents = [nothing(aval) if zero else next(moved) for aval, zero in pairs]
        res = res_tree.unflatten(leaves[:count])
        return jax.tree.leaves(backward(res, out_tree.unflatten(cotangents)))

    outs = _transposable_p.bind(
        *leaves,
        *jax.tree.leaves(lin),
        forward=closed,
        backward=flat_backward,
        count=count,
    )
    return out_tree.unflatten(outs)


def dense(cotangents: PyTree) -> PyTree:
    """Cotangents as arrays, those that are `SymbolicZero`s as well."""

    def as_array(c: Any) -> Any:
        if not isinstance(c, SymbolicZero):
            return c
        return ad.instantiate_zeros(ad.Zero(c.aval))

    return jax.tree.map(as_array, cotangents)


def only_arrays(cotangents: PyTree) -> list:
    """The leaves that are arrays."""
    leaves = jax.tree.leaves(cotangents)
    return [c for c in leaves if not isinstance(c, SymbolicZero)]


_transposable_p = program_primitive("transposable")


def _push_forward(
    primals: Any, tangents: Any, *, forward: Any, backward: Any, count: int
) -> tuple[list, list]:
    static = {"forward": forward, "backward": backward, "count": count}
    outs = _transposable_p.bind(*primals, **static)
    res, lin = list(primals[:count]), primals[count:]
    parts = []
    if any(_moves(t) for t in tangents[count:]):
        d_lin = map(ad.instantiate_zeros, tangents[count:])
        parts.append(_transposable_p.bind(*res, *d_lin, **static))
    moved = [i for i in range(count) if _moves(tangents[i])]
    if moved:

        def of_moved(*values: Any) -> list:
            changed = dict(zip(moved, values, strict=True))
            return run(
                *(changed.get(i, r) for i, r in enumerate(res)), *lin, forward=forward
            )

        _, part = jax.jvp(
            of_moved, [res[i] for i in moved], [tangents[i] for i in moved]
        )
        parts.append(part)
    if not parts:  # Only integers move.
        return outs, [ad.Zero(jax.typeof(out).to_tangent_aval()) for out in outs]
    return outs, [sum(terms[1:], terms[0]) for terms in zip(*parts, strict=True)]


def _moves(tangent: Any) -> bool:
    return type(tangent) is not ad.Zero and tangent.dtype != jax.dtypes.float0


def _transpose(
    cotangents: Any, *args: Any, forward: Any, backward: Any, count: int
) -> list:
    is_zero = tuple(type(c) is ad.Zero for c in cotangents)
    some = [c for c, zero in zip(cotangents, is_zero, strict=True) if not zero]
    moved = backward(is_zero, *args[:count], *some)
    lin = [
        cotangent if ad.is_undefined_primal(primal) else None
        for primal, cotangent in zip(args[count:], moved, strict=True)
    ]
    return [None] * count + lin


def _batch(
    axis: Any, args: Any, dims: Any, *, forward: Any, backward: Any, count: int
) -> tuple[list, list]:
    static = {"forward": forward, "backward": backward, "count": count}
    if all(d is None for d in dims):
        outs = _transposable_p.bind(*args, **static)
        return outs, [None] * len(outs)
    vmap = vmap_over(axis)

    def to_front(x: Any, d: int | None) -> Any:
        # What is linear is batched throughout, so that the transpose is too.
        if d is None:
            return jnp.broadcast_to(x, (axis.size, *x.shape))
        return jnp.moveaxis(x, d, 0)

    axes = dims[:count]
    lin = map(to_front, args[count:], dims[count:])
    args = [*args[:count], *lin]
    one = functools.partial(run, forward=forward)
    batched = vmap(one, (*axes, *[0] * (len(args) - count)))

    @functools.partial(jax.jit, static_argnums=0, inline=True)
    def batched_backward(is_zero: tuple[bool, ...], *leaves: Any) -> list:
        one = functools.partial(backward, is_zero)
        return vmap(one, (*axes, *[0] * (len(leaves) - count)))(*leaves)

    outs = _transposable_p.bind(
        *args,
        forward=jax.make_jaxpr(batched)(*args),
        backward=batched_backward,
        count=count,
    )
    return outs, [0] * len(outs)


ad.primitive_jvps[_transposable_p] = _push_forward
ad.primitive_transposes[_transposable_p] = _transpose
batching.fancy_primitive_batchers[_transposable_p] = _batch
