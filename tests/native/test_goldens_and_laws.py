"""The native loops against TensorFlow's goldens, the laws and a NumPy loop.

The other tests of goldens and laws run on four devices, so the default is XLA's loop.
Most of them use float64.
"""

import json

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from native_cases import assert_near, needs_library

import jaxrnn
from jaxrnn import CudnnCompatibleGRUCell, GRUCell, LSTMCell, contrib, testing
from jaxrnn._loops.library_cells import native_kind
from jaxrnn._loops.native.sequence import NativeLoop

from ..golden import replay, store

pytestmark = [needs_library, pytest.mark.usefixtures("alone")]


def is_known(cell):
    try:
        return bool(native_kind(cell))
    except (jaxrnn.DeclinedError, AttributeError):
        return False


GOLDENS = [
    case
    for case in store.recorded("tf1")["cases"]
    if case["dtype"] == "float32"
    and case["function"] != "cell"
    and any(f'{name}Cell"' in json.dumps(case) for name in ("LSTM", "GRU", "BasicRNN"))
]
# Other activations, wrappers without whole sequences, and no rows, steps or units.
OTHERS = "softsign", "residual_fn-whole", "device", "b0", "t0", "h0"
KNOWN = [name for name, case in CASES.items() if is_known(case.cell)]


@pytest.fixture
def runs(monkeypatch):
    """The cells that the native loops ran."""
    found = []
    run = NativeLoop.run
    monkeypatch.setattr(
        NativeLoop,
        "run",
        lambda loop, *args: [found.append(loop.cell), run(loop, *args)][1],
    )
    return found


@pytest.mark.fast("gru-whole-f32", "lstm_all-lengths_short", "lstm_peep-padding_nan-9")
@pytest.mark.parametrize("case", GOLDENS, ids=lambda case: case["name"])
def test_same_as_tensorflow(case, runs):
    replay.check(case)
    assert runs or any(word in case["name"] for word in OTHERS)


def test_cells_that_are_known():
    assert {"lstm_projection", "gru", "gru_cudnn", "basic_rnn"} <= set(KNOWN)


# One cell for each loop; the goldens cover the other hyperparameters.
OF_KINDS = {native_kind(CASES[name].cell): name for name in KNOWN[::-1]}


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_KINDS.values())
def test_laws(name, runs):
    case = CASES[name]
    setup = testing.make_setup(
        case.cell, case.inputs, jnp.float32, case.key, case.state
    )
    for law in testing.LAWS:
        law(setup)
    assert runs


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normed(scope, x, params):
    x = x - x.mean()
    gamma, beta = (params[scope][name] for name in ("gamma", "beta"))
    return gamma * x / np.sqrt(np.mean(x * x) + 1e-12) + beta


ACTIVATIONS = {
    jnp.tanh: np.tanh,
    jax.nn.relu: lambda x: np.maximum(x, 0),
    jax.nn.sigmoid: sigmoid,
}


def numpy_step(cell, params, x, c, h):
    """`(c, h)` of one row after a step, in NumPy."""
    act = ACTIVATIONS[cell.activation]
    if isinstance(cell, contrib.LayerNormBasicLSTMCell):
        z = np.split(np.concatenate([x, h]) @ params["kernel"], 4)
        scopes = "input", "transform", "forget", "output"
        i, j, f, o = (normed(*pair, params) for pair in zip(scopes, z, strict=True))
        c = sigmoid(f + cell.forget_bias) * c + sigmoid(i) * act(j)
        c = normed("state", c, params)
        return c, sigmoid(o) * act(c)
    if isinstance(cell, LSTMCell):
        p = lambda name: params.get(name, 0)
        bound = lambda z, most: z if most is None else np.clip(z, -most, most)
        z = np.concatenate([x, h]) @ params["kernel"] + params["bias"]
        i, j, f, o = np.split(z, 4)
        f = sigmoid(f + cell.forget_bias + p("w_f_diag") * c)
        c = bound(f * c + sigmoid(i + p("w_i_diag") * c) * act(j), cell.cell_clip)
        h = sigmoid(o + p("w_o_diag") * c) * act(c)
        if "projection" in params:
            h = bound(h @ params["projection"]["kernel"], cell.proj_clip)
        return c, h
    gates, new = params["gates"], params["candidate"]
    z = np.concatenate([x, h]) @ gates["kernel"] + gates["bias"]
    r, u = np.split(sigmoid(z), 2)
    if isinstance(cell, GRUCell):
        z = np.concatenate([x, r * h]) @ new["kernel"] + new["bias"]
    else:
        of_x, of_h = new["input_projection"], new["hidden_projection"]
        z = x @ of_x["kernel"] + of_x["bias"] + r * (h @ of_h["kernel"] + of_h["bias"])
    return c, u * h + (1 - u) * act(z)


def numpy_loop(cell, params, x, lengths):
    """`(outputs, c, h)` of a batch, from a zero state."""
    sizes = (
        [cell.state_size] if cell.output_size == cell.state_size else cell.state_size
    )
    outputs = np.zeros((*x.shape[:2], cell.output_size))
    last_c, last_h = (np.zeros((len(x), n)) for n in (sizes[0], sizes[-1]))
    for row, length in enumerate(lengths):
        c, h = last_c[row], last_h[row]
        for t in range(min(max(length, 0), x.shape[1])):
            c, h = numpy_step(cell, params, x[row, t], c, h)
            outputs[row, t] = h
        last_c[row], last_h[row] = c, h
    return outputs, last_c, last_h


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
    max_examples=15,  # Each example compiles separate programs.
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_random_settings_against_numpy(runs, cell, lengths, time, depth, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(len(lengths), time, depth)).astype(np.float32)
    params = jax.eval_shape(cell.init, jax.random.key(0), jnp.asarray(x[:, 0]))
    params = jax.tree.map(
        lambda p: rng.normal(size=p.shape, scale=0.4).astype(np.float32), params
    )
    got, state = jaxrnn.dynamic_rnn(cell.bind(params), x, lengths, dtype=jnp.float32)
    outputs, c, h = numpy_loop(cell, params, x, lengths)
    assert_near(got, outputs.astype(np.float32))
    last = [h] if isinstance(state, jax.Array) else [c, h]
    assert_near(jax.tree.leaves(state), [s.astype(np.float32) for s in last])
    assert runs
