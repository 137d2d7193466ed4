"""The backward loop over groups of rows, so that devices sum gradients only once.

A loop over rows that a mesh divides among devices adds to the gradients of parameters
at every chunk of steps, and the compiler sums each of these over the devices. Here each
of as many groups of rows as there are devices, or as divide the rows, has gradients of
its own, along a new axis that is divided as the rows are. They are summed once, after
the loop.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from .._autodiff.jax_internals import SymbolicZero
from .._base.sharding import devices_of
from .._base.typing import PyTree
from .loop_rule import Primals, Residuals
from .phases import Phases


def by_row_groups(
    backward: Callable[[Residuals, tuple], Primals],
    residuals: Residuals,
    cotangents: tuple,
) -> Primals:
    """`backward(residuals, cotangents)`; on a mesh for each group of rows, as one."""
    xs, axis = residuals.primals.xs, 1 - residuals.phases.steps.axis
    rows = xs.shape[axis]
    groups = math.gcd(rows, devices_of(xs)) if isinstance(rows, int) else 1
    if groups == 1:
        return backward(residuals, cotangents)
    divide = functools.partial(_along_rows, functools.partial(_divide, groups))
    in_axes, c_axes = _residuals_axes(residuals.phases, axis), (axis, 0)
    cotangents = divide(c_axes, cotangents)
    zeros = jax.tree.map(lambda c: c if _is_zero(c) else None, cotangents)

    def of_group(residuals: Residuals, arrays: tuple) -> Primals:
        known = jax.tree.map(
            lambda c, zero: c if zero is None else zero, arrays, zeros, is_leaf=_is_none
        )
        return backward(residuals, known)

    arrays = jax.tree.map(lambda c: None if _is_zero(c) else c, cotangents)
    args = divide(in_axes, residuals), arrays
    results = jax.vmap(of_group, (in_axes, c_axes), Primals._make((0, axis, 0, 0)))(
        *args
    )
    c_params, c_xs, c_state, c_restart_states = results
    total = functools.partial(jax.tree.map, lambda c: jnp.sum(c, 0, c.dtype))
    c_xs, c_state = _along_rows(_join, (axis, 0), (c_xs, c_state))
    return Primals(total(c_params), c_xs, c_state, total(c_restart_states))


def _residuals_axes(phases: Phases, axis: int) -> Residuals:
    """The axis of the rows in each part of residuals, None where there are no rows."""
    steps = phases.steps
    restarts = steps.restarts and replace(steps.restarts, starts=axis)
    lengths = None if steps.lengths is None else 0
    steps = replace(
        steps,
        lengths=lengths,
        longest=None,
        stand_in=lengths,
        restarts=restarts,
        offset=None,
    )
    return Residuals(
        Primals._make((None, axis, 0, None)), replace(phases, steps=steps), axis
    )


def _along_rows(fn: Callable[[Any, int], Any], axes: PyTree, tree: PyTree) -> PyTree:
    """`fn(leaf, axis)` of all leaves that have rows, along these axes."""

    def of_part(axis: int | None, part: PyTree) -> PyTree:
        return part if axis is None else jax.tree.map(lambda x: fn(x, axis), part)

    return jax.tree.map(of_part, axes, tree, is_leaf=_is_none)


def _divide(groups: int, x: Any, axis: int) -> Any:
    """Rows `[..., groups, rows, ...]`; for a SymbolicZero that of one group."""
    before, rows, after = x.shape[:axis], x.shape[axis] // groups, x.shape[axis + 1 :]
    if _is_zero(x):
        return SymbolicZero(x.aval.update(shape=(*before, rows, *after)))
    return x.reshape(*before, groups, rows, *after)


def _join(x: Any, axis: int) -> Any:
    return jax.lax.collapse(x, axis, axis + 2)


def _is_zero(x: Any) -> bool:
    return isinstance(x, SymbolicZero)


def _is_none(x: Any) -> bool:
    return x is None
