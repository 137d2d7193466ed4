"""A user's own cell: the minimal gated unit, as Flax has it.

f  = sigmoid(x W_f + b_f + h U_f)
n  = tanh(x W_n + b_n + f * (h U_n))
h' = (1 - f) * n + f * h
"""

import jax
import jax.numpy as jnp
import numpy as np

from ..core.layouts import side_by_side, to_gates


def to_params(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`input` `[D, 2H]`, `recurrent` `[H, 2H]` and `bias` `[2H]`, blocks f, n."""
    blocks = side_by_side(to_gates("mgu", weights, 0), "fn")
    return dict(zip(("input", "recurrent", "bias"), blocks, strict=True))


def init(
    units: int, key: jax.Array, inputs: jax.Array, dtype: jnp.dtype
) -> dict[str, jax.Array]:
    """Zeros: the parameters of a module before they are replaced."""
    del key
    return {
        "input": jnp.zeros((inputs.shape[-1], 2 * units), dtype),
        "recurrent": jnp.zeros((units, 2 * units), dtype),
        "bias": jnp.zeros(2 * units, dtype),
    }


def step(params: dict[str, jax.Array], x: jax.Array, h: jax.Array) -> jax.Array:
    """The new state `[B, H]`, for inputs `[B, D]` and state `[B, H]`."""
    x_f, x_n = jnp.split(x @ params["input"] + params["bias"], 2, axis=-1)
    h_f, h_n = jnp.split(h @ params["recurrent"], 2, axis=-1)
    f = jax.nn.sigmoid(x_f + h_f)
    return (1 - f) * jnp.tanh(x_n + f * h_n) + f * h
