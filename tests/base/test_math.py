"""The arithmetic that cells share, where libraries differ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn._base import math as _math


@pytest.mark.parametrize(
    ("x", "value", "slope"),
    [(-0.6, -0.5, 0), (-0.5, -0.5, 1), (0.2, 0.2, 1), (0.5, 0.5, 1), (0.6, 0.5, 0)],
)
def test_a_clip_passes_gradients_at_its_bounds_as_tensorflows_does(x, value, slope):
    got = jax.value_and_grad(lambda x: _math.clip_symmetric(x, 0.5))(x)
    np.testing.assert_allclose(got, (value, slope))


def test_a_clip_keeps_nan_and_a_bound_of_zero_gives_zero():
    assert np.isnan(_math.clip_symmetric(jnp.nan, 0.5))
    np.testing.assert_array_equal(
        _math.clip_symmetric(jnp.asarray([-1.0, 0.0, 2.0]), 0.0), np.zeros(3)
    )


@pytest.mark.parametrize(
    ("name", "want"),
    [
        # Keras's own definitions, at -1 and 2.
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


def test_glorot_uniform_fills_its_range():
    cell = jaxrnn.LSTMCell(64, use_peepholes=True)
    params = cell.init(jax.random.key(0), jnp.zeros((1, 36)))
    for name, limit in (("kernel", (6 / 356) ** 0.5), ("w_f_diag", (6 / 128) ** 0.5)):
        assert 0.9 * limit < abs(params[name]).max() <= limit
        np.testing.assert_allclose(params[name].std(), limit / 3**0.5, rtol=0.25)
    assert not params["bias"].any()
    assert not np.array_equal(params["w_f_diag"], params["w_i_diag"])
    gru = jaxrnn.GRUCell(3).init(jax.random.key(0), jnp.zeros((1, 2)))
    assert (gru["gates"]["bias"] == 1).all()
    assert not gru["candidate"]["bias"].any()
