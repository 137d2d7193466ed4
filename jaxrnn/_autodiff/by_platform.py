"""A function that is one program on CPUs and another program elsewhere.

JAX does not know the platform while it traces a program, and `lax.platform_dependent`
traces all alternatives. Here the program for other platforms is traced on lowering, and
only if it is lowered for one of them.
"""

from collections.abc import Callable
from typing import Any

import jax

from .._base.typing import PyTree
from .jax_internals import lower_fun
from .primitive import program_primitive, run, vmap_over


def by_platform(on_cpu: Callable, elsewhere: Callable, *args: PyTree) -> PyTree:
    """`on_cpu(*args)` on CPUs, `elsewhere(*args)` on other platforms and in exports.

    An exported program may run where what `on_cpu` calls is not installed. The results
    have no derivative.

    Args:
        on_cpu: A function; it closes over no arrays.
        elsewhere: Another with results of the same structure, shapes and dtypes; it
            closes over no arrays. If it raises, so does lowering.
        *args: The arguments of both.
    """
    leaves, tree = jax.tree.flatten(args)
    closed, out = jax.make_jaxpr(on_cpu, return_shape=True)(*args)
    config: Any = jax.config
    precision = config.jax_default_matmul_precision

    def flat_elsewhere(*leaves: Any) -> list:
        with jax.default_matmul_precision(precision):  # Lowering may be outside of it.
            return jax.tree.leaves(elsewhere(*tree.unflatten(leaves)))

    outs = _by_platform_p.bind(*leaves, forward=closed, elsewhere=flat_elsewhere)
    return jax.tree.structure(out).unflatten(outs)


def _run_eagerly(*args: Any, elsewhere: Callable, **params: Any) -> list:
    arrays = (x for x in args if isinstance(x, jax.Array))
    platforms = {device.platform for x in arrays for device in x.devices()}
    if (platforms or {jax.default_backend()}) == {"cpu"}:
        return run(*args, **params)
    return elsewhere(*args)


def _lower(ctx: Any, *args: Any, elsewhere: Callable, **params: Any) -> Any:
    module = ctx.module_context
    is_on_cpu = tuple(ctx.platforms or module.platforms) == ("cpu",)
    if is_on_cpu and not module.lowering_parameters.for_export:
        return lower_fun(run)(ctx, *args, **params)
    return lower_fun(elsewhere)(ctx, *args)


def _batch(
    axis: Any, args: Any, dims: Any, *, forward: Any, elsewhere: Callable
) -> tuple[list, list]:
    vmap = vmap_over(axis)
    on_cpu = lambda *args: run(*args, forward=forward)
    outs = by_platform(vmap(on_cpu, dims), vmap(elsewhere, dims), *args)
    return outs, [0] * len(outs)


_by_platform_p = program_primitive(
    "by_platform", batch=_batch, lower=_lower, run_eagerly=_run_eagerly
)
