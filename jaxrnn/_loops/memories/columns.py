"""Represents the map `A S + B` of several steps of a matrix memory by one matrix.

The matrix has the columns `[B, A]`. A step changes A as it changes S, but writes
nothing to A. So a rule computes the map if `[B, A]` takes the place of the state, and
zeros are appended to the values that are written.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..._base.typing import Array
from .chunk import Chunk


def columns_of(run: Callable) -> tuple[Callable, Callable, Callable, Callable]:
    """Returns the result of `MatrixRule.transition` for a rule that reads `k` and `v`.

    Args:
        run: Runs all steps of a chunk; see `MatrixRule.chunk`.
    """

    def run_columns(chunk: Chunk) -> tuple[Array, Array]:
        values = chunk.values
        values = values._replace(v=_padded(values.v, values.k.shape[-1]))
        return run(dataclasses.replace(chunk, values=values))

    constant = lambda state: _padded(state, state.shape[-2])
    return run_columns, _identity, constant, _map_state


def _identity(state: Array) -> Array:
    """The columns `[0, I]` of the map that changes no state."""
    *axes, size, _ = state.shape
    one = jnp.broadcast_to(jnp.eye(size, dtype=state.dtype), (*axes, size, size))
    return jnp.concatenate([jnp.zeros_like(state), one], axis=-1)


def _map_state(state_map: Array, state: Array) -> Array:
    """Computes `A S + B`; `state_map` has the columns `[B, A]`."""
    b, a = jnp.split(state_map, [state.shape[-1]], axis=-1)
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("bnkj,bnjv->bnkv", a, state, precision=highest) + b


def _padded(x: Array, count: int) -> Array:
    """Appends `count` zeros to the last axis."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, count)])
