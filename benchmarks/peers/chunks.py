"""Cells whose state is a matrix, in chunks of steps: plain JAX without masks.

As a user would write it for one cell, for whole chunks and without lengths or resets.
Derivatives save the state before each chunk, and run each chunk again.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, sigmoid

import jaxrnn

CHUNK = 64

Tree = Any


def run(
    cell: Any, params: Tree, inputs: jax.Array, state: Tree
) -> tuple[jax.Array, Tree]:
    """`(outputs, state)` for inputs `[T, B, D]` and the parameters of jaxrnn's cell."""
    time, batch, depth = inputs.shape
    size = min(CHUNK, time)

    @jax.checkpoint
    def body(state, x):
        z = x @ params["kernel"] + params["bias"]
        return mlstm(cell, z, state)

    parts = inputs.reshape(time // size, size, batch, depth)
    state, outputs = jax.lax.scan(body, state, parts)
    return outputs.reshape(time, batch, -1), state


def _by_head(cell: Any, x: jax.Array) -> jax.Array:
    """`[S, B, N d]` as `[B, N, S, d]`."""
    return x.reshape(*x.shape[:2], cell.num_heads, -1).transpose(1, 2, 0, 3)


def _joined(x: jax.Array) -> jax.Array:
    """The inverse of `_by_head`."""
    x = x.transpose(2, 0, 1, 3)
    return x.reshape(*x.shape[:2], -1)


def _split(cell: Any, z: jax.Array, sizes: list[int]) -> list[jax.Array]:
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes) - 1)]
    return [_by_head(cell, x) for x in jnp.split(z, ends, axis=-1)]


def mlstm(cell: Any, z: jax.Array, state: Tree) -> tuple[Tree, jax.Array]:
    """A chunk of an mLSTM: the new state, and outputs `[S, B, H]`."""
    units, heads = cell.num_units, cell.num_heads
    q, k, v, o, i, f = _split(cell, z, [units] * 4 + [heads] * 2)
    k = k * k.shape[-1] ** -0.5
    m = state.m[..., None, None]
    forgotten = jnp.cumsum(log_sigmoid(f), axis=2)
    added = i - forgotten
    scale = jnp.maximum(m, jax.lax.cummax(added, axis=2))
    keep = jnp.exp(m - scale)
    causal = jnp.tri(z.shape[0], dtype=bool)
    pairs = jnp.exp(jnp.where(causal, added.mT - scale, -jnp.inf))
    scores = q @ k.mT * pairs
    dot = scores.sum(-1, keepdims=True) + keep * (q @ state.n[..., None])
    least = jnp.exp(-(forgotten + scale))
    h = (scores @ v + keep * (q @ state.c)) / (jnp.maximum(abs(dot), least) + 1e-6)
    written = k * pairs[:, :, -1, :, None]
    last = keep[:, :, -1]
    c = last[..., None] * state.c + written.mT @ v
    n = last * state.n + written.sum(2)
    m = (forgotten + scale)[:, :, -1, 0]
    return jaxrnn.MLSTMState(c, n, m), _joined(sigmoid(o) * h)
