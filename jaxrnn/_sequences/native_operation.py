"""The one operation that JAX lacks: a program of XLA's that is another one on CPUs.

`jax.custom_jvp` has no place for a transpose, `jax.custom_vjp` none for forward mode,
and nothing documented tells for which platform a program is compiled.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.jax_internals import (
    Primitive,
    lower_fun,
    primitive_batchers,
    primitive_jvps,
    primitive_transposes,
    register_lowering,
)
from .._base.typing import PyTree


def run_beside_xla(
    native: Callable,
    xla: Callable,
    *args: PyTree,
    transpose: Any = None,
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
    linear = jax.tree.structure(args[-1])
    out = jax.tree.structure(jax.eval_shape(native, *args))
    config: Any = jax.config
    precision = config.jax_default_matmul_precision

    def flat(fn: Callable) -> Callable:
        def run(*leaves: Any) -> list:
            with jax.default_matmul_precision(precision):  # It is traced later.
                return jax.tree.leaves(fn(*tree.unflatten(leaves)))

        return run

    def flat_transpose(*leaves: Any) -> list:
        count = tree.num_leaves - linear.num_leaves
        zeros = [jnp.zeros(x.shape, x.dtype) for x in args_types[count:]]
        *others, _ = tree.unflatten([*leaves[:count], *zeros])
        return jax.tree.leaves(transpose(*others, out.unflatten(leaves[count:])))

    args_types = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
    count = len(leaves) - linear.num_leaves if transpose else len(leaves)
    transposed = flat_transpose if transpose else None
    return out.unflatten(
        _bind(flat(native), flat(xla), transposed, count, refusal, leaves)
    )


def _bind(
    native: Callable,
    xla: Callable,
    transpose: Callable | None,
    count: int,
    refusal: str | None,
    leaves: list,
) -> list:
    """The operation on leaves, the last ones of which, from `count` on, are linear."""
    avals = tuple(jax.make_jaxpr(native)(*leaves).out_avals)
    return _operation.bind(
        *leaves,
        native=native,
        xla=xla,
        transpose=transpose,
        count=count,
        refusal=refusal,
        avals=avals,
    )


def _run(*leaves: Any, native: Callable, xla: Callable, **_: Any) -> list:
    """The operation outside of jit."""
    devices = (device for x in leaves for device in x.devices())
    platforms = {device.platform for device in devices} or {jax.default_backend()}
    return (native if platforms == {"cpu"} else xla)(*leaves)


def _lower(
    ctx: Any, *leaves: Any, native: Callable, xla: Callable, refusal: Any, **_: Any
) -> Any:
    module = ctx.module_context
    is_on_cpu = tuple(ctx.platforms or module.platforms) == ("cpu",)
    if is_on_cpu and not module.lowering_parameters.for_export:
        return lower_fun(native, multiple_results=True)(ctx, *leaves)
    if refusal is not None:
        raise ValueError(refusal)
    return lower_fun(xla, multiple_results=True)(ctx, *leaves)


def _push_forward(primals: Any, tangents: Any, **params: Any) -> tuple[list, list]:
    """Derivatives of derivatives: those of XLA's program."""
    outs = _operation.bind(*primals, **params)
    marks = [isinstance(d, jax.Array) for d in tangents]

    def of_perturbed(*perturbed: Any) -> list:
        rest = iter(perturbed)
        pairs = zip(primals, marks, strict=True)
        return params["xla"](*(next(rest) if mark else x for x, mark in pairs))

    pairs = list(zip(primals, tangents, marks, strict=True))
    primals = [x for x, _, mark in pairs if mark]
    return outs, jax.jvp(of_perturbed, primals, [d for _, d, m in pairs if m])[1]


def _transpose(
    cotangents: Any, *leaves: Any, transpose: Callable, count: int, avals: Any, **_: Any
) -> list:
    dense = [
        ct if isinstance(ct, jax.Array) else jnp.zeros(aval.shape, aval.dtype)
        for ct, aval in zip(cotangents, avals, strict=True)
    ]
    transposed = transpose(*leaves[:count], *dense)
    pairs = zip(leaves[count:], transposed, strict=True)
    linear = [None if isinstance(x, jax.Array) else ct for x, ct in pairs]
    return [None] * count + linear


def _batch(
    leaves: Any,
    dims: Any,
    *,
    native: Callable,
    xla: Callable,
    transpose: Any,
    count: int,
    refusal: str | None,
    **_: Any,
) -> tuple[list, list]:
    pairs = list(zip(leaves, dims, strict=True))
    size = next(x.shape[d] for x, d in pairs if d is not None)
    # All that is linear is mapped, so that the results of the transpose are, too.
    linear = [
        jnp.broadcast_to(x, (size, *x.shape)) if d is None else jnp.moveaxis(x, d, 0)
        for x, d in pairs[count:]
    ]
    leaves = [*leaves[:count], *linear]
    axes = (*dims[:count], *[0] * len(linear))
    mapped = functools.partial(jax.vmap, axis_size=size)

    def mapped_transpose(*leaves: Any) -> list:
        axes = (*dims[:count], *[0] * (len(leaves) - count))
        return mapped(transpose, axes)(*leaves)

    outs = _bind(
        mapped(native, axes),
        mapped(xla, axes),
        transpose and mapped_transpose,
        count,
        refusal,
        leaves,
    )
    return outs, [0] * len(outs)


_operation = Primitive("native")
_operation.multiple_results = True
_operation.def_impl(_run)
_operation.def_abstract_eval(lambda *_, avals, **__: avals)
register_lowering(_operation, _lower)
primitive_jvps[_operation] = _push_forward
primitive_transposes[_operation] = _transpose
primitive_batchers[_operation] = _batch
