"""A function that brings its own derivative, and is never parted from it.

`jax.custom_jvp` does so until JAX partially evaluates a program: where a scan is
differentiated backward twice, the function is replaced by its parts, and of a loop that
ends at run time these have no derivative. A primitive stays what it is.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero
from jax.interpreters import ad, batching, partial_eval

from .._base.typing import PyTree
from .leaves import is_float, merge, split
from .primitive import program_primitive, run, vmap_over


def differentiable(
    fn: Callable[..., PyTree], rule: Callable[[Any, Any], Any], *args: PyTree
) -> PyTree:
    """`fn(*args)`, of which `rule` gives the derivative.

    Args:
        fn: The function; it closes over no arrays.
        rule: `outs, tangents = rule(args, tangents)`, that of a `jax.custom_jvp` with
            symbolic zeros; it closes over no arrays.
        *args: What both are given.
    """
    leaves, tree = jax.tree.flatten(args)
    closed, out = jax.make_jaxpr(fn, return_shape=True)(*args)

    def flat_rule(primals: list, tangents: list) -> tuple[list, list]:
        outs, moved = rule(tree.unflatten(primals), tree.unflatten(tangents))
        return jax.tree.leaves(outs), jax.tree.leaves(moved)

    outs = _differentiable_p.bind(*leaves, forward=closed, rule=flat_rule)
    return jax.tree.structure(out).unflatten(outs)


def _push_forward(
    primals: Any, tangents: Any, *, rule: Callable, **_: Any
) -> tuple[list, list]:
    symbolic = lambda t: SymbolicZero(t.aval) if type(t) is ad.Zero else t
    outs, moved = rule(list(primals), list(map(symbolic, tangents)))
    return outs, [ad.Zero(t.aval) if _is_zero(t) else t for t in moved]


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)


def _batch(
    axis: Any, args: Any, dims: Any, *, forward: Any, rule: Callable
) -> tuple[list, list]:
    if all(d is None for d in dims):
        outs = _differentiable_p.bind(*args, forward=forward, rule=rule)
        return outs, [None] * len(outs)
    vmap, is_batched = vmap_over(axis), [True] * len(forward.out_avals)
    floats = [is_float(aval) for aval in forward.out_avals]

    # What floats is batched throughout, so that its tangent is too. But a number of
    # steps that all have in common stays one: loops end by it.
    @custom_vmap
    def look(ints: list) -> list:
        return ints

    @look.def_vmap
    def _(axis_size: int, in_batched: Any, ints: list) -> Any:
        del axis_size
        is_batched[:] = merge(in_batched[0], [True] * sum(floats), floats)
        return ints, in_batched[0]

    def one(*args: Any) -> list:
        ints, moving = split(run(*args, forward=forward), floats)
        return merge(look(ints) if ints else [], moving, floats)

    def batched(*args: Any) -> list:
        is_batched[:] = floats
        return only_batched(vmap(one, dims)(*args))

    def only_batched(outs: list) -> list:
        return [x if b else x[0] for x, b in zip(outs, is_batched, strict=True)]

    def batched_rule(primals: list, tangents: list) -> tuple[list, list]:
        outs, moved = _run_rule(vmap, rule, forward, dims, primals, tangents)
        outs = only_batched(outs)
        at_rest = [SymbolicZero(jax.typeof(x).to_tangent_aval()) for x in outs]
        pairs = zip(moved, at_rest, strict=True)
        return outs, [zero if d is None else d for d, zero in pairs]

    closed = jax.make_jaxpr(batched)(*args)
    outs = _differentiable_p.bind(*args, forward=closed, rule=batched_rule)
    return outs, [0 if b else None for b in is_batched]


def _run_rule(
    vmap: Callable,
    rule: Callable,
    forward: Any,
    dims: Any,
    primals: list,
    tangents: list,
) -> tuple[list, list]:
    """What the rule gives of each, with None for tangents of what does not move."""
    still = list(map(_is_zero, tangents))
    zeros = [SymbolicZero(aval.to_tangent_aval()) for aval in forward.in_avals]
    zeros, (moving, _) = split(zeros, still)[1], split(tangents, still)

    def one(primals: list, moving: list) -> tuple[list, list]:
        outs, moved = rule(primals, merge(moving, zeros, still))
        return outs, [None if _is_zero(d) else d for d in moved]

    return vmap(one, (list(dims), split(dims, still)[0]))(primals, moving)


def _leave_out(is_used: list[bool], eqn: Any) -> tuple[list[bool], Any]:
    """Without the outputs that nothing reads."""
    if not any(is_used) and not eqn.effects:
        return [False] * len(eqn.invars), None
    forward, rule = eqn.params["forward"], eqn.params["rule"]
    jaxpr, _ = partial_eval.dce_jaxpr(forward.jaxpr, is_used, instantiate=True)

    def used_rule(primals: list, tangents: list) -> tuple[list, list]:
        outs, moved = rule(primals, tangents)
        return split(outs, is_used)[1], split(moved, is_used)[1]

    params = {"forward": forward.replace(jaxpr=jaxpr), "rule": used_rule}
    outvars = split(eqn.outvars, is_used)[1]
    return [True] * len(eqn.invars), eqn.replace(outvars=outvars, params=params)


_differentiable_p = program_primitive("differentiable")
ad.primitive_jvps[_differentiable_p] = _push_forward
batching.fancy_primitive_batchers[_differentiable_p] = _batch
partial_eval.dce_rules[_differentiable_p] = _leave_out
