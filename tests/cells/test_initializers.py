"""Initializers by part, block by block, and activations by name."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn.initializers import constant, normal, orthogonal, zeros

from jaxrnn import (
    BasicRNNCell,
    CudnnCompatibleGRUCell,
    GRUCell,
    LSTMCell,
    initializers,
)
from jaxrnn.initializers import by_gate, by_part, chrono

DEPTH, UNITS = 3, 8
BY_PART = by_part(constant(2.0), by_gate(orthogonal()))
UNIT = initializers.unit_forget_bias()


def params_of(cell, depth=DEPTH, dtype=jnp.float32):
    x = jax.ShapeDtypeStruct((2, depth), dtype)
    return jax.jit(lambda key: cell.init(key, x))(jax.random.key(0))


def assert_orthogonal(*blocks, atol=1e-5):
    for block in blocks:
        block = np.asarray(block, np.float64)
        np.testing.assert_allclose(block.T @ block, np.eye(block.shape[1]), atol=atol)


def gates(kernel, blocks):
    return np.split(np.asarray(kernel), blocks, axis=-1)


def test_glorot_uniform_fills_its_range():
    params = params_of(LSTMCell(64, use_peepholes=True), 36)
    for name, limit in (("kernel", (6 / 356) ** 0.5), ("w_f_diag", (6 / 128) ** 0.5)):
        assert 0.9 * limit < abs(params[name]).max() <= limit
        np.testing.assert_allclose(params[name].std(), limit / 3**0.5, rtol=0.25)
    assert not params["bias"].any()
    assert not np.array_equal(params["w_f_diag"], params["w_i_diag"])
    gru = params_of(GRUCell(3))
    assert (gru["gates"]["bias"] == 1).all()
    assert not gru["candidate"]["bias"].any()


def test_every_gate_of_the_state_is_orthogonal():
    """And products of the state alone; kernels of the inputs have another part."""
    params = params_of(CudnnCompatibleGRUCell(UNITS, kernel_initializer=BY_PART))
    kernel, candidate = params["gates"]["kernel"], params["candidate"]
    np.testing.assert_array_equal(kernel[:DEPTH], 2)
    np.testing.assert_array_equal(candidate["input_projection"]["kernel"], 2)
    assert_orthogonal(candidate["hidden_projection"]["kernel"])
    params = params_of(LSTMCell(UNITS, True, initializer=BY_PART, num_proj=4))
    assert params["kernel"].shape == (DEPTH + 4, 4 * UNITS)
    np.testing.assert_array_equal(params["kernel"][:DEPTH], 2)
    blocks = [block.T for block in gates(params["kernel"][DEPTH:], 4)]
    assert_orthogonal(*blocks, params["projection"]["kernel"])
    assert len({block.tobytes() for block in blocks}) == 4
    assert 0 < np.abs(params["w_f_diag"]).max() <= np.sqrt(6 / (2 * UNITS))


def test_unit_forget_bias():
    """The run equals one with `forget_bias=1`."""
    initializer = by_part(normal(), normal(), bias=UNIT)
    stored = LSTMCell(UNITS, forget_bias=0, initializer=initializer)
    params, x = params_of(stored), np.ones((2, DEPTH), np.float32)
    bias = params["bias"]
    np.testing.assert_array_equal(bias, np.repeat([0, 0, 1, 0], UNITS))
    state = stored.zero_state(2, jnp.float32)._replace(c=jnp.ones((2, UNITS)))
    other = LSTMCell(UNITS), params | {"bias": 0 * bias}
    run = lambda cell, params: cell.apply(params, x, state)[0]
    got, want = jax.jit(lambda: (run(stored, params), run(*other)))()
    np.testing.assert_allclose(got, want, atol=1e-6)
    params = params_of(GRUCell(UNITS, bias_initializer=UNIT))
    assert not params["gates"]["bias"].any()


@pytest.mark.slow
def test_chrono_is_in_its_range_and_uniform_in_time():
    time, units = 50, 4096
    initializer = by_part(zeros, zeros, bias=chrono(time))
    bias = params_of(LSTMCell(units, forget_bias=0, initializer=initializer))["bias"]
    i, j, f, o = np.split(np.asarray(bias, np.float64), 4)
    np.testing.assert_array_equal(i, -f)
    np.testing.assert_array_equal([j, o], 0)
    times = np.exp(f)
    assert 1 <= times.min() <= times.max() <= time - 1 + 1e-4
    # The mean and the variance of a uniform distribution.
    assert abs(times.mean() - time / 2) < 5 * (time - 2) / np.sqrt(12 * units)
    assert abs(times.var() / ((time - 2) ** 2 / 12) - 1) < 0.1
    gru = params_of(GRUCell(units, bias_initializer=chrono(time)))
    reset, update = np.split(gru["gates"]["bias"], 2)
    assert not reset.any()
    assert (update >= 0).all()
    assert not gru["candidate"]["bias"].any()


AT_MINUS_1_AND_2 = {  # Keras's definitions.
    "elu": [np.exp(-1) - 1, 2],
    "gelu": [-0.15865525393145707, 1.9544997361036416],
    "hard_sigmoid": [0.3, 0.9],
    "linear": [-1, 2],
    "relu": [0, 2],
    "sigmoid": [1 / (1 + np.e), 1 / (1 + np.exp(-2))],
    "silu": [-1 / (1 + np.e), 2 / (1 + np.exp(-2))],
    "softmax": [1 / (1 + np.exp(3)), 1 / (1 + np.exp(-3))],
    "swish": [-1 / (1 + np.e), 2 / (1 + np.exp(-2))],
    "tanh": np.tanh([-1, 2]),
}


def test_activations_by_their_keras_names():
    params = {"kernel": jnp.eye(4, 2), "bias": jnp.zeros(2)}
    x, h = jnp.asarray([[-1.0, 2.0]]), jnp.zeros((1, 2))
    run = lambda name: BasicRNNCell(2, activation=name).bind(params)(x, h)[0]
    outputs = jax.jit(lambda: {name: run(name) for name in AT_MINUS_1_AND_2})()
    for name, want in AT_MINUS_1_AND_2.items():
        (got,) = outputs[name]
        np.testing.assert_allclose(got, want, rtol=1e-9, err_msg=name)
    assert BasicRNNCell(2, activation="relu6").activation(7.0) == 6
