"""Cells of Haiku and Equinox in our drivers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import usual_promotion

import jaxrnn
from jaxrnn.convert import equinox, haiku

hk = pytest.importorskip("haiku")
eqx = pytest.importorskip("equinox")

ROWS, TIME, DEPTH, UNITS = 3, 4, 2, 5
X = np.random.default_rng(0).normal(size=(ROWS, TIME, DEPTH)).astype(np.float32)
PAIR = (UNITS, UNITS)


@pytest.fixture(autouse=True)
def usual_jax():
    with usual_promotion():
        yield


def run(cell):
    return jaxrnn.dynamic_rnn(cell, X, dtype=X.dtype)


def slopes(run, given):
    """The gradient of the sum of the squares of `run`'s results, and the results."""

    def loss(given):
        results = run(given)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(results)), results

    return jax.jit(jax.grad(loss, has_aux=True))(given)


def by_hand(step, state):
    outputs = []
    for t in range(TIME):
        output, state = step(X[:, t], state)
        outputs.append(output)
    return jnp.stack(outputs, 1), state


def same(got, want):
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)


def core(kind, units=UNITS):
    return hk.transform(lambda x, state: getattr(hk, kind)(units)(x, state))


def module(kind):
    key = jax.random.key(0)
    return getattr(eqx.nn, kind)(DEPTH, UNITS, dtype=X.dtype, key=key)


def test_a_core_of_haiku():
    lstm = core("LSTM")
    cell = haiku.as_cell(lstm, hk.LSTMState(UNITS, UNITS), UNITS)
    params = cell.init(jax.random.key(0), X[:, 0])
    zeros = hk.LSTMState(*[jnp.zeros((ROWS, UNITS))] * 2)
    want = lambda p: by_hand(lambda x, s: lstm.apply(p, None, x, s), zeros)
    same(slopes(lambda p: run(cell.bind(p)), params), slopes(want, params))


def test_noise_of_haiku_is_drawn_at_each_step():
    def step(x, state):
        state = hk.dropout(hk.next_rng_key(), 0.5, jnp.ones_like(state))
        return state, state

    cell = haiku.as_cell(hk.transform(step), UNITS, UNITS)
    outputs, _ = run(cell.bind({}, jax.random.key(1)))
    assert not jnp.array_equal(outputs[0, 0], outputs[0, 1])


@pytest.mark.slow
def test_a_core_of_haiku_that_takes_no_key():
    gru = core("GRU")
    cells = [haiku.as_cell(f, UNITS, UNITS) for f in (gru, hk.without_apply_rng(gru))]
    params = cells[0].init(jax.random.key(0), X[:, 0])
    same(*[run(cell.bind(params)) for cell in cells])


@pytest.mark.fast("GRUCell")
@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell"])
def test_a_cell_of_equinox(kind):
    given = module(kind)
    size = PAIR if kind == "LSTMCell" else UNITS
    arrays, static = eqx.partition(given, eqx.is_array)

    def want(arrays):
        def step(x, state):
            state = jax.vmap(eqx.combine(arrays, static))(x, state)
            return jax.tree.leaves(state)[0], state

        return by_hand(step, equinox.as_cell(given, size).zero_state(ROWS, X.dtype))

    ours = lambda arrays: run(equinox.as_cell(eqx.combine(arrays, static), size))
    same(slopes(ours, arrays), slopes(want, arrays))


def last(inputs, state):
    """A step that changes nothing."""
    return state


def test_functions_that_are_no_cores_and_a_second_init():
    with pytest.raises(ValueError, match="`as_cell` has already bound the parameters"):
        equinox.as_cell(last, 3).cell.init(jax.random.key(0), X[:, 0])
    with pytest.raises(
        TypeError, match=r"init` must accept \(key, inputs, state\), got"
    ):
        haiku.as_cell(hk.transform(lambda x: x), 3, 3)
    with pytest.raises(TypeError, match=r"got the result of hk.transform_w"):
        haiku.as_cell(hk.transform_with_state(last), 3, 3)


# Sizes, and errors before a loop is traced. Errors of the libraries get a note.
OF_HAIKU = "`hk.LSTMState(8, 8)`"
SIZES = {
    "a_pair": ("LSTM", PAIR, UNITS, "has no attribute 'hidden'", OF_HAIKU),
    "an_int": ("LSTM", UNITS, UNITS, "has no attribute 'hidden'", OF_HAIKU),
    "other_units": ("GRU", 6, UNITS, "shape", OF_HAIKU),
    "that_fit_a_step": ("VanillaRNN", 6, UNITS, "`new_state` must have shape", ""),
    "outputs": ("GRU", UNITS, 6, r"must have shape \[3, 6\].* See `output_s", ""),
    "two_outputs": ("GRU", UNITS, PAIR, "`output` must have the structure", ""),
    "no_output": ("Linear", UNITS, UNITS, r"return a pair \(output, new_state\)", ""),
}


@pytest.mark.fast("a_pair", "outputs", "no_output")
@pytest.mark.parametrize("name", SIZES)
def test_wrong_sizes_of_haiku(name):
    kind, state_size, output_size, message, note = SIZES[name]
    linear = hk.transform(lambda x, state: hk.Linear(UNITS)(x))
    given = linear if kind == "Linear" else core(kind)
    cell = haiku.as_cell(given, state_size, output_size)
    with pytest.raises(Exception, match=message) as caught:
        run(cell.bind(cell.init(jax.random.key(0), X[:, 0])))
    assert note in "".join(getattr(caught.value, "__notes__", ""))


@pytest.mark.parametrize(
    ("kind", "size"), [("LSTMCell", UNITS), ("GRUCell", PAIR), ("GRUCell", 6)]
)
def test_wrong_sizes_of_equinox(kind, size):
    with pytest.raises((TypeError, ValueError)) as caught:
        run(equinox.as_cell(module(kind), size))
    assert "(8, 8) for the (h, c) of an LSTMCell" in "".join(caught.value.__notes__)


def test_a_state_of_equinox_is_of_the_size_that_was_given():
    cell = equinox.as_cell(lambda inputs, state: (state, state), UNITS)
    with pytest.raises(ValueError, match="`new_state` must have"):
        run(cell)
