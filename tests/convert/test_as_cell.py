"""Cells of Haiku and Equinox in our drivers."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import usual_promotion

import jaxrnn
from jaxrnn.convert import equinox, haiku

ROWS, TIME, DEPTH, UNITS = 3, 4, 2, 5
X = jnp.asarray(np.random.default_rng(0).normal(size=(ROWS, TIME, DEPTH)), jnp.float32)
LENGTHS = [4, 0, 2]


@pytest.fixture(autouse=True)
def usual_jax():
    with usual_promotion():
        yield


def run(cell):
    """Outputs and state, and the gradient of a sum of both."""

    of = lambda cell: jaxrnn.dynamic_rnn(cell, X, LENGTHS, dtype=X.dtype)
    return jax.jit(jax.grad(squares(of), has_aux=True))(cell)


def squares(run):
    """The sum of the squares of `run`'s results, and the results."""

    def loss(given):
        results = run(given)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(results)), results

    return loss


def by_hand(step, state):
    """Runs each row separately, over its own length."""
    outputs = jnp.zeros((ROWS, TIME, UNITS))
    states = []
    for row, length in enumerate(LENGTHS):
        now = jax.tree.map(lambda leaf, row=row: leaf[row], state)
        for t in range(length):
            output, now = step(X[row, t], now)
            outputs = outputs.at[row, t].set(output)
        states.append(now)
    return outputs, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


same = functools.partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-6)


def test_a_core_of_haiku():
    hk = pytest.importorskip("haiku")
    core = hk.transform(lambda x, state: hk.LSTM(UNITS)(x, state))
    cell = haiku.as_cell(core, hk.LSTMState(UNITS, UNITS), UNITS)
    params = cell.init(jax.random.key(0), X[:, 0])
    gradient, results = run(cell.bind(params))
    zeros = hk.LSTMState(*[jnp.zeros((ROWS, UNITS))] * 2)
    want = lambda p: by_hand(lambda x, s: core.apply(p, None, x, s), zeros)
    wanted_gradient, wanted = jax.jit(jax.grad(squares(want), has_aux=True))(params)
    same(results, wanted)
    same(gradient.params, wanted_gradient)


def test_noise_of_haiku_is_drawn_at_each_step():
    hk = pytest.importorskip("haiku")

    def step(x, state):
        state = hk.dropout(hk.next_rng_key(), 0.5, jnp.ones_like(state))
        return state, state

    cell = haiku.as_cell(hk.transform(step), UNITS, UNITS)
    bound = cell.bind({}, jax.random.key(1))
    outputs, _ = jaxrnn.dynamic_rnn(bound, X, dtype=X.dtype)
    assert not jnp.array_equal(outputs[:, 0], outputs[:, 1])


@pytest.mark.slow
def test_a_core_of_haiku_that_takes_no_key():
    hk = pytest.importorskip("haiku")
    core = hk.transform(lambda x, state: hk.GRU(UNITS)(x, state))
    cells = [
        haiku.as_cell(each, UNITS, UNITS) for each in (core, hk.without_apply_rng(core))
    ]
    params = cells[0].init(jax.random.key(0), X[:, 0])
    same(*[run(cell.bind(params))[1] for cell in cells])


@pytest.mark.fast("GRUCell")
@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell"])
def test_a_cell_of_equinox(kind):
    eqx = pytest.importorskip("equinox")
    key = jax.random.key(0)
    module = getattr(eqx.nn, kind)(DEPTH, UNITS, dtype=X.dtype, key=key)
    size = (UNITS, UNITS) if kind == "LSTMCell" else UNITS
    cell = equinox.as_cell(module, size)
    gradient, results = run(cell)
    zeros = cell.zero_state(ROWS, X.dtype)

    def want(module):
        def step(x, state):
            state = module(x, state)
            return jax.tree.leaves(state)[0], state

        return by_hand(step, zeros)

    gradients, wanted = eqx.filter_jit(eqx.filter_grad(squares(want), has_aux=True))(
        module
    )
    same(results, wanted)
    same(gradient.params["weight_ih"], gradients.weight_ih)
    same(gradient.params["weight_hh"], gradients.weight_hh)


def last(inputs, state):
    """A step that changes nothing."""
    return state


def test_parameters_that_as_cell_bound():
    cell = equinox.as_cell(last, 3).cell
    message = "this cell already has its parameters, which `as_cell` bound"
    with pytest.raises(ValueError, match=message):
        cell.init(jax.random.key(0), X[:, 0])


def test_transformed_functions_that_are_no_cores():
    hk = pytest.importorskip("haiku")
    message = r"`transformed.init` must accept \(key, inputs, state\), got"
    with pytest.raises(TypeError, match=message):
        haiku.as_cell(hk.transform(lambda x: x), 3, 3)
    message = "must be made by hk.transform, got one made by hk.transform_with_state"
    with pytest.raises(TypeError, match=message):
        haiku.as_cell(hk.transform_with_state(last), 3, 3)


# The sizes of Haiku's cores, and errors before a loop is traced. Haiku's own errors get
# a note.
SIZES = {
    "a_pair": ("LSTM", (UNITS, UNITS), UNITS, "has no attribute 'hidden'"),
    "an_int": ("LSTM", UNITS, UNITS, "has no attribute 'hidden'"),
    "other_units": ("GRU", 6, UNITS, "shape"),
    "that_fit_a_step": ("VanillaRNN", 6, UNITS, "`cell` must keep the shapes of its"),
    "outputs": ("GRU", UNITS, 6, r"must have shape \(3, 6\) to match `output_size`"),
    "two_outputs": ("GRU", UNITS, (UNITS, UNITS), r"\(see `output_size`\) must have"),
    "no_output": ("Linear", UNITS, UNITS, r"must return a pair \(output, new_state\)"),
}


@pytest.mark.fast("a_pair", "outputs", "no_output")
@pytest.mark.parametrize("name", SIZES)
def test_wrong_sizes_of_haiku(name):
    hk = pytest.importorskip("haiku")
    core, state_size, output_size, message = SIZES[name]

    def step(x, state):
        module = getattr(hk, core)(UNITS)
        return module(x) if core == "Linear" else module(x, state)

    def run():
        cell = haiku.as_cell(hk.transform(step), state_size, output_size)
        params = cell.init(jax.random.key(0), X[:, 0])
        jaxrnn.dynamic_rnn(cell.bind(params), X, dtype=X.dtype)

    with pytest.raises(Exception, match=message) as caught:
        run()
    is_ours = "`" in message or "pair" in message
    assert is_ours or "`hk.LSTMState(8, 8)`" in "".join(caught.value.__notes__)


@pytest.mark.parametrize(
    ("kind", "size"), [("LSTMCell", UNITS), ("GRUCell", (UNITS, UNITS)), ("GRUCell", 6)]
)
def test_wrong_sizes_of_equinox(kind, size):
    eqx = pytest.importorskip("equinox")
    key = jax.random.key(0)
    module = getattr(eqx.nn, kind)(DEPTH, UNITS, dtype=X.dtype, key=key)
    cell = equinox.as_cell(module, size)
    with pytest.raises((TypeError, ValueError)) as caught:
        jaxrnn.dynamic_rnn(cell, X, dtype=X.dtype)
    assert "(8, 8) for the (h, c) of an LSTMCell" in "".join(caught.value.__notes__)


def test_a_state_of_equinox_is_of_the_size_that_was_given():
    cell = equinox.as_cell(lambda inputs, state: (state, state), UNITS)
    with pytest.raises(ValueError, match=r"the state that `cell` returns must have"):
        jaxrnn.dynamic_rnn(cell, X, dtype=X.dtype)
