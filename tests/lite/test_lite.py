"""TensorFlow Lite's cells: the numbers of the core's cells, in another layout."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, differentiated, drawn, refusals

import jaxrnn
from jaxrnn import BasicRNNCell, LSTMCell, lite
from jaxrnn.testing._oracle import close

F64 = jnp.dtype("float64")
X = np.random.default_rng(0).normal(size=(3, 4, 2))
LENGTHS = [3, 0, 2, 5]


def split_lstm(params):
    """the parameters of LSTMCell as TFLiteLSTMCell has them."""
    kernels, biases = np.split(params["kernel"].T, 4), np.split(params["bias"], 4)
    out = {name: leaf for name, leaf in params.items() if name.endswith("_diag")}
    gates = ["input", "cell", "forget", "output"]
    for gate, kernel, bias in zip(gates, kernels, biases, strict=True):
        out[f"input_to_{gate}_w"] = kernel[:, :2]
        out[f"cell_to_{gate}_w"] = kernel[:, 2:]
        out[f"{gate}_bias"] = bias
    if "projection" in params:
        out["projection"] = {"kernel": params["projection"]["kernel"].T}
    return out


def split_rnn(params):
    """the parameters of BasicRNNCell as TfLiteRNNCell has them."""
    of_inputs, of_state = np.split(params["kernel"].T, [2], axis=1)
    weights = {"input_weights": of_inputs, "recurrent_weights": of_state}
    return weights | {"bias": params["bias"]}


FULL = {"use_peepholes": True, "cell_clip": 0.6, "num_proj": 2, "proj_clip": 0.3}
FULL |= {"forget_bias": 0.5, "state_is_tuple": False, "activation": "softsign"}
TWINS = {
    "lstm_full": (lite.TFLiteLSTMCell(3, **FULL), LSTMCell(3, **FULL), split_lstm),
    "rnn_relu": (lite.TfLiteRNNCell(3, "relu"), BasicRNNCell(3, "relu"), split_rnn),
}


@pytest.mark.fast("lstm_full")
@pytest.mark.parametrize(("cell", "core", "split"), TWINS.values(), ids=TWINS)
def test_equals_the_core_on_the_same_numbers(cell, core, split):
    params = jax.tree.map(np.asarray, drawn(core, X[0], scale=1.0))

    def of_lite(params):
        return lite.dynamic_rnn(cell.bind(params), X, LENGTHS, dtype=F64)

    def of_core(params):
        options = {"dtype": F64, "time_major": True}
        return jaxrnn.dynamic_rnn(core.bind(params), X, LENGTHS, **options)

    results, (gradients,) = differentiated(of_lite, split(params))
    want, (want_gradients,) = differentiated(of_core, params)
    close(results, want, F64)
    close(gradients, split(want_gradients), F64)


def test_initial_values_are_tensorflow_lites():
    """Biases are 0; the limits of a kernel are those of its transpose."""
    cell = lite.TFLiteLSTMCell(300, True, num_proj=200)
    x = jnp.ones((1, 100), jnp.bfloat16)
    params = jax.device_get(jax.jit(cell.init)(jax.random.key(0), x))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    projection = params.pop("projection")["kernel"]
    biases = [params.pop(name) for name in [*params] if name.endswith("bias")]
    assert not any(bias.any() for bias in biases)
    for leaf in (projection, *params.values()):
        limit = math.sqrt(6 / (leaf.shape[0] + leaf.shape[-1]))
        assert 0.95 * limit < np.abs(leaf).max() <= 1.01 * limit


RNN, LSTM = (bound(c(2), depth=2) for c in (lite.TfLiteRNNCell, lite.TFLiteLSTMCell))
run = functools.partial(lite.dynamic_rnn, dtype=F64)
test_refusals = refusals(
    [
        (TypeError, "`time_major` must", lambda: run(RNN, X, time_major=0)),
        (ValueError, "`inputs` must", lambda: run(RNN, [])),
        (ValueError, "input_weights", lambda: RNN(X[0, :, :1], X[0])),
        (TypeError, "`state` must", lambda: LSTM(X[0], X[0])),
    ]
)
