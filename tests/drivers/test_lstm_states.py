"""Tests of the state of an LSTM: other named tuples of c and h, and plain pairs."""

import collections
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import drawn

import jaxrnn
import jaxrnn.convert
import jaxrnn.decode
import jaxrnn.export
import jaxrnn.nnx
from jaxrnn import LSTMCell, LSTMStateTuple, contrib

F32 = jnp.float32
X = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
C_AND_H = np.random.default_rng(1).normal(size=(2, 4, 3)).astype(np.float32)
RESETS = np.random.default_rng(2).random((4, 5)) < 0.4
COUNTS = [1, 5, 0, 3]

# As TensorFlow's class of this name.
TensorFlows = collections.namedtuple("LSTMStateTuple", ("c", "h"))
Swapped = collections.namedtuple("LSTMStateTuple", ("h", "c"))


def bound(cell):
    return cell.bind(drawn(cell, X[:, 0]))


LSTM = bound(LSTMCell(3))
STACK = bound(jaxrnn.MultiRNNCell([LSTMCell(3), LSTMCell(3)]))


def in_raw_rnn(state):
    def loop_fn(time, output, cell_state, loop_state):
        new = state if cell_state is None else type(state)(*cell_state)
        return time >= 3, X[:, 0], new, output, None

    return jaxrnn.raw_rnn(LSTM, loop_fn)[1]


def in_stream(state):
    stream = jaxrnn.export.Streamer(LSTM, 4, initial_state=state)
    stream.reset(state)
    stream(X[:, 0])
    stream(X[:, 1], resets=RESETS[:, 0], reset_state=state)
    return stream.state


def in_decoder(state):
    table = jnp.eye(3, dtype=F32)
    given = LSTM, lambda ids: table[ids], lambda output: output, state
    model = jaxrnn.decode.Model(*given, start_ids=[1] * 4, eos_id=0)
    return jaxrnn.decode.greedy(model, max_length=4)


def in_nnx(state):
    module = jaxrnn.nnx.RNN(LSTM.cell, 3, rngs=nnx.Rngs(0), return_carry=True)
    return module(X, COUNTS, initial_state=state)


def with_attention(state):
    cell = contrib.AttentionWrapper(LSTM.cell, contrib.LuongAttention(3, 3), 3)
    whole = cell.initial_state(X, COUNTS).clone(cell_state=state)
    bound = cell.bind(drawn(cell, X[:, 0]))
    return jaxrnn.dynamic_rnn(bound, X, COUNTS, whole, F32)[1].cell_state


RUNS = [
    lambda state: LSTM(X[:, 0], state),
    lambda state: STACK(X[:, 0], (state, state)),
    lambda state: jaxrnn.dynamic_rnn(LSTM, X, initial_state=state),
    lambda state: jaxrnn.dynamic_rnn(LSTM, X, COUNTS, state),
    lambda state: jaxrnn.dynamic_rnn(
        STACK, X, COUNTS, (state, state), resets=RESETS, return_states=True
    ),
    lambda state: jaxrnn.dynamic_rnn(
        LSTM, X, dtype=F32, resets=RESETS, reset_state=state
    ),
    lambda state: jaxrnn.static_rnn(LSTM, [*X.swapaxes(0, 1)], state, F32, COUNTS),
    in_raw_rnn,
    in_stream,
    in_decoder,
    in_nnx,
    with_attention,
    lambda state: jaxrnn.convert.to_torch_state((state, state)),
]


@pytest.mark.parametrize("run", RUNS)
def test_a_named_tuple_of_c_and_h_is_a_state(run):
    got, want = run(TensorFlows(*C_AND_H)), run(LSTMStateTuple(*C_AND_H))
    for leaf, wanted in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(leaf, wanted)


@pytest.mark.parametrize("run", RUNS[:4])
def test_a_named_tuple_of_h_and_c_is_no_state(run):
    with pytest.raises(ValueError, match="state`"):
        run(Swapped(*C_AND_H))


@pytest.mark.parametrize("kind", [tuple, list])
@pytest.mark.parametrize(
    "run",
    [
        lambda state: STACK(X[:, 0], state),
        lambda state: jaxrnn.dynamic_rnn(STACK, X, initial_state=state),
        # This cell is scanned.
        lambda state: jaxrnn.dynamic_rnn(
            jaxrnn.DropoutWrapper(STACK.cell, state_keep_prob=0.5).bind(
                STACK.params, jax.random.key(0)
            ),
            X,
            initial_state=state,
        ),
    ],
)
def test_one_call_with_plain_pairs_warns_once(run, kind):
    state = (kind(C_AND_H), kind(C_AND_H))
    with warnings.catch_warnings(record=True, action="always") as found:
        run(state)
    assert [warning.filename for warning in found] == [__file__]
