"""Primitives that stand for a program, to which rules of differentiation are added."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.extend as jex
from jax.interpreters import mlir


def program_primitive(name: str) -> Any:
    """A primitive that runs its parameter `forward`, a closed jaxpr."""
    primitive = jex.core.Primitive(name)
    primitive.multiple_results = True
    primitive.def_impl(run)
    primitive.def_effectful_abstract_eval(_out_types)
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=True))
    return primitive


def run(*args: Any, forward: Any, **_: Any) -> list:
    """What the program gives."""
    return jex.core.jaxpr_as_fun(forward)(*args)


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
