"""The native loops against TensorFlow's goldens, and random cells against XLA's loop.

The other tests of goldens run on four devices, so the default is XLA's loop. Most of
them use float64.
"""

import json

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn
from native_cases import assert_near, needs_library

import jaxrnn
from jaxrnn import CudnnCompatibleGRUCell, GRUCell, LSTMCell, contrib
from jaxrnn._cells.affine.native.sequence import NativeLoop

from ..golden import replay, store

pytestmark = [needs_library, pytest.mark.usefixtures("alone")]

GOLDENS = [
    case
    for case in store.recorded("tf1")["cases"]
    if case["dtype"] == "float32"
    and case["function"] != "cell"
    and any(f'{name}Cell"' in json.dumps(case) for name in ("LSTM", "GRU", "BasicRNN"))
]
# Other activations, wrappers without whole sequences, and no rows, steps or units.
OTHERS = "softsign", "residual_fn-whole", "device", "b0", "t0", "h0"


@pytest.fixture
def runs(monkeypatch):
    """The cells that the native loops ran."""
    found, run = [], NativeLoop.run
    spy = lambda loop, *args: found.append(loop.cell) or run(loop, *args)
    monkeypatch.setattr(NativeLoop, "run", spy)
    return found


@pytest.mark.fast("gru-whole-f32", "lstm_all-lengths_short", "lstm_peep-padding_nan-9")
@pytest.mark.parametrize("case", GOLDENS, ids=lambda case: case["name"])
def test_same_as_tensorflow(case, runs):
    replay.check(case)
    assert runs or any(word in case["name"] for word in OTHERS)


activations = st.sampled_from(["tanh", "relu", "sigmoid"])
units, clips = st.integers(1, 40), st.none() | st.floats(0.05, 1)
CELLS = st.one_of(
    st.builds(GRUCell, units, activation=activations),
    st.builds(CudnnCompatibleGRUCell, units, activation=activations),
    # With few units, a small variance would amplify rounding.
    st.builds(contrib.LayerNormBasicLSTMCell, st.integers(8, 40), st.floats(-1, 1)),
    st.builds(
        LSTMCell,
        units,
        use_peepholes=st.booleans(),
        cell_clip=clips,
        num_proj=st.none() | units,
        proj_clip=clips,
        forget_bias=st.floats(-1, 1),
        activation=activations,
    ),
)


@hypothesis.given(
    CELLS,
    st.lists(st.integers(-1, 9), min_size=1, max_size=20),
    st.integers(1, 8),
    st.integers(1, 20),
    st.integers(0, 2**31),
)
@hypothesis.settings(
    max_examples=6,  # Each example compiles separate programs.
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_random_settings_against_xlas_loop(runs, cell, lengths, time, depth, seed):
    draw = np.random.default_rng(seed).normal
    x = draw(size=(len(lengths), time, depth)).astype(np.float32)
    bound = cell.bind(drawn(cell, x[:, 0], seed=seed, scale=0.4))
    got, want = (
        jaxrnn.dynamic_rnn(bound, x, lengths, dtype=jnp.float32, implementation=name)
        for name in (None, "xla")
    )
    assert_near(got, want)
    assert runs
