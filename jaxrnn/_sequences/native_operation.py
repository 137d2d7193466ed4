"""The one operation that JAX lacks: a program of XLA's that is another one on CPUs.

`jax.custom_jvp` has no place for a transpose, `jax.custom_vjp` none for forward mode,
and nothing documented tells for which platform a program is compiled.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base import jax_internals
from .._base.sharding import as_varying_as
from .._base.typing import PyTree


def why_not_in_jax() -> str | None:
    """Why this JAX, newer than any that was tested, lacks what is needed; or None."""
    return jax_internals.MISSING


def run_beside_xla(
    native: Callable,
    xla: Callable,
    *args: PyTree,
    transpose: Callable | None = None,
    refusal: str | None = None,
) -> PyTree:
    """`native(*args)` on CPUs; elsewhere, in exports and for derivatives `xla(*args)`.

    An exported program may run where what `native` calls is not installed.

    Args:
        native: A function; it closes over no arrays.
        xla: Another with results of the same structure, shapes and dtypes; it closes
            over no arrays.
        *args: The arguments of both, trees of arrays.
        transpose: If they are linear in the last argument, the transpose: from the
            other arguments and the cotangents of the results to that argument's.
        refusal: Why there is no program for other platforms; None if `xla` is.
    """
    leaves, tree = jax.tree.flatten(args)
    others = jax.tree.structure(args[:-1] if transpose else args)
    count = others.num_leaves
    program, types = jax.make_jaxpr(native, return_shape=True)(*args)
    out = jax.tree.structure(types)
    config: Any = jax.config
    precision = config.jax_default_matmul_precision

    def flat(fn: Callable) -> Callable:
        def run(*leaves: Any) -> list:
            with jax.default_matmul_precision(precision):  # It is traced later.
                return jax.tree.leaves(fn(*tree.unflatten(leaves)))

        return run

    def flat_transpose(*leaves: Any) -> list:
        fixed, cts = others.unflatten(leaves[:count]), out.unflatten(leaves[count:])
        return jax.tree.leaves(transpose(*fixed, cts)) if transpose else []

    programs = _Programs(flat(native), flat(xla), flat_transpose, count, refusal)
    return out.unflatten(_bind(leaves, programs, program.out_avals))


@dataclasses.dataclass(frozen=True, eq=False)
class _Programs:
    """The functions of one operation, of leaves, which return lists of leaves.

    Attributes:
        native: What runs on CPUs.
        xla: What runs elsewhere.
        transpose: Their transpose, if they are linear in the leaves from `count` on.
        count: The number of leaves that are not linear.
        refusal: Why there is no program for other platforms; None if `xla` is.
    """

    native: Callable
    xla: Callable
    transpose: Callable
    count: int
    refusal: str | None


def _run(*leaves: Any, programs: _Programs, avals: Any) -> list:
    """The operation outside of jit."""
    del avals
    arrays = (x for x in leaves if isinstance(x, jax.Array))  # Some may be scalars.
    devices = (device for x in arrays for device in x.devices())
    platforms = {device.platform for device in devices} or {jax.default_backend()}
    return (programs.native if platforms == {"cpu"} else programs.xla)(*leaves)


def _lower(ctx: Any, *leaves: Any, programs: _Programs, avals: Any) -> Any:
    del avals
    module = ctx.module_context
    is_on_cpu = tuple(ctx.platforms or module.platforms) == ("cpu",)
    is_native = is_on_cpu and not module.lowering_parameters.for_export
    if not is_native and programs.refusal is not None:
        raise ValueError(programs.refusal)
    run = programs.native if is_native else programs.xla
    return jax_internals.lower_fun(run, multiple_results=True)(ctx, *leaves)


def _push_forward(
    primals: Any, tangents: Any, *, programs: _Programs, avals: Any
) -> tuple[list, list]:
    """Derivatives of derivatives: those of XLA's program."""
    is_perturbed = [isinstance(d, jax.Array) for d in tangents]

    def of_perturbed(*perturbed: Any) -> list:
        rest = iter(perturbed)
        pairs = zip(primals, is_perturbed, strict=True)
        return programs.xla(*(next(rest) if mark else x for x, mark in pairs))

    perturbed = [x for x, mark in zip(primals, is_perturbed, strict=True) if mark]
    d_perturbed = [d for d in tangents if isinstance(d, jax.Array)]
    _, d_outs = jax.jvp(of_perturbed, perturbed, d_perturbed)
    return _bind(primals, programs, avals), d_outs


def _pull_back(cts: Any, *leaves: Any, programs: _Programs, avals: Any) -> list:
    """The cotangents of what is unknown of the linear leaves; None for all others."""
    count = programs.count
    zeros = as_varying_as(leaves[:count], [jnp.zeros(a.shape, a.dtype) for a in avals])
    pairs = zip(cts, zeros, strict=True)
    cts = [ct if isinstance(ct, jax.Array) else zero for ct, zero in pairs]
    found = zip(leaves[count:], programs.transpose(*leaves[:count], *cts), strict=True)
    linear = [None if isinstance(x, jax.Array) else ct for x, ct in found]
    return [None] * count + linear


def _batch(
    leaves: Any, dims: Any, *, programs: _Programs, avals: Any
) -> tuple[list, list]:
    """The same operation with mapped functions, whose results are mapped at axis 0."""
    del avals
    pairs, count = list(zip(leaves, dims, strict=True)), programs.count
    size = next(x.shape[axis] for x, axis in pairs if axis is not None)
    # All that is linear is mapped, so that the results of the transpose are, too.
    copies = lambda x: jnp.broadcast_to(x, (size, *x.shape))
    first = lambda x, axis: copies(x) if axis is None else jnp.moveaxis(x, axis, 0)
    linear = [first(x, axis) for x, axis in pairs[count:]]

    def mapped(fn: Callable) -> Callable:
        def run(*leaves: Any) -> list:
            axes = (*dims[:count], *[0] * (len(leaves) - count))
            return jax.vmap(fn, axes, axis_size=size)(*leaves)

        return run

    leaves = [*leaves[:count], *linear]
    fields = {n: mapped(getattr(programs, n)) for n in ("native", "xla", "transpose")}
    programs = dataclasses.replace(programs, **fields)
    avals = jax.make_jaxpr(programs.native)(*leaves).out_avals
    outs = _bind(leaves, programs, avals)
    return outs, [0] * len(outs)


@functools.cache
def _operation() -> Any:
    """The operation with its rules."""
    operation = jax_internals.Primitive("native")
    operation.multiple_results = True
    operation.def_impl(_run)
    operation.def_abstract_eval(lambda *_, programs, avals: avals)
    jax_internals.register_lowering(operation, _lower)
    jax_internals.primitive_jvps[operation] = _push_forward
    jax_internals.primitive_transposes[operation] = _pull_back
    jax_internals.primitive_batchers[operation] = _batch
    return operation


def _bind(leaves: Any, programs: _Programs, avals: Any) -> list:
    return _operation().bind(*leaves, programs=programs, avals=tuple(avals))
