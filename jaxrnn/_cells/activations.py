"""The `activation` argument of a cell: None, a name or a function."""

import jax
import jax.numpy as jnp

from .._base.typing import Activation, Array

# Functions of this module, so that cells can be pickled: pickle does not find wrapped
# functions of jax under their names.


def elu(x: Array) -> Array:
    return jax.nn.elu(x)


def exponential(x: Array) -> Array:
    return jnp.exp(x)


def gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)


def hard_sigmoid(x: Array) -> Array:
    # The slope is 0.2 in Keras and 1/6 in JAX.
    return jnp.clip(0.2 * x + 0.5, 0.0, 1.0)


def linear(x: Array) -> Array:
    return x


def mish(x: Array) -> Array:
    return jax.nn.mish(x)


def relu(x: Array) -> Array:
    return jax.nn.relu(x)


def selu(x: Array) -> Array:
    return jax.nn.selu(x)


def sigmoid(x: Array) -> Array:
    return jax.nn.sigmoid(x)


def softmax(x: Array) -> Array:
    return jax.nn.softmax(x)


def softplus(x: Array) -> Array:
    return jax.nn.softplus(x)


def softsign(x: Array) -> Array:
    return jax.nn.soft_sign(x)


def swish(x: Array) -> Array:
    return jax.nn.silu(x)


def tanh(x: Array) -> Array:
    return jnp.tanh(x)


ACTIVATIONS: dict[str, Activation] = {
    fn.__name__: fn
    for fn in (
        elu,
        exponential,
        gelu,
        hard_sigmoid,
        linear,
        mish,
        relu,
        selu,
        sigmoid,
        softmax,
        softplus,
        softsign,
        swish,
        tanh,
    )
}
SAME: dict[Activation, Activation] = {
    jax.nn.elu: elu,
    jax.nn.mish: mish,
    jax.nn.relu: relu,
    jax.nn.selu: selu,
    jax.nn.sigmoid: sigmoid,
    jax.nn.silu: swish,
    jax.nn.soft_sign: softsign,
    jax.nn.softplus: softplus,
    jax.nn.tanh: tanh,
    jnp.exp: exponential,
    jnp.tanh: tanh,
}


def resolve_activation(where: str, activation: Activation | str | None) -> Activation:
    """The function that `activation` names: tanh for None, Keras's for a string.

    Raises:
        ValueError: If no activation has that name.
        TypeError: If it is neither None, a string nor callable.
    """
    if activation is None:
        return tanh
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"{where}: `activation` must be one of {', '.join(ACTIVATIONS)}, got "
                f"{activation!r}. Or pass the function itself."
            )
        return ACTIVATIONS[activation]
    if not callable(activation):
        raise TypeError(
            f"{where}: `activation` must be None, a name or a function, got "
            f"{activation!r}."
        )
    return SAME.get(activation, activation)
