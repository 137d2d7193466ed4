"""Functions written out in plain operations.

Pallas knows for Triton `split` and not its transpose, `concatenate`; nor functions with
a derivative of their own; nor arrays of no size, which steps make where a stage has no
operand.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._autodiff.jax_internals import Jaxpr, JaxprEqn, Literal
from .._base.typing import Array

# What is called by equations of these names is written out in their place.
_CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")


def rewritten(fn: Callable, *args: Any) -> Any:
    """`fn(*args)`, without what nothing depends on."""
    closed, types = jax.make_jaxpr(fn, return_shape=True)(*args)
    made = _run(closed.jaxpr, closed.consts, jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(types), made)


def _run(jaxpr: Jaxpr, consts: list, args: list) -> list:
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else values[atom]
    for eqn in _needed(jaxpr):
        made = _made(eqn, [read(atom) for atom in eqn.invars])
        values.update(zip(eqn.outvars, made, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _needed(jaxpr: Jaxpr) -> list[JaxprEqn]:
    """The equations that results depend on, or that have effects."""
    variables = lambda atoms: {a for a in atoms if not isinstance(a, Literal)}
    needed, kept = variables(jaxpr.outvars), []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or needed.intersection(eqn.outvars):
            kept.append(eqn)
            needed |= variables(eqn.invars)
    return kept[::-1]


def _made(eqn: JaxprEqn, args: list) -> list:
    name, params = eqn.primitive.name, eqn.params
    if name in _CALLS:
        inner = params["jaxpr" if "jaxpr" in params else "call_jaxpr"]
        return _run(inner.jaxpr, inner.consts, args)
    if name == "concatenate" and _may_join(eqn):
        return [_joined(args)]
    made = eqn.primitive.bind(*args, **params)
    return made if eqn.primitive.multiple_results else [made]


def _may_join(eqn: JaxprEqn) -> bool:
    """Whether matrices of one shape, a power of two of them, are put side by side."""
    count, shapes = len(eqn.invars), {_shape(x) for x in eqn.invars}
    flat = eqn.params["dimension"] == 1 and len(_shape(eqn.outvars[0])) == 2
    return flat and len(shapes) == 1 and count & (count - 1) == 0


def _joined(parts: list[Array]) -> Array:
    """Matrices side by side, two at a time."""
    while len(parts) > 1:
        parts = [_beside(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _beside(left: Array, right: Array) -> Array:
    rows, columns = left.shape
    pairs = jnp.stack([left, right], axis=-1)
    return jnp.swapaxes(pairs, 1, 2).reshape(rows, 2 * columns)


def _shape(atom: Any) -> tuple[int, ...]:
    return atom.aval.shape
