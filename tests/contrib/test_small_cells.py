"""The small recurrent cells of contrib: initial values, mixed dtypes, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import LSTMStateTuple, contrib

KEY = jax.random.key(0)
X = jax.ShapeDtypeStruct((4, 300), jnp.float32)


def init(cell):
    return cell.init(KEY, X)


def test_initial_values_are_those_of_contrib():
    indy = init(contrib.IndyGRUCell(200))
    np.testing.assert_array_equal(indy["gates"]["bias"], 1)
    np.testing.assert_array_equal(indy["candidate"]["bias"], 0)
    for cell in (contrib.MinimalRNNCell(2), contrib.CFNCell(2)):
        np.testing.assert_array_equal(init(cell)["bias"], 1)
    for cell in (contrib.SRUCell(2), contrib.UGRNNCell(2), contrib.IndyLSTMCell(2)):
        np.testing.assert_array_equal(init(cell)["bias"], 0)
    weights = indy["gates"]["kernel_u"]
    assert -1 <= weights.min() < -0.9 < 0.9 < weights.max() <= 1


def test_initializers_are_taken():
    twos, threes = (jax.nn.initializers.constant(value) for value in (2, 3))
    both = {"kernel_initializer": twos, "bias_initializer": threes}
    for make in (contrib.IndyLSTMCell, contrib.MinimalRNNCell, contrib.CFNCell):
        params = init(make(2, **both))
        kernel = params.get("kernel_w", params.get("kernel"))
        np.testing.assert_array_equal(kernel, 2)
        np.testing.assert_array_equal(params["bias"], 3)
    gru = init(contrib.IndyGRUCell(2, **both))
    for part, kernel in (("gates", "kernel_w"), ("candidate", "kernel")):
        np.testing.assert_array_equal(gru[part][kernel], 2)
        np.testing.assert_array_equal(gru[part]["bias"], 3)
    np.testing.assert_array_equal(init(contrib.UGRNNCell(2, twos))["kernel"], 2)
    projected = init(contrib.IntersectionRNNCell(2, 2, twos))
    np.testing.assert_array_equal(projected["in_projection"]["kernel"], 2)


def test_the_memory_of_an_independent_lstm_may_be_wider():
    cell, half = contrib.IndyLSTMCell(3), jnp.bfloat16
    x, zeros = jnp.ones((2, 4, 5), half), jnp.zeros((2, 3), jnp.float32)
    wide = LSTMStateTuple(zeros, zeros.astype(half))
    bound = cell.bind(cell.init(KEY, x[:, 0]))
    outputs, state = jaxrnn.dynamic_rnn(bound, x, initial_state=wide, dtype=half)
    assert outputs.dtype == state.h.dtype == half
    assert state.c.dtype == jnp.float32


def test_an_independent_lstm_is_no_plain_one():
    cell, x = contrib.IndyLSTMCell(3), jnp.ones((2, 4, 5), jnp.float32)
    bound = cell.bind(cell.init(KEY, x[:, 0]))
    for name, reason in (("cudnn", "not IndyLSTMCell"), ("native", "it supports")):
        with pytest.raises(ValueError, match=reason):
            jaxrnn.dynamic_rnn(bound, x, dtype=x.dtype, implementation=name)


def test_no_activation_is_the_identity_only_where_arguments_are_those_of_keras():
    assert contrib.CFNCell(2, None) == contrib.CFNCell(2, "linear")
    assert contrib.SRUCell(2, None) == contrib.SRUCell(2, "tanh")


def test_an_input_projection_has_the_size_of_the_state():
    params = init(contrib.IntersectionRNNCell(2, num_in_proj=7))
    assert params["in_projection"]["kernel"].shape == (300, 2)


def step(cell, params=None, inputs=None, state=None):
    inputs = np.ones((4, 2), "float32") if inputs is None else inputs
    params = cell.init(KEY, np.ones((4, 2), "float32")) if params is None else params
    state = cell.zero_state(4, "float32") if state is None else state
    return cell.apply(params, inputs, state)


IN = contrib.IntersectionRNNCell
REFUSALS = {
    "projection": (
        ValueError,
        r"`inputs` must have depth `num_units` \(2\), got 300. Pass `num_in_proj=2`",
        lambda: init(IN(2)),
    ),
    "projection_0": (ValueError, "must have depth", lambda: init(IN(2, 0))),
    "projection_size": (TypeError, "`num_in_proj` must be an", lambda: IN(2, 1.5)),
    "forget_bias": (
        TypeError,
        "`forget_bias` must be a number",
        lambda: IN(2, None, None, "1"),
    ),
    "activation": (
        ValueError,
        "`y_activation` must be one of",
        lambda: IN(2, y_activation="x"),
    ),
    "units": (ValueError, "`units` must be at least 0", lambda: contrib.CFNCell(-1)),
    "initializer": (
        TypeError,
        "`initializer` must be a function",
        lambda: contrib.UGRNNCell(2, "glorot"),
    ),
    "state": (
        ValueError,
        r"IntersectionRNNCell: `state` must have shape \(4, 2\)",
        lambda: step(IN(2), state=np.ones((4, 3), "float32")),
    ),
    "dtype": (
        TypeError,
        "IntersectionRNNCell: `inputs`, `state` and the cell must share one dtype",
        lambda: step(IN(2), state=np.ones((4, 2), "float16")),
    ),
    "names": (
        ValueError,
        "`params` must hold",
        lambda: step(IN(2), params={"w": np.ones(2)}),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses(name):
    kind, message, call = REFUSALS[name]
    with pytest.raises(kind, match=message):
        call()
