"""Primitives that stand for a program and have their own rules."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from .jax_internals import (
    Primitive,
    dce_rules,
    fancy_primitive_batchers,
    jaxpr_as_fun,
    lower_fun,
    primitive_jvps,
    primitive_transposes,
    register_lowering,
)


def program_primitive(
    name: str,
    *,
    push_forward: Callable,
    batch: Callable,
    transpose: Callable | None = None,
    drop_outputs: Callable | None = None,
) -> Any:
    """A primitive that runs its parameter `forward`, a closed jaxpr.

    Args:
        name: Its name in programs.
        push_forward: `outs, out_tangents = push_forward(primals, tangents, **params)`.
        batch: `outs, dims = batch(axis, args, dims, **params)`.
        transpose: `cotangents = transpose(out_cotangents, *args, **params)`.
        drop_outputs: `used_inputs, equation = drop_outputs(used_outputs, equation)`.
    """
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_impl(run)
    primitive.def_effectful_abstract_eval(_out_types)
    register_lowering(primitive, lower_fun(run, multiple_results=True))
    primitive_jvps[primitive] = push_forward
    fancy_primitive_batchers[primitive] = batch
    if transpose is not None:
        primitive_transposes[primitive] = transpose
    if drop_outputs is not None:
        dce_rules[primitive] = drop_outputs
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
