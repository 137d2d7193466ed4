"""Maps of a matrix memory over several steps, `A S + B`, as one matrix.

The matrix has the columns `[B, A]`. A step maps A as it maps S, but writes no values to
A. A rule therefore runs with values to which zeros are appended.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..._base.typing import Array
from .chunk import Chunk


def columns_of(run: Callable) -> tuple[Callable, Callable, Callable, Callable]:
    """The result of `MatrixRule.transition` for a rule with values `k` and `v`.

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
    """The columns `[0, I]`."""
    *axes, size, _ = state.shape
    one = jnp.broadcast_to(jnp.eye(size, dtype=state.dtype), (*axes, size, size))
    return jnp.concatenate([jnp.zeros_like(state), one], axis=-1)


def _map_state(state_map: Array, state: Array) -> Array:
    """`A S + B`, for `state_map` with the columns `[B, A]`."""
    b, a = jnp.split(state_map, [state.shape[-1]], axis=-1)
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("bnkj,bnjv->bnkv", a, state, precision=highest) + b


def _padded(x: Array, count: int) -> Array:
    """`x` with `count` zeros at the end of the last axis."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, count)])
