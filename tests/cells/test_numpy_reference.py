"""The core cells against a NumPy loop that does not use JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from helpers import drawn

import jaxrnn

LENGTHS = [6, 0, 3, 9]
PEEPHOLES = {"use_peepholes": True, "cell_clip": 0.3, "num_proj": 2, "proj_clip": 0.1}


@pytest.mark.parametrize(
    ("cell", "step", "options"),
    [
        (jaxrnn.BasicRNNCell(4), reference.basic_rnn, {}),
        (jaxrnn.GRUCell(4), reference.gru, {}),
        (jaxrnn.CudnnCompatibleGRUCell(4), reference.gru_cudnn, {}),
        (jaxrnn.BasicLSTMCell(4, 0.5), reference.lstm, {"forget_bias": 0.5}),
        (jaxrnn.LSTMCell(4), reference.lstm, {}),
        (
            jaxrnn.LSTMCell(4, **PEEPHOLES),
            reference.lstm,
            {"cell_clip": 0.3, "proj_clip": 0.1},
        ),
    ],
    ids=["basic_rnn", "gru", "gru_cudnn", "basic_lstm", "lstm", "lstm_everything"],
)
def test_same_as_numpy(cell, step, options):
    rng = np.random.default_rng(1)
    xs = rng.normal(size=(4, 6, 3))
    draw = lambda leaf: rng.normal(size=leaf.shape)
    params = jax.tree.map(draw, drawn(cell, xs[:, 0]))
    state = jax.tree.map(draw, cell.zero_state(4, jnp.float64))
    got, got_state = jaxrnn.dynamic_rnn(cell.bind(params), xs, LENGTHS, state)
    plain = tuple(state) if isinstance(state, tuple) else state
    want, want_state = reference.dynamic_rnn(
        step, params, xs, LENGTHS, plain, **options
    )
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)
    for g, w in zip(
        jax.tree.leaves(got_state), jax.tree.leaves(want_state), strict=True
    ):
        np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-14)
