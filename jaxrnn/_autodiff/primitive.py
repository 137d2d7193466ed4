"""Primitives that stand for a program and have custom rules."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from .jax_internals import (
    Primitive,
    fancy_primitive_batchers,
    jaxpr_as_fun,
    lower_fun,
    primitive_jvps,
    register_lowering,
)


def program_primitive(
    name: str,
    *,
    push_forward: Callable | None = None,
    batch: Callable,
    lower: Callable | None = None,
    run_eagerly: Callable | None = None,
) -> Any:
    """A primitive that runs its parameter `forward`, a closed jaxpr.

    Args:
        name: Its name in programs.
        push_forward: `outs, out_tangents = push_forward(primals, tangents, **params)`;
            None for a primitive without a derivative.
        batch: `outs, dims = batch(axis, args, dims, **params)`; some dim is not None.
        lower: Its lowering rule; None for that of `forward`.
        run_eagerly: `outs = run_eagerly(*args, **params)`; None to run `forward`.
    """
    primitive = Primitive(name)
    primitive.multiple_results = True

    def batch_any(axis: Any, args: Any, dims: Any, **params: Any) -> tuple[list, list]:
        if any(d is not None for d in dims):
            return batch(axis, args, dims, **params)
        outs = primitive.bind(*args, **params)
        return outs, [None] * len(outs)

    primitive.def_impl(run_eagerly or run)
    primitive.def_effectful_abstract_eval(_out_types)
    register_lowering(primitive, lower or lower_fun(run, multiple_results=True))
    if push_forward is not None:
        primitive_jvps[primitive] = push_forward
    fancy_primitive_batchers[primitive] = batch_any
    return primitive


def run(*args: Any, forward: Any, **_: Any) -> list:
    """The results of the program."""
    return jaxpr_as_fun(forward)(*args)


def vmap_over(axis: Any) -> Callable:
    """The `jax.vmap` that a batching rule is part of."""
    return functools.partial(
        jax.vmap,
        axis_name=axis.name,
        axis_size=axis.size,
        spmd_axis_name=axis.spmd_name,
    )


def _out_types(*_: Any, forward: Any, **__: Any) -> tuple[list, Any]:
    return forward.out_avals, forward.effects
