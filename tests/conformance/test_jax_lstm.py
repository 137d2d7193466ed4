"""`jax.experimental.rnn.lstm_ref`, the reference of JAX's cuDNN LSTM.

Its lengths are at least 1: for a length of 0 it returns the state after the last step.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, differentiated, usual_promotion
from jax.experimental import rnn

import jaxrnn

pytestmark = pytest.mark.slow
ROWS, STEPS, DEPTH, UNITS = 4, 5, 3, 4
LENGTHS = {"full": [5, 5, 5, 5], "ragged": [5, 2, 1, 4]}


def reference(options, lengths, packed, x, h, c):
    weights = rnn.unpack_lstm_weights(packed, **options)
    return rnn.lstm_ref(x, h, c, *weights, lengths, dropout=0.0, **options)


def ours(options, lengths, packed, x, h, c):
    params = params_of(options, packed)
    cells = [jaxrnn.LSTMCell(UNITS, forget_bias=0.0) for _ in params]
    states = list(map(jaxrnn.LSTMStateTuple, c, h))
    if options["bidirectional"]:
        cells = [cell.bind(own) for cell, own in zip(cells, params, strict=True)]
        y, *finals = jaxrnn.stack_bidirectional_dynamic_rnn(
            cells[::2], cells[1::2], x, states[::2], states[1::2], None, lengths
        )
        finals = [state for pair in zip(*finals, strict=True) for state in pair]
    else:
        own = {f"cell_{i}": each for i, each in enumerate(params)}
        stack = jaxrnn.MultiRNNCell(cells).bind(own)
        y, finals = jaxrnn.dynamic_rnn(stack, x, lengths, tuple(states))
    return y, jnp.stack([s.h for s in finals]), jnp.stack([s.c for s in finals])


def params_of(options, packed):
    """Parameters per layer and direction: the gates i, f, g, o become i, g, f, o."""

    def ordered(rows):
        i, f, g, o = jnp.split(rows, 4)
        return jnp.concatenate([i, g, f, o]).T

    w_ih, w_hh, b_ih, b_hh = rnn.unpack_lstm_weights(packed, **options)
    kernels = [jnp.concatenate([w_ih[k], w_hh[k]], axis=1) for k in w_ih]
    return [
        {"kernel": ordered(kernel), "bias": ordered(b_ih[k] + b_hh[k])}
        for k, kernel in enumerate(kernels)
    ]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("directions", [1, 2])
def test_equals_lstm_ref(directions, layers, dtype, lengths):
    """Outputs, final states, and gradients of packed weights, inputs and states."""
    options = {
        "input_size": DEPTH,
        "hidden_size": UNITS,
        "num_layers": layers,
        "bidirectional": directions == 2,
    }
    rng = np.random.default_rng(0)
    draw = lambda *shape: jax.device_put(rng.normal(size=shape).astype(dtype))
    given = draw(rnn.get_num_params_in_lstm(**options)), draw(ROWS, STEPS, DEPTH)
    given += tuple(draw(layers * directions, ROWS, UNITS) for _ in range(2))
    n = jax.device_put(np.asarray(LENGTHS[lengths], np.int32))
    with usual_promotion():
        want = differentiated(lambda *args: reference(options, n, *args), *given)
    got = differentiated(lambda *args: ours(options, n, *args), *given)
    assert_near(got, want, tolerance=1e-5 if dtype == "float32" else 1e-12)
