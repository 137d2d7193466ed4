"""A function with a custom derivative rule, which no transformation removes.

`jax.custom_jvp` loses its rule where JAX partially evaluates a program: where a scan is
differentiated backward twice, the function is replaced by its operations, and a loop
that ends at run time has no derivative without the rule. A primitive is never replaced.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.custom_batching import custom_vmap

from .._base.gathers import read_first
from .._base.typing import PyTree
from .jax_internals import SymbolicZero, Zero, dce_jaxpr, dce_rules
from .leaves import is_float, merge, split
from .primitive import program_primitive, run, vmap_over


def differentiable(
    fn: Callable[..., PyTree], rule: Callable[[Any, Any], Any], *args: PyTree
) -> PyTree:
    """`fn(*args)`, with `rule` for its derivative.

    Args:
        fn: The function; it closes over no arrays.
        rule: `outs, out_tangents = rule(args, tangents)`, that of a `jax.custom_jvp`
            with symbolic zeros; it closes over no arrays.
        *args: The arguments of both.
    """
    leaves, tree = jax.tree.flatten(args)
    closed, out = jax.make_jaxpr(fn, return_shape=True)(*args)

    def flat_rule(primals: list, tangents: list) -> tuple[list, list]:
        outs, out_tangents = rule(tree.unflatten(primals), tree.unflatten(tangents))
        return jax.tree.leaves(outs), jax.tree.leaves(out_tangents)

    outs = _differentiable_p.bind(*leaves, forward=closed, rule=flat_rule)
    return jax.tree.structure(out).unflatten(outs)


def _push_forward(
    primals: Any, tangents: Any, *, rule: Callable, **_: Any
) -> tuple[list, list]:
    symbolic = lambda t: SymbolicZero(t.aval) if type(t) is Zero else t
    outs, out_tangents = rule(list(primals), list(map(symbolic, tangents)))
    return outs, [Zero(t.aval) if _is_zero(t) else t for t in out_tangents]


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)


def _batch(
    axis: Any, args: Any, dims: Any, *, forward: Any, rule: Callable
) -> tuple[list, list]:
    vmap = vmap_over(axis)
    closed, is_batched = _batched_program(vmap, forward, args, dims)

    def batched_rule(primals: list, tangents: list) -> tuple[list, list]:
        is_zero = list(map(_is_zero, tangents))
        zeros = [SymbolicZero(aval.to_tangent_aval()) for aval in forward.in_avals]
        zeros, perturbed = split(zeros, is_zero)[1], split(tangents, is_zero)[0]

        def one(primals: list, perturbed: list) -> tuple[list, list]:
            outs, d_outs = rule(primals, merge(perturbed, zeros, is_zero))
            return outs, [None if _is_zero(d) else d for d in d_outs]

        axes = list(dims), split(dims, is_zero)[0]
        outs, d_outs = vmap(one, axes)(primals, perturbed)
        outs = _only_batched(outs, is_batched)
        symbolic = lambda x: SymbolicZero(jax.typeof(x).to_tangent_aval())
        pairs = zip(outs, d_outs, strict=True)
        return outs, [symbolic(x) if d is None else d for x, d in pairs]

    outs = _differentiable_p.bind(*args, forward=closed, rule=batched_rule)
    return outs, [0 if b else None for b in is_batched]


def _batched_program(
    vmap: Callable, forward: Any, args: Any, dims: Any
) -> tuple[Any, list[bool]]:
    """The mapped program, and which of its results are batched.

    All floats are, so that their tangents are too. But a number of steps that the whole
    batch has in common stays one number, since it ends loops.
    """
    floats = [is_float(aval) for aval in forward.out_avals]
    is_batched = list(floats)

    @custom_vmap
    def observe_batching(ints: list) -> list:
        return ints

    @observe_batching.def_vmap
    def _(axis_size: int, in_batched: Any, ints: list) -> Any:
        del axis_size
        is_batched[:] = merge(in_batched[0], [True] * sum(floats), floats)
        return ints, in_batched[0]

    def one(*args: Any) -> list:
        ints, others = split(run(*args, forward=forward), floats)
        return merge(observe_batching(ints) if ints else [], others, floats)

    batched = lambda *args: _only_batched(vmap(one, dims)(*args), is_batched)
    return jax.make_jaxpr(batched)(*args), is_batched


def _only_batched(outs: list, is_batched: list[bool]) -> list:
    """Mapped results; a single one in place of results that are all equal."""
    return [x if b else read_first(x) for x, b in zip(outs, is_batched, strict=True)]


def _drop_outputs(is_used: list[bool], *rest: Any) -> tuple[list[bool], Any]:
    """The equation without results that nothing reads.

    Since JAX 0.12 the rule is also given the inputs that are live, before the equation.
    """
    eqn = rest[-1]
    if not any(is_used) and not eqn.effects:
        return [False] * len(eqn.invars), None
    forward, rule = eqn.params["forward"], eqn.params["rule"]
    jaxpr, _ = dce_jaxpr(forward.jaxpr, is_used, instantiate=True)

    def used_rule(primals: list, tangents: list) -> tuple[list, list]:
        outs, out_tangents = rule(primals, tangents)
        return split(outs, is_used)[1], split(out_tangents, is_used)[1]

    params = {"forward": forward.replace(jaxpr=jaxpr), "rule": used_rule}
    outvars = split(eqn.outvars, is_used)[1]
    return [True] * len(eqn.invars), eqn.replace(outvars=outvars, params=params)


_differentiable_p = program_primitive(
    "differentiable", push_forward=_push_forward, batch=_batch
)
dce_rules[_differentiable_p] = _drop_outputs
