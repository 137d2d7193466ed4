"""Tools for derivatives of any function; this file knows neither cells nor runs.

* `with_float32_gradients` makes JAX sum gradients over steps in float32. If every step
  reads an array, such as a parameter, the gradient of the array is a sum over the
  steps. By default, JAX accumulates this sum in the dtype of the array. In bfloat16,
  after some hundred steps, a new term is often too small to change the rounded sum, and
  is lost.
* `closure_converted` turns the arrays that a function closes over into an argument.
* `in_reverse`, `jvp_of_perturbed` and `with_forward_only` define derivative rules.
* `without_checks` removes run-time checks, which derivatives traced later would keep.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from .jax_internals import eval_jaxpr
from .math import at_least_float32, is_float, is_perturbed
from .sharding import instantiated
from .typing import Array, PyTree


def with_float32_gradients(tree: PyTree) -> Callable[[], PyTree]:
    """Returns a function that returns `tree`, for the body of a loop over steps.

    Call the function inside the body, at each step. Its result has the values of
    `tree`, but takes its tangent from a float32 copy, made before the loop. The
    transpose of the loop therefore adds the cotangents of all steps in float32, and
    rounds once, after the loop.
    """
    leaves, structure = jax.tree.flatten(tree)
    copies = [_float32_copy(leaf) for leaf in leaves]

    def at_step() -> PyTree:
        pairs = zip(leaves, copies, strict=True)
        return structure.unflatten(
            leaf if copy is None else straight_through(leaf, copy.astype(leaf.dtype))
            for leaf, copy in pairs
        )

    return at_step


def _float32_copy(leaf: Any) -> Array | None:
    """A float32 copy of an array with a narrower floating-point dtype, or None."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        return None
    return None if at_least_float32(dtype) == dtype else leaf.astype(jnp.float32)


@jax.custom_jvp
def straight_through(value: Array, tangent_from: Array) -> Array:
    """Returns `value` with the tangent of another array, whose values are not read."""
    del tangent_from
    return value


@functools.partial(straight_through.defjvp, symbolic_zeros=True)
def _tangent_of_other(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # If the value has no tangent, the result of this rule is `straight_through` again,
    # so that a second derivative also takes the tangent of the other array.
    value = primals[0] if is_perturbed(tangents[0]) else straight_through(*primals)
    return value, instantiated(tangents[1])


def closure_converted(
    fn: Callable[..., PyTree], *args: PyTree
) -> tuple[Callable[..., PyTree], list[Array], PyTree, PyTree]:
    """Turns the arrays that a function closes over into an argument.

    Args:
        fn: A function that closes over arrays. The function is traced once.
        *args: The arguments of `fn`.

    Returns:
        `(pure, arrays, types, program)`:

        * `pure` closes over no arrays, and `pure(arrays, *args)` equals `fn(*args)`.
        * `arrays` is the list of the arrays that `fn` closed over.
        * `types` is the nest of the types of the results.
        * `program` is the jaxpr.
    """
    closed, types = jax.make_jaxpr(fn, return_shape=True)(*args)
    structure = jax.tree.structure(types)

    def pure(arrays: list[Array], *args: PyTree) -> PyTree:
        results = eval_jaxpr(closed.jaxpr, arrays, *jax.tree.leaves(args))
        return structure.unflatten(results)

    return pure, closed.consts, types, closed.jaxpr


def has_reverse_rule(program: Any) -> bool:
    """Whether a jaxpr calls a `jax.custom_vjp`, which has no forward mode.

    Calls inside a `jax.custom_jvp` do not count, because its rule replaces them.
    """

    def inner(eqn: Any) -> list:
        if eqn.primitive.name == "custom_jvp_call":
            return []
        programs = jax.tree.leaves(list(eqn.params.values()))
        return [x for x in programs if hasattr(x, "eqns")]

    return any(
        eqn.primitive.name == "custom_vjp_call"
        or any(map(has_reverse_rule, inner(eqn)))
        for eqn in program.eqns
    )


def in_reverse(fn: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Gives `fn` a rule for reverse mode; `fn` need not support forward mode.

    Without this rule, the gradient of a loop fails under `vmap` if a step calls a
    `jax.custom_vjp`: JAX would map over the tangents that the `jax.custom_jvp` of the
    loop computes, but it cannot map over tangents of a `jax.custom_vjp`. With this
    rule, JAX transposes the tangents before it maps over them, as it does for a scan.
    """

    def run(*args: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(args)

        def of_leaves(*leaves: object) -> PyTree:
            return fn(*structure.unflatten(leaves))

        def forward(*leaves: Any) -> tuple[PyTree, PyTree]:
            given = {i: x.value for i, x in enumerate(leaves) if x.perturbed}

            def of_given(given: dict[int, Array]) -> PyTree:
                return of_leaves(*(given.get(i, x.value) for i, x in enumerate(leaves)))

            return jax.vjp(of_given, given)

        def backward(pull: Callable, cts: PyTree) -> tuple:
            (found,) = pull(jax.tree.map(instantiated, cts))
            return tuple(map(found.get, range(len(leaves))))

        flat = jax.custom_vjp(of_leaves)
        flat.defvjp(forward, backward, symbolic_zeros=True)
        # JAX gives integer results of a `jax.custom_vjp` a tangent, for which many
        # operations have no rule. A conversion to the same dtype has no tangent.
        return jax.tree.map(
            lambda y: y if is_float(y) else jax.lax.bitcast_convert_type(y, y.dtype),
            flat(*leaves),
        )

    return run


def as_function_of(fn: Callable, args: Sequence, indices: Sequence[int]) -> Callable:
    """Returns `fn` as a function of `args` at `indices`; other arguments are fixed."""

    def run(*given: PyTree) -> PyTree:
        replaced = dict(zip(indices, given, strict=True))
        return fn(*(replaced.get(i, x) for i, x in enumerate(args)))

    return run


def jvp_of_perturbed(fn: Callable, args: Sequence, d_args: Sequence) -> tuple[Any, Any]:
    """Computes `jax.jvp(fn, args, d_args)`; a tangent may be a symbolic zero."""
    perturbed = [i for i, d in enumerate(d_args) if is_perturbed(d)]
    primals = [args[i] for i in perturbed]
    tangents = [d_args[i] for i in perturbed]
    return jax.jvp(as_function_of(fn, args, perturbed), primals, tangents)


def with_forward_only(
    fn: Callable[..., PyTree], forward_only: Callable[..., PyTree]
) -> Callable[..., PyTree]:
    """Returns a function that runs `fn` if differentiated, otherwise `forward_only`.

    Args:
        fn: A function of pytrees of arrays.
        forward_only: A faster function with the same results up to rounding.
    """

    def run(*args: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(args)

        def of_leaves(fn: Callable[..., PyTree]) -> Callable[..., PyTree]:
            return lambda *leaves: fn(*structure.unflatten(leaves))

        flat = jax.custom_jvp(of_leaves(forward_only))
        push = functools.partial(jvp_of_perturbed, of_leaves(fn))
        flat.defjvp(push, symbolic_zeros=True)
        return flat(*leaves)

    return run


def without_checks(f: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Returns the function without its run-time checks.

    A check is an effect in JAX, and `jax.export` cannot export effects.
    """
    checked = checkify.checkify(f, errors=frozenset())
    return lambda *arguments: checked(*arguments)[1]
