"""Activations, selected by name, match their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn


@pytest.mark.parametrize(
    ("name", "want"),
    [
        # Keras's definitions at -1 and 2.
        ("elu", [np.exp(-1) - 1, 2]),
        ("exponential", [np.exp(-1), np.exp(2)]),
        ("gelu", [-0.15865525393145707, 1.9544997361036416]),
        ("hard_sigmoid", [0.3, 0.9]),
        ("linear", [-1, 2]),
        ("mish", [-0.30340146137410895, 1.9439589595339946]),
        ("relu", [0, 2]),
        ("selu", [-1.1113307378125625, 2.101401974604546]),
        ("sigmoid", [1 / (1 + np.e), 1 / (1 + np.exp(-2))]),
        ("softmax", [1 / (1 + np.exp(3)), 1 / (1 + np.exp(-3))]),
        ("softplus", [np.log1p(np.exp(-1)), np.log1p(np.exp(2))]),
        ("softsign", [-0.5, 2 / 3]),
        ("swish", [-1 / (1 + np.e), 2 / (1 + np.exp(-2))]),
        ("tanh", np.tanh([-1, 2])),
    ],
)
def test_activations_by_their_keras_names(name, want):
    cell = jaxrnn.BasicRNNCell(2, activation=name)
    params = {"kernel": jnp.eye(4, 2), "bias": jnp.zeros(2)}
    outputs, _ = cell.apply(params, jnp.asarray([[-1.0, 2.0]]), jnp.zeros((1, 2)))
    np.testing.assert_allclose(outputs[0], want, rtol=1e-9)
