"""The `activation` argument of a cell: None, a name or a function."""

import jax
import jax.numpy as jnp

from .._base.arguments import check_function, check_one_of
from .._base.typing import Activation, Array


def gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)


def hard_sigmoid(x: Array) -> Array:
    # Keras's hard sigmoid has slope 0.2; `jax.nn.hard_sigmoid` has slope 1/6.
    return jnp.clip(0.2 * x + 0.5, 0.0, 1.0)


def linear(x: Array) -> Array:
    return x


ACTIVATIONS: dict[str, Activation] = {
    "elu": jax.nn.elu,
    "exponential": jnp.exp,
    "gelu": gelu,
    "hard_sigmoid": hard_sigmoid,
    "linear": linear,
    "mish": jax.nn.mish,
    "relu": jax.nn.relu,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "softmax": jax.nn.softmax,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


def resolve_activation(
    activation: Activation | str | None, name: str = "activation"
) -> Activation:
    """The activation function: tanh for None, the Keras activation for a name.

    Error messages refer to the argument as `name`.

    Raises:
        ValueError: If no activation has that name.
        TypeError: If `activation` is not None, a string or a function. A class is
            rejected, because calling it creates an object.
    """
    if activation is None:
        return jnp.tanh
    if isinstance(activation, str):
        what = f"one of {', '.join(ACTIVATIONS)}"
        fix = "You can also pass a function."
        check_one_of(name, activation, ACTIVATIONS, what, fix)
        return ACTIVATIONS[activation]
    return check_function(name, activation, "None, a name or a function")
