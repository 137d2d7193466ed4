"""Dropout: what is dropped, how often, and from which keys."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, assert_same, differentiated, draw, drawn

import jaxrnn
from jaxrnn import (
    DropoutWrapper,
    FunctionCell,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
)
from jaxrnn.testing import _oracle
from jaxrnn.testing._oracle import Setup

LOOP = "jaxrnn._loops.wrappers.dropout"
KEY = jax.random.key(7)
F32 = jnp.float32
X = np.ones((64, 6, 50), np.float32)
IDS = X.astype(int)
VARIATIONAL = {"variational_recurrent": True, "input_size": 50, "dtype": F32}


def identity(params, inputs, state, key=None):
    """Outputs its inputs and keeps its state."""
    return inputs, state


def delayed(params, inputs, state, key=None):
    """Outputs the inputs of the step before, which its state holds."""
    return state, inputs


def draws(params, inputs, state, key=None):
    """Outputs what it draws, to show which key it receives."""
    return jax.random.normal(key, inputs.shape, inputs.dtype), state


def through(wrapper, x=X, key=KEY, state=None):
    return jaxrnn.dynamic_rnn(wrapper.bind({}, key), x, None, state, F32)


def plain(step=identity):
    return FunctionCell(step, 50, 50)


def variational(keep, **options):
    """Variational dropout of the output."""
    options |= {"variational_recurrent": True, "dtype": F32}
    return DropoutWrapper(plain(), output_keep_prob=keep, **options)


def assert_mean(values, mean):
    """The mean of independent truth values, within five standard deviations."""
    assert abs(values.mean() - mean) < 5 * (mean * (1 - mean) / values.size) ** 0.5


# Options, and the axes [rows, steps, entries] along which masks differ.
MASKS = {
    "per_step": ({}, [0, 1, 2]),
    "per_row": (VARIATIONAL | {"mask_per_row": True}, [0, 2]),
    "shared": (VARIATIONAL, [2]),
}


KEEP = {"input": 0.9, "output": 0.25, "state": 0.25}


@pytest.mark.fast("shared-input", "per_row-output", "per_step-state")
@pytest.mark.parametrize("where", KEEP)
@pytest.mark.parametrize("masks", MASKS)
def test_rate_and_scale(masks, where):
    """With masks per row, dropout of the state is Keras's recurrent dropout."""
    (options, fresh), keep = MASKS[masks], KEEP[where]
    inner = plain(delayed if where == "state" else identity)
    cell = DropoutWrapper(inner, **{f"{where}_keep_prob": keep}, **options)
    outputs = np.asarray(through(cell)[0])
    if where == "state":
        assert not outputs[:, 0].any()  # The zero state.
        outputs = outputs[:, 1:]
    for axis in {0, 1, 2}.difference(fresh):
        first = outputs.take([0], axis)
        assert (outputs == first).all()
        outputs = first
    np.testing.assert_allclose(np.unique(outputs), [0, 1 / keep], rtol=1e-6)
    assert_mean(outputs > 0, keep)
    for axis in fresh:
        pairs = outputs.shape[axis] // 2
        even, odd = (outputs.take(2 * np.arange(pairs) + i, axis) for i in range(2))
        assert_mean(even == odd, keep**2 + (1 - keep) ** 2)


def test_rates_of_input_output_and_leaves_of_the_state_are_independent():
    wrapper = DropoutWrapper(FunctionCell(identity, (50, 50), 50), 0.5, 0.5, 0.5)
    ones = jnp.ones((64, 50), F32)
    outputs, final = through(wrapper, X[:, :1], state=(ones, ones))
    assert set(np.unique(outputs)) == {0, 4}
    assert set(np.unique(final)) == {0, 2}
    assert_mean((outputs[:, 0] > 0) & (final[0] > 0) & (final[1] > 0), 1 / 16)


def test_zero_keeps_nothing_one_is_the_cell_and_so_is_no_key():
    assert not through(DropoutWrapper(plain(), 1.0, 0.0))[0].any()
    assert not through(variational(0.0))[0].any()
    np.testing.assert_array_equal(through(DropoutWrapper(plain(), 1.0))[0], X)
    without, _ = through(DropoutWrapper(plain(), 0.1, 0.1), key=None)
    np.testing.assert_array_equal(without, X)


def test_the_output_is_taken_before_the_state_is_dropped():
    same = lambda params, inputs, state, key=None: (inputs, inputs)
    outputs, state = through(DropoutWrapper(plain(same), state_keep_prob=0.0))
    assert not state.any()
    np.testing.assert_array_equal(outputs, X)


def test_a_cell_of_ones_own_draws_from_the_key_of_the_step():
    outputs, _ = through(FunctionCell(draws, 3, 3), X[:2, :, :3])
    keys = [jax.random.fold_in(KEY, t) for t in range(6)]
    want = [jax.random.normal(key, (2, 3), F32) for key in keys]
    np.testing.assert_array_equal(outputs, np.stack(want, 1))


HALF = DropoutWrapper(plain(), output_keep_prob=0.5)
OF_RUN = variational(0.5, mask_per_row=True)
APART = {
    "stack": MultiRNNCell([HALF, HALF]),
    "wrapper": DropoutWrapper(HALF, output_keep_prob=0.5),
    # A mask of the run is that of no step.
    "run": MultiRNNCell([MultiRNNCell([plain(), OF_RUN]), HALF]),
}


@pytest.mark.parametrize("name", APART)
def test_wrappers_draw_apart(name):
    """Equal masks would leave half of the entries, independent ones a quarter."""
    cell = APART[name].bind(APART[name].init(KEY, X[:, 0]), KEY)
    outputs, _ = jaxrnn.dynamic_rnn(cell, X, dtype=F32)
    for t in range(6):
        assert_mean(outputs[:, t] > 0, 0.25)


def test_variational_masks_hold_within_a_users_wrapper():
    inside = variational(0.5)

    def draw_before(params, inputs, state, key=None):
        own, inner = jax.random.split(key)
        inputs = inputs + jax.random.uniform(own, inputs.shape, inputs.dtype)
        return inside.apply(params, inputs, state, inner)

    cell = plain(draw_before)
    xs, state = jnp.asarray(X[:3, : _oracle.TIME]), jnp.zeros((3, 50), F32)
    setup = Setup(cell, {}, xs, jnp.full(3, _oracle.TIME), state, F32, KEY)
    run = lambda: Setup.run(setup, {}, xs, state, setup.lengths)[0]
    outputs = np.asarray(jax.jit(run)())
    kept = outputs != 0
    assert (kept == kept[:1, :1]).all()
    assert 0.2 < kept[0, 0].mean() < 0.8
    steps = outputs[0, :, kept[0, 0]]  # What it draws is never equal.
    assert len(np.unique(steps)) == steps.size


class Whole(jaxrnn.RNNCell):
    """Outputs its inputs, of all steps at once."""

    state_size, output_size = 1, 50
    init = staticmethod(lambda key, inputs, dtype=None: {})
    apply = staticmethod(identity)

    def choose_loop(self, params, run):
        return jaxrnn.extend.Choice(
            "whole", lambda params, run: (run.inputs, run.state)
        )


DRAWN = [
    ("per_step", "threefry2x32", "cpu"),
    ("per_step", "rbg", "tpu"),
    ("per_row", "rbg", "cpu"),
]


@pytest.mark.loops
@pytest.mark.fast("per_step-rbg-*")
@pytest.mark.parametrize(("masks", "impl", "platform"), DRAWN)
def test_masks_of_all_steps_are_those_of_single_steps(
    masks, impl, platform, monkeypatch
):
    """Bit by bit; under `vmap`, only Threefry draws each step's numbers."""
    monkeypatch.setattr(f"{LOOP}.platform_of", lambda arrays: platform)
    monkeypatch.setattr(f"{LOOP}.STEPS_AT_ONCE", 3)  # A part has one step more.
    time_major = platform == "tpu"
    cell = DropoutWrapper(Whole(), 0.7, 0.6, **MASKS[masks][0])
    cell = cell.bind({}, jax.random.key(3, impl=impl))
    x, state = draw(4, 6, 50, dtype=F32), np.zeros((4, 1), F32)
    swap = lambda x: np.swapaxes(x, 0, 1) if time_major else x
    options = {"swap_memory": jaxrnn.memory.Recompute(4), "time_major": time_major}
    got, _ = jaxrnn.dynamic_rnn(cell, swap(x), None, state, **options)
    step = jax.jit(lambda t, x: cell.at_step(t)(x, state)[0])
    want = [step(jnp.int32(t), x[:, t]) for t in range(6)]
    assert_same(swap(np.asarray(got)), np.stack(want, 1))


def drops(cell, *keep, **options):
    """Variational dropout."""
    return DropoutWrapper(cell, *keep, **VARIATIONAL | options)


def everything(state):
    return True


LSTM, GRU = LSTMCell(50), GRUCell(50)
PEEPHOLES = LSTMCell(50, use_peepholes=True)
ALL = 0.7, 0.6, 0.8
RESETS = np.array([[0, 0, 1, 0, 0, 0], [0] * 6, [1, 0, 0, 1, 0, 0]], bool)
RUNS = {
    "lengths": {"sequence_length": np.array([6, 0, 3])},
    "resets": {"resets": RESETS, "return_states": True},
    "parts": {"swap_memory": jaxrnn.memory.Recompute(4)},
}
# A cell, and how it is run.
LOOPS = {
    "stack": (MultiRNNCell([drops(LSTM, *ALL), drops(GRU, *ALL)]), "lengths"),
    "leaves": (
        drops(LSTM, *ALL, dropout_state_filter_visitor=everything, mask_per_row=True),
        "resets",
    ),
    "peepholes": (drops(PEEPHOLES, *ALL), "parts"),
}


@pytest.mark.loops
@pytest.mark.fast("leaves")
@pytest.mark.parametrize(("cell", "options"), LOOPS.values(), ids=LOOPS)
def test_a_loop_drops_like_a_scan(cell, options):
    x = draw(3, 6, 50, dtype=F32)
    params = drawn(cell, x[:, 0], scale=0.2)
    state = jax.tree.map(lambda s: draw(*s.shape, dtype=F32), cell.zero_state(3, F32))
    given = RUNS[options] | {"implementation": "xla"}
    found = jaxrnn.explain(cell.bind(params, KEY), x, initial_state=state, **given)
    assert found.loop == "xla"

    def run(params, x, state, **scan):
        bound = cell.bind(params, KEY)
        return jaxrnn.dynamic_rnn(bound, x, initial_state=state, **given | scan)

    scan = functools.partial(run, implementation="scan")
    got, want = (differentiated(each, params, x, state) for each in (run, scan))
    assert_near(got, want, tolerance=1e-5)


# Dropout of these states cannot be drawn before the loop.


def test_a_dropped_state_may_be_infinite():
    """In a loop too: 0 times infinity would be NaN."""
    cell = drops(jaxrnn.BasicRNNCell(50, activation=jnp.exp), 1, 1, 0.0)
    params = jax.tree.map(lambda w: w + 100, drawn(cell, X[:, 0]))
    outputs, state = jaxrnn.dynamic_rnn(cell.bind(params, KEY), X[:2], dtype=F32)
    assert np.isinf(outputs).all()
    assert not state.any()


NEST = {"a": (2, 3), "b": 4}


def dropped(visitor, size=NEST):
    """Which of the leaves, by default a[0], a[1], b, a rate that drops all drops."""
    options = {"state_keep_prob": 0.0, "dropout_state_filter_visitor": visitor}
    cell = DropoutWrapper(FunctionCell(identity, size, 50), **options)
    state = jax.tree.map(lambda n: jnp.ones((64, n), F32), size)
    _, final = through(cell, X[:, :1], state=state)
    return [not leaf.any() for leaf in jax.tree.leaves(final)]


def test_the_memory_of_an_lstm_is_never_dropped():
    assert dropped(None, jaxrnn.LSTMStateTuple(3, 3)) == [False, True]


def at(kind, answer):
    """A visitor with an answer for the nests of a kind, and True for all others."""
    return lambda state: answer if isinstance(state, kind) else True


def is_wide(state):
    return isinstance(state, dict) or getattr(state, "shape", (0, 0))[1] == 4


FILTERS = {
    "child_a": (at(dict, {"a": True, "b": False}), [True, True, False]),
    "within_a": (at(tuple, (True, False)), [True, False, True]),
    "by_leaf": (is_wide, [False, False, True]),
}


@pytest.mark.parametrize(("visitor", "want"), FILTERS.values(), ids=FILTERS)
def test_the_filter_walks_the_state(visitor, want):
    assert dropped(visitor) == want


def test_integers_are_not_dropped():
    with pytest.raises(TypeError, match=r"`input` .* Set `input_keep"):
        through(DropoutWrapper(plain(), 0.5), IDS)
