"""Tests of `dynamic_rnn` beyond the laws of cells and the goldens."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, drawn

import jaxrnn
import jaxrnn.export
from jaxrnn import FunctionCell, GRUCell, LSTMCell, LSTMStateTuple

F32 = jnp.float32
X = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)


def bound(cell, x=X, key=None):
    return cell.bind(drawn(cell, x[:, 0]), key)


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


def test_a_plain_tuple_without_c_and_h_brings_no_warning():
    cell = jaxrnn.SLSTMCell(2)
    state = tuple(cell.zero_state(4, F32))
    _, last = jaxrnn.dynamic_rnn(bound(cell), X, initial_state=state)
    assert type(last) is tuple


def test_declared_kind_of_outputs_comes_back():
    lists = lambda params, inputs, state, key=None: ([inputs, inputs], state)
    cell = FunctionCell(lists, 3, (3, 3)).bind({})
    outputs, _ = jaxrnn.dynamic_rnn(cell, X, dtype=F32)
    assert isinstance(outputs, tuple)


def test_integers_in_padding_are_not_looked_at():
    step = lambda table, inputs, state, key=None: (state + table[inputs[:, 0]],) * 2
    cell = FunctionCell(step, 2, 2)
    ids = np.array([[[0], [1], [2]], [[1], [-7], [10**6]]])
    run = lambda table: jaxrnn.dynamic_rnn(cell.bind(table), ids, [3, 1], None, F32)[0]
    gradient = jax.grad(lambda table: run(table).sum())(jnp.ones((3, 2), F32))
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

    def __init__(self):
        self.calls = 0

    def zero_state(self, batch_size, dtype):
        return jnp.zeros((batch_size, 3), dtype)

    def __call__(self, inputs, state):
        self.calls += 1
        return inputs + state, inputs + state


def test_any_object_that_keeps_the_protocol():
    outputs, _ = jaxrnn.dynamic_rnn(Foreign(), X, [5, 0, 2, 1], dtype=F32)
    np.testing.assert_allclose(outputs[0], X[0].cumsum(0), rtol=1e-6)
    assert not outputs[1].any()


def test_a_cell_is_found_out_before_the_loop_is_traced():
    foreign = Foreign()
    foreign.zero_state = lambda batch_size, dtype: jnp.zeros((batch_size, 1), dtype)
    with pytest.raises(ValueError, match="`new_state` must have shape"):
        jaxrnn.dynamic_rnn(foreign, X, dtype=F32)
    assert foreign.calls == 1


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
        jax.jvp(lambda x: run(x, n), (one,), (one,))
    np.testing.assert_allclose(outputs, mapped[0], rtol=1e-12)


STACK = jaxrnn.MultiRNNCell([LSTMCell(4, use_peepholes=True), GRUCell(4)])
TAKERS = {
    "dynamic_rnn": lambda cell, x, n, state: jaxrnn.dynamic_rnn(
        cell, x, n, state, resets=x[..., 0] > 0.5, reset_state=state
    ),
    "windows": lambda cell, x, n, state: jaxrnn.windows(x, 3, n)[0].inputs,
    "one step": lambda cell, x, n, state: cell(x[:, 0], state),
    "initial state": lambda cell, x, n, state: cell.get_initial_state(x[:, 0]),
    "init": lambda cell, x, n, state: cell.cell.init(jax.random.key(0), x[:, 0]),
    "stream": lambda cell, x, n, state: jaxrnn.export.Streamer(cell, 4, x.dtype)(
        x[:, 0], reset_state=state, resets=x[:, 0, 0] > 0
    ),
}


@pytest.mark.fast("dynamic_rnn", "windows", "stream")
@pytest.mark.parametrize("name", TAKERS)
def test_big_endian_arrays(name):
    """Arrays from files may be big-endian; users need not convert them."""
    state = jax.tree.map(np.asarray, STACK.zero_state(4, F32))
    state = jax.tree.map(lambda s: s + np.float32(0.5), state)
    native = X, np.array([5, 0, 3, 1]), state
    params = drawn(STACK, X[:, 0])
    foreign = lambda a: np.asarray(a).astype(a.dtype.newbyteorder(">"))
    big = jax.tree.map(foreign, native)
    assert not big[0].dtype.isnative
    got = TAKERS[name](STACK.bind(jax.tree.map(foreign, params)), *big)
    assert_same(got, TAKERS[name](STACK.bind(params), *native))
