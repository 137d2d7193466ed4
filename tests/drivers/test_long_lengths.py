"""Lengths above the number of steps, which are clamped, raise a warning if known."""

import warnings

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_near, assert_same

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, contrib, lite

F32 = jnp.float32
X = np.ones((3, 5, 4), np.float32)
STEPS = list(X.swapaxes(0, 1))
ZEROS = np.zeros((3, 2), np.float32)
LONG, FULL = np.array([6, 5, 2]), np.array([5, 5, 2])
GRU = helpers.bound(GRUCell(2), 4, "float32")
LSTM = helpers.bound(LSTMCell(2), 4, "float32")
FUSED = contrib.LSTMBlockFusedCell(2).bind(LSTM.params)
ATTENTION = contrib.AttentionWrapper(GRUCell(2), contrib.LuongAttention(2, 4))
RNN = jaxrnn.nnx.RNN(GRUCell(2), 4, rngs=nnx.Rngs(0))
BOTH = jaxrnn.nnx.Bidirectional(GRUCell(2), GRUCell(2), 4, rngs=nnx.Rngs(0))
LAYER = jaxrnn.nnx.GatedDeltaNet(4, 1, 2, 2, rngs=nnx.Rngs(0))
LINEN = jaxrnn.linen.RNN(GRUCell(2))
VARIABLES = {"params": {"gru_cell": GRU.params}}

CALLS = {
    "dynamic_rnn": lambda n: jaxrnn.dynamic_rnn(GRU, X, n, dtype=F32),
    "time_major": lambda n: jaxrnn.dynamic_rnn(
        GRU, X.swapaxes(0, 1), n, dtype=F32, time_major=True
    ),
    "static_rnn": lambda n: jaxrnn.static_rnn(GRU, STEPS, dtype=F32, sequence_length=n),
    "state_saving": lambda n: jaxrnn.static_state_saving_rnn(
        GRU, STEPS, jaxrnn.StateSaver({"s": ZEROS}), "s", n
    )[0],
    "bidirectional": lambda n: jaxrnn.bidirectional_dynamic_rnn(
        GRU, GRU, X, n, dtype=F32
    ),
    "static_bidirectional": lambda n: jaxrnn.static_bidirectional_rnn(
        GRU, GRU, STEPS, sequence_length=n, dtype=F32
    ),
    "stack": lambda n: jaxrnn.stack_bidirectional_dynamic_rnn(
        [GRU], [GRU], X, sequence_length=n, dtype=F32
    ),
    "static_stack": lambda n: jaxrnn.stack_bidirectional_rnn(
        [GRU], [GRU], STEPS, sequence_length=n, dtype=F32
    ),
    "lite": lambda n: lite.dynamic_rnn(GRU, X.swapaxes(0, 1), n, dtype=F32),
    "short_conv": lambda n: jaxrnn.short_conv(X, np.ones((3, 4), F32), None, n),
    "fused": lambda n: FUSED(X.swapaxes(0, 1), dtype=F32, sequence_length=n),
    "attention": lambda n: ATTENTION.initial_state(X, n),
    "nnx": lambda n: RNN(X, n),
    "nnx_bidirectional": lambda n: BOTH(X, n),
    "nnx_layer": lambda n: LAYER(X, sequence_length=n),
    "linen": lambda n: LINEN.apply(VARIABLES, X, n),
}
ON_HOST = {
    "pack": lambda n: tuple(jaxrnn.pack_sequences(X, n)),
    "windows": lambda n: [window.inputs for window in jaxrnn.windows(X, 2, n)],
}


@pytest.mark.fast("dynamic_rnn", "nnx", "linen", "pack")
@pytest.mark.parametrize("name", CALLS | ON_HOST)
def test_a_known_length_above_the_number_of_steps_warns(name):
    call = (CALLS | ON_HOST)[name]
    message = "sequence_length` holds 6, but the number of steps is 5"
    with pytest.warns(UserWarning, match=message) as caught:
        got = call(LONG)
    assert {warning.filename for warning in caught} == {__file__}
    with warnings.catch_warnings(action="error"):
        assert_same(got, call(FULL))
    with pytest.warns(UserWarning, match=message):
        call(LONG.tolist())


@pytest.mark.fast("dynamic_rnn")
@pytest.mark.parametrize("name", CALLS)
def test_lengths_of_a_device_are_not_read(name):
    want = CALLS[name](FULL)
    with warnings.catch_warnings(action="error"):
        assert_same(CALLS[name](jnp.asarray(LONG)), want)
        assert_near(jax.jit(CALLS[name])(LONG), want, tolerance=1e-6)


def test_the_warning_is_shown_once_for_each_line():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            CALLS["nnx_bidirectional"](LONG)
    assert len(caught) == 1
