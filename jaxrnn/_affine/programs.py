"""The programs of a cell's updates: inlined, and compared at other sizes."""

from collections.abc import Callable, Iterator, Set
from typing import Any

import jax

from .._autodiff.jax_internals import Jaxpr, JaxprEqn, Literal

# Elementwise operations.
ELEMENTWISE = frozenset(
    """
    abs add add_any and ceil clamp convert_element_type cos div eq exp exp2 floor ge gt
    integer_pow is_finite le log log1p logistic lt max min mul ne neg not or pow rem
    rsqrt select_n sign sin sqrt square stop_gradient sub tan tanh xor
    """.split()
)
# Equations of these names are replaced by the equations of the function that they call.
_CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")


# The parameters of equations that are sizes.
_SIZES = ("shape", "sizes", "new_sizes")


def shape_of(atom: Any) -> tuple[int, ...]:
    """The shape of a variable or literal of an equation."""
    return atom.aval.shape


def inlined(fn: Callable, *args: Any) -> Any:
    """`fn(*args)` without calls and without equations whose results are not used.

    Args:
        fn: A function of trees of arrays.
        *args: Its arguments.
    """
    closed, types = jax.make_jaxpr(fn, return_shape=True)(*args)
    results = _run(closed.jaxpr, closed.consts, jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(types), results)


def _run(jaxpr: Jaxpr, consts: list, args: list) -> list:
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else values[atom]
    for eqn in _used(jaxpr):
        results = _evaluate(eqn, [read(atom) for atom in eqn.invars])
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _used(jaxpr: Jaxpr) -> list[JaxprEqn]:
    """The equations that results depend on, or that have effects."""
    variables = lambda atoms: {a for a in atoms if not isinstance(a, Literal)}
    needed, used = variables(jaxpr.outvars), []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or needed.intersection(eqn.outvars):
            used.append(eqn)
            needed |= variables(eqn.invars)
    return used[::-1]


def _evaluate(eqn: JaxprEqn, args: list) -> list:
    name, params = eqn.primitive.name, eqn.params
    if name in _CALLS:
        inner = params["jaxpr" if "jaxpr" in params else "call_jaxpr"]
        return _run(inner.jaxpr, inner.consts, args)
    result = eqn.primitive.bind(*args, **params)
    return result if eqn.primitive.multiple_results else [result]


def without_sizes(jaxpr: Jaxpr) -> Iterator[tuple]:
    """The equations in a form that is equal for programs that differ in sizes alone."""
    numbers = {x: i for i, x in enumerate((*jaxpr.constvars, *jaxpr.invars))}

    def name(atom: Any) -> str | int:
        if isinstance(atom, Literal):
            return repr(atom.val)
        return numbers.setdefault(atom, len(numbers))

    for eqn in jaxpr.eqns:
        params = {k: str(v) for k, v in eqn.params.items() if k not in _SIZES}
        names = [*map(name, eqn.invars)], [*map(name, eqn.outvars)]
        yield eqn.primitive.name, params, *names
    yield tuple(map(name, jaxpr.outvars))


def by_unit(eqn: JaxprEqn, elementwise: Set[str]) -> bool:
    """Whether it computes each unit by itself, or takes equal blocks apart."""
    name, shapes = eqn.primitive.name, [shape_of(x) for x in eqn.invars]
    if name in ("reshape", "squeeze"):
        sizes = lambda shape: [n for n in shape if n != 1]
        return sizes(shapes[0]) == sizes(shape_of(eqn.outvars[0]))
    if name == "split":
        return len(set(eqn.params["sizes"])) == 1
    return name == "broadcast_in_dim" or name in elementwise
