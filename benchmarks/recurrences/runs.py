"""The ways to run a cell over time-major sequences: `(cell, params, xs, state)`.

Each returns the outputs and the final state.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxrnn

from ..contrib import by_scan
from ..memory.by_hand import near_root
from . import FORMS


def by_driver(cell: Any, params: Any, xs: Any, state: Any) -> Any:
    """`dynamic_rnn`."""
    bound = cell.bind(params)
    return jaxrnn.dynamic_rnn(bound, xs, initial_state=state, time_major=True)


def by_segments(cell: Any, params: Any, xs: Any, state: Any) -> Any:
    """The plain scan; its backward pass keeps the states between segments alone."""
    segment = jax.checkpoint(functools.partial(by_scan, cell))
    size = near_root(len(xs))
    cut = xs.reshape(-1, size, *xs.shape[1:])
    body = lambda state, xs: segment(params, xs, state)[::-1]
    state, outputs = jax.lax.scan(body, state, cut)
    return outputs.reshape(len(xs), *outputs.shape[2:]), state


def by_associative_scan(cell: Any, params: Any, xs: Any, state: Any) -> Any:
    """A linear recurrence as one writes it by hand: the coefficients of all steps.

    Of complex states the numbers are complex.
    """
    time, rows = xs.shape[:2]
    a, b, rest = cell.coefficients(params, xs.reshape(time * rows, -1))
    a, b, h = (_numbers(x) for x in (a, b, state))
    a, b = (
        jnp.broadcast_to(x, (time * rows, x.shape[-1])).reshape(time, rows, -1)
        for x in (a, b)
    )
    _, hs = jax.lax.associative_scan(_compose, (a, b.at[0].add(a[0] * h)))
    flat = _like(state, hs.reshape(time * rows, -1))
    outputs = cell.output(params, flat, rest)
    return outputs.reshape(time, rows, -1), _like(state, hs[-1])


def _compose(first: Any, second: Any) -> Any:
    (a, b), (c, d) = first, second
    return a * c, b * c + d


def _numbers(x: Any) -> Any:
    return jax.lax.complex(*x) if isinstance(x, jaxrnn.ComplexState) else x


def _like(state: Any, x: Any) -> Any:
    if isinstance(state, jaxrnn.ComplexState):
        return jaxrnn.ComplexState(x.real, x.imag)
    return x


RUNS: dict[str, Callable[..., Any]] = dict(
    zip(FORMS, (by_driver, by_scan, by_associative_scan), strict=True)
)
