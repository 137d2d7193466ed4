"""An LSTM in plain JAX, with `jax.checkpoint` where a user would put it.

The same parameters as `jaxrnn.LSTMCell`: `kernel` and `bias`, blocks i, j, f, o.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def keep(params: Tree, inputs: jax.Array, state: Tree) -> tuple[jax.Array, Tree]:
    """`lax.scan`, whose derivative saves what JAX chooses."""
    state, outputs = jax.lax.scan(_body(params), state, inputs)
    return outputs, state


def every_step(params: Tree, inputs: jax.Array, state: Tree) -> tuple[jax.Array, Tree]:
    """Each step in `jax.checkpoint`: only the states are saved."""
    # JAX's advice for the body of a scan, which does not need the barriers.
    body = jax.checkpoint(_body(params), prevent_cse=False)
    state, outputs = jax.lax.scan(body, state, inputs)
    return outputs, state


def segments(params: Tree, inputs: jax.Array, state: Tree) -> tuple[jax.Array, Tree]:
    """A scan of scans, the inner one in `jax.checkpoint`, of about √T steps."""
    time, *rest = inputs.shape
    size = near_root(time)

    @jax.checkpoint
    def segment(params, state, inputs):
        return jax.lax.scan(_body(params), state, inputs)

    cut = inputs.reshape(time // size, size, *rest)
    state, outputs = jax.lax.scan(lambda s, xs: segment(params, s, xs), state, cut)
    return outputs.reshape(time, *outputs.shape[2:]), state


def near_root(time: int) -> int:
    """The divisor that is nearest to the square root, by their ratio."""
    divisors = [size for size in range(1, time + 1) if time % size == 0]
    return min(divisors, key=lambda size: abs(math.log(size / math.sqrt(time))))


def _body(params: Tree) -> Any:
    def body(state, x):
        c, h = state
        z = jnp.concatenate([x, h], axis=-1) @ params["kernel"] + params["bias"]
        i, j, f, o = jnp.split(z, 4, axis=-1)
        c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(j)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), h

    return body
