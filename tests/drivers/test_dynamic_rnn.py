"""Tests of `dynamic_rnn` beyond the laws of cells and the goldens."""

import collections
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, drawn

import jaxrnn
import jaxrnn.convert
import jaxrnn.decode
import jaxrnn.export
from jaxrnn import FunctionCell, GRUCell, LSTMCell, LSTMStateTuple

F32 = jnp.float32
X = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)


def bound(cell, key=None):
    return cell.bind(drawn(cell, X[:, 0]), key)


@pytest.mark.parametrize("kind", [tuple, list, LSTMStateTuple._make])
def test_state_comes_back_in_the_structure_that_went_in(kind):
    """A plain pair is `(c, h)`, as in TensorFlow, with a warning at the call."""
    rng = np.random.default_rng(1)
    given = kind(rng.normal(size=(2, 4, 2)).astype(np.float32))
    cell = bound(LSTMCell(2))
    with warnings.catch_warnings(record=True, action="always") as found:
        outputs, state = jaxrnn.dynamic_rnn(cell, X, initial_state=given)
    assert type(state) is type(given)
    named = LSTMStateTuple(c=given[0], h=given[1])
    want, _ = jaxrnn.dynamic_rnn(cell, X, initial_state=named)
    np.testing.assert_array_equal(outputs, want)
    files = [warning.filename for warning in found]
    assert files == [] if isinstance(given, LSTMStateTuple) else {*files} == {__file__}


def test_integers_in_padding_are_not_looked_at():
    step = lambda table, inputs, state, key=None: (state + table[inputs[:, 0]],) * 2
    cell = FunctionCell(step, 2, 2)
    ids = np.array([[[0], [1], [2]], [[1], [-7], [10**6]]])
    run = lambda table: jaxrnn.dynamic_rnn(cell.bind(table), ids, [3, 1], None, F32)[0]
    gradient = jax.jit(jax.grad(lambda table: run(table).sum()))(jnp.ones((3, 2), F32))
    np.testing.assert_array_equal(gradient[:, 0], [3, 3, 1])


def test_scope_names_the_operations():
    def named(scope):
        options = {"dtype": "float32", "scope": scope}
        run = lambda x: jaxrnn.dynamic_rnn(bound(GRUCell(2)), x, **options)
        return jax.jit(run).lower(X).as_text(debug_info=True)

    assert "encoder/" in named("encoder")
    assert all(name in named(None) for name in ("rnn/", "gru_cell"))


class Foreign:
    """A cell that only implements the protocol: no jaxrnn class, and no pytree."""

    state_size = output_size = 3

    def zero_state(self, batch_size, dtype):
        return jnp.zeros((batch_size, 3), dtype)

    def __call__(self, inputs, state):
        return inputs + state, inputs + state


def test_any_object_that_keeps_the_protocol():
    outputs, _ = jaxrnn.dynamic_rnn(Foreign(), X, [5, 0, 2, 1], dtype=F32)
    np.testing.assert_allclose(outputs[0], X[0].cumsum(0), rtol=1e-6)
    assert not outputs[1].any()


@pytest.mark.slow
def test_transfers_nothing_if_all_is_on_the_device():
    """Run with `jax_transfer_guard="disallow"`, which forbids implicit transfers."""
    cell = GRUCell(2)
    x, lengths = jnp.ones((2, 3, 4, 5)), jnp.array([[4, 2, 0], [1, 1, 9]])
    bound = cell.bind(drawn(cell, x[0, :, 0]))
    run = lambda x, n: jaxrnn.dynamic_rnn(bound, x, n, dtype=x.dtype)
    one, n = x[0], lengths[0]
    gradient = jax.jit(jax.grad(lambda x: run(x, n)[0].sum()))
    gradient(one)  # To trace a program copies its constants.
    with jax.transfer_guard("disallow"):
        gradient(one)
        outputs, _ = run(one, n)
        mapped, _ = jax.vmap(run)(x, lengths)
    np.testing.assert_allclose(outputs, mapped[0], rtol=1e-12)


MIXED = jaxrnn.MultiRNNCell([LSTMCell(4, use_peepholes=True), GRUCell(4)])


def test_big_endian_arrays():
    """Arrays from files may be big-endian; users need not convert them."""
    state = jax.tree.map(lambda s: np.asarray(s) + F32(0.5), MIXED.zero_state(4, F32))
    native = drawn(MIXED, X[:, 0]), X[:, 0], state, X[:, 0, 0] > 0
    foreign = lambda a: np.asarray(a).astype(a.dtype.newbyteorder(">"))
    big = jax.tree.map(foreign, native)
    assert not big[1].dtype.isnative

    def run(params, x, state, resets):
        stream = jaxrnn.export.Streamer(MIXED.bind(params), 4, x.dtype)
        return stream(x, reset_state=state, resets=resets)

    assert_same(run(*big), run(*native))


# The state of an LSTM: other named tuples of c and h, and plain pairs.

C_AND_H = np.random.default_rng(1).normal(size=(2, 4, 3)).astype(np.float32)
RESETS = np.random.default_rng(2).random((4, 5)) < 0.4
COUNTS = [1, 5, 0, 3]
# As TensorFlow's class of this name.
TensorFlows = collections.namedtuple("LSTMStateTuple", ("c", "h"))
Swapped = collections.namedtuple("LSTMStateTuple", ("h", "c"))
LSTM = bound(LSTMCell(3))
STACK = bound(jaxrnn.MultiRNNCell([LSTMCell(3), LSTMCell(3)]))


def in_stack(state):
    given = {"resets": RESETS, "reset_state": (state, state), "return_states": True}
    return jaxrnn.dynamic_rnn(STACK, X, COUNTS, (state, state), **given)


def in_stream(state):
    stream = jaxrnn.export.Streamer(LSTM, 4, initial_state=state)
    stream.reset(state)
    stream(X[:, 0], resets=RESETS[:, 0], reset_state=state)
    return stream.state


STEP = lambda state: LSTM(X[:, 0], state)


@pytest.mark.parametrize(
    "run", [STEP, in_stack, in_stream], ids=lambda run: run.__name__
)
def test_a_named_tuple_of_c_and_h_is_a_state(run):
    got, want = run(TensorFlows(*C_AND_H)), run(LSTMStateTuple(*C_AND_H))
    for leaf, wanted in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(leaf, wanted)


@pytest.mark.parametrize("run", [STEP, in_stack])
def test_a_named_tuple_of_h_and_c_is_no_state(run):
    with pytest.raises(ValueError, match="state`"):
        run(Swapped(*C_AND_H))


# The second cell is scanned.
NOISY = jaxrnn.DropoutWrapper(STACK.cell, state_keep_prob=0.5)


@pytest.mark.fast("cell0")
@pytest.mark.parametrize("cell", [STACK, NOISY.bind(STACK.params, jax.random.key(0))])
def test_one_call_with_plain_pairs_warns_once(cell):
    state = tuple(C_AND_H), tuple(C_AND_H)
    with warnings.catch_warnings(record=True, action="always") as found:
        jaxrnn.dynamic_rnn(cell, X, initial_state=state)
    assert [warning.filename for warning in found] == [__file__]
