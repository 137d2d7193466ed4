"""Dropout: what is dropped, how often, and from which keys."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import (
    DropoutWrapper,
    FunctionCell,
    LSTMCell,
    LSTMStateTuple,
    MultiRNNCell,
    TensorArray,
    TensorShape,
)
from jaxrnn.testing import _oracle
from jaxrnn.testing._oracle import Setup

KEY = jax.random.key(7)
F32 = jnp.float32
X = np.ones((64, 6, 50), np.float32)


def identity(params, inputs, state, key=None):
    """Outputs its inputs and keeps its state."""
    return inputs, state


def through(wrapper, x=X, key=KEY, state=None):
    return jaxrnn.dynamic_rnn(wrapper.bind({}, key), x, None, state, F32)


def plain():
    return FunctionCell(identity, 50, 50)


def variational(keep):
    """Variational dropout of the output."""
    options = {"variational_recurrent": True, "dtype": F32}
    return DropoutWrapper(plain(), output_keep_prob=keep, **options)


def per_row(cell, *keep_probs):
    return DropoutWrapper(cell, *keep_probs, True, 50, F32, mask_per_row=True)


def assert_mean(values, mean):
    """The mean of independent truth values, within five standard deviations."""
    assert abs(values.mean() - mean) < 5 * (mean * (1 - mean) / values.size) ** 0.5


@pytest.mark.fast("shared-0-0.25", "per_row-0-0.25", "per_step-1-0.9")
@pytest.mark.parametrize("keep", [0.25, 0.9])
@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize("masks", ["per_step", "per_row", "shared"])
def test_rate_and_scale(masks, where, keep):
    """Of inputs and outputs; a mask serves all steps of a row, or all rows too."""
    probabilities = [keep, 1.0, 1.0] if where == 0 else [1.0, keep, 1.0]
    options = [] if masks == "per_step" else [True, 50, F32]
    cell = DropoutWrapper(
        plain(), *probabilities, *options, mask_per_row=masks == "per_row"
    )
    outputs = np.asarray(through(cell)[0])
    if masks == "shared":
        assert (outputs == outputs[:1, :1]).all()
        outputs = outputs[:1, :1]
    elif masks == "per_row":
        assert (outputs == outputs[:, :1]).all()
        outputs = outputs[:, :1]
    np.testing.assert_allclose(np.unique(outputs), [0, 1 / keep], rtol=1e-6)
    assert_mean(outputs > 0, keep)
    if masks != "shared":
        assert_mean(outputs[::2] == outputs[1::2], keep**2 + (1 - keep) ** 2)


def test_every_row_step_and_entry_is_drawn_afresh():
    kept = np.asarray(through(DropoutWrapper(plain(), 0.5))[0]) > 0
    for axis in range(3):
        first, second = kept.take(0, axis), kept.take(1, axis)
        assert 0.2 < (first == second).mean() < 0.8


def test_rates_of_input_state_and_output_are_independent():
    wrapper = DropoutWrapper(plain(), 0.5, 0.5, 0.5)
    state = jnp.ones((64, 50), F32)
    outputs, final = through(wrapper, X[:, :1], state=state)
    np.testing.assert_allclose(np.unique(outputs), [0, 4], rtol=1e-6)
    np.testing.assert_allclose(np.unique(final), [0, 2], rtol=1e-6)
    assert_mean((outputs[:, 0] > 0) & (final > 0), 0.125)


def test_the_output_is_taken_before_the_state_is_dropped():
    outputs, state = through(DropoutWrapper(plain(), state_keep_prob=0.0), X[:, :1])
    assert not state.any()
    np.testing.assert_array_equal(outputs, X[:, :1])


def test_zero_keeps_nothing_one_is_the_cell_and_so_is_no_key():
    assert not through(DropoutWrapper(plain(), 1.0, 0.0))[0].any()
    assert not through(variational(0.0))[0].any()
    np.testing.assert_array_equal(through(DropoutWrapper(plain(), 1.0))[0], X)
    without, _ = through(DropoutWrapper(plain(), 0.1, 0.1), key=None)
    np.testing.assert_array_equal(without, X)


def draws(params, inputs, state, key=None):
    """Outputs what it draws, to show which key it receives."""
    return jax.random.normal(key, inputs.shape, inputs.dtype), state


def test_a_cell_of_ones_own_draws_from_the_key_of_the_step():
    cell = FunctionCell(draws, 3, 3)
    outputs, _ = through(cell, X[:2, :, :3])
    for t in range(6):
        want = jax.random.normal(jax.random.fold_in(KEY, t), (2, 3), F32)
        np.testing.assert_array_equal(outputs[:, t], want)


@pytest.mark.parametrize("where", ["stack", "wrapper"])
def test_wrappers_draw_apart(where):
    """Equal masks would leave half of the entries, independent ones a quarter."""
    inner = DropoutWrapper(plain(), 0.5)
    if where == "stack":
        stack = MultiRNNCell([inner, DropoutWrapper(plain(), 0.5)])
        bound = stack.bind({"cell_0": {}, "cell_1": {}}, KEY)
    else:
        bound = DropoutWrapper(inner, 0.5).bind({}, KEY)
    outputs, _ = jaxrnn.dynamic_rnn(bound, X, dtype=F32)
    assert_mean(outputs > 0, 0.25)


def test_seeds_tell_wrappers_apart():
    one, other = (through(DropoutWrapper(plain(), 0.5, seed=s))[0] for s in (1, 2))
    again = through(DropoutWrapper(plain(), 0.5, seed=1))[0]
    np.testing.assert_array_equal(one, again)
    assert 0.4 < (one == other).mean() < 0.6


def test_a_state_mask_per_row_is_keras_recurrent_dropout():
    """h is masked where the next step reads it; padding changes nothing."""
    ones = jnp.ones((64, 50), F32)
    _, mask = through(per_row(plain(), 1.0, 1.0, 0.75), X[:, :1], state=ones)
    cell = per_row(jaxrnn.BasicRNNCell(50), 1.0, 1.0, 0.75)
    rng = np.random.default_rng(0)
    kernel = rng.normal(scale=0.2, size=(53, 50)).astype(np.float32)
    params = {"kernel": kernel, "bias": np.zeros(50, np.float32)}
    lengths, x = np.arange(64) % 7, rng.normal(size=(64, 6, 3)).astype(np.float32)
    past = np.arange(6) >= lengths[:, None]
    outputs, _ = jaxrnn.dynamic_rnn(
        cell.bind(params, KEY), np.where(past[..., None], np.nan, x), lengths, dtype=F32
    )
    h = np.zeros((64, 50), np.float32)
    for t in range(6):
        h = np.tanh(x[:, t] @ kernel[:3] + (h * mask) @ kernel[3:])
        want = np.where(past[:, t, None], 0, h)
        np.testing.assert_allclose(outputs[:, t], want, 1e-5, 1e-5)


def drawing(cell, derive):
    """A user's wrapper, which draws before the cell inside does."""

    def step(params, inputs, state, key=None):
        own, inner = derive(key)
        inputs = inputs + jax.random.uniform(own, inputs.shape, inputs.dtype)
        return cell.apply(params, inputs, state, inner)

    return FunctionCell(step, cell.state_size, cell.output_size)


def fold_twice(key):
    return jax.random.fold_in(key, 1), jax.random.fold_in(key, 2)


DRIVERS = {
    "dynamic": Setup.run,
    "segments": functools.partial(Setup.run, swap_memory=jaxrnn.memory.Recompute(2)),
    "static": _oracle.static,
    "raw": _oracle.raw,
}


@pytest.mark.fast("dynamic-split-key", "raw-split-key")
@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey])
@pytest.mark.parametrize("derive", [jax.random.split, fold_twice])
@pytest.mark.parametrize("driver", DRIVERS)
def test_variational_masks_hold_within_a_users_wrapper(driver, derive, make_key):
    cell = drawing(variational(0.5), derive)
    xs, state = jnp.asarray(X[:3, : _oracle.TIME]), jnp.zeros((3, 50), F32)
    setup = Setup(cell, {}, xs, jnp.full(3, _oracle.TIME), state, F32, make_key(3))
    run = lambda: DRIVERS[driver](setup, {}, xs, state, setup.lengths)[0]
    outputs = np.asarray(jax.jit(run)())
    kept = outputs != 0
    assert (kept == kept[:1, :1]).all()
    assert 0.2 < kept[0, 0].mean() < 0.8
    steps = outputs[0, :, kept[0, 0]]  # What it draws is never equal.
    assert len(np.unique(steps)) == steps.size


@pytest.mark.fast("threefry2x32")
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_of_steps_are_keys_of_jax(impl):
    key = jax.random.key(5, impl=impl)
    bound = FunctionCell(draws, 3, 3).bind({}, key)
    got, want = bound.at_step(jnp.int32(7)).key, jax.random.fold_in(key, 7)
    for draw in (
        lambda key: jax.random.bits(key, (5,), np.uint32),
        lambda key: jax.random.bits(key, (5,), np.uint8),
        lambda key: jax.random.normal(jax.random.split(key, 3)[1], (2, 2)),
        lambda key: jax.random.permutation(jax.random.fold_in(key, 9), 8),
    ):
        np.testing.assert_array_equal(draw(got), draw(want))


def test_a_mask_of_the_run_is_that_of_no_step():
    """A variational layer deep in a stack, and a plain one above it."""
    inner = MultiRNNCell([plain(), variational(0.5)])
    stack = MultiRNNCell([inner, DropoutWrapper(plain(), output_keep_prob=0.5)])
    params = stack.init(KEY, X[:, 0])
    run = lambda key: jaxrnn.dynamic_rnn(stack.bind(params, key), X[:1], dtype=F32)[0]
    kept = np.asarray(jax.vmap(run)(jax.random.split(KEY, 8)) > 0)
    rates = np.mean(kept, axis=(0, 1, 3))  # Of each step.
    np.testing.assert_allclose(rates, 0.25, atol=0.12)


def test_the_memory_of_an_lstm_is_never_dropped():
    state = LSTMStateTuple(jnp.ones((64, 50), F32), jnp.ones((64, 50), F32))
    cell = DropoutWrapper(
        FunctionCell(identity, LSTMCell(50).state_size, 50), state_keep_prob=0.5
    )
    _, final = through(cell, X[:, :1], state=state)
    assert (final.c == 1).all()
    np.testing.assert_allclose(np.unique(final.h), [0, 2])


NEST = {"a": (2, 3), "b": 4}


def dropped(visitor):
    """Which of the leaves a[0], a[1], b are dropped at a rate that drops all."""
    options = {"state_keep_prob": 0.0, "dropout_state_filter_visitor": visitor}
    cell = DropoutWrapper(FunctionCell(identity, NEST, 50), **options)
    state = jax.tree.map(lambda n: jnp.ones((64, n), F32), NEST)
    _, final = through(cell, X[:, :1], state=state)
    return [not leaf.any() for leaf in jax.tree.leaves(final)]


def at(kind, answer):
    """A visitor with an answer for the nests of a kind, and True for all others."""
    return lambda state: answer if isinstance(state, kind) else True


def is_wide(state):
    return isinstance(state, dict) or getattr(state, "shape", (0, 0))[1] == 4


FILTERS = {
    "all": (at(int, None), [True, True, True]),
    "none": (lambda state: False, [False, False, False]),
    "child_a": (at(dict, {"a": True, "b": False}), [True, True, False]),
    "child_b": (at(dict, {"a": False, "b": True}), [False, False, True]),
    "within_a": (at(tuple, (True, False)), [True, False, True]),
    "by_leaf": (is_wide, [False, False, True]),
    "asked_again": (
        lambda state: {"a": True, "b": True} if isinstance(state, dict) else False,
        [False, False, False],
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_the_filter_walks_the_state(name):
    visitor, want = FILTERS[name]
    assert dropped(visitor) == want


def test_wrong_answers_and_states():
    with pytest.raises(TypeError, match="a bool or a structure of bools, got 1"):
        dropped(lambda state: 1)
    for answer in ((True,), {"a": 1, "b": 0}):
        with pytest.raises(ValueError, match="one bool for each of 2 children"):
            dropped(lambda state, answer=answer: answer)
    count = FunctionCell(identity, TensorShape([]), 50)
    dropping = DropoutWrapper(count, state_keep_prob=0.5)
    with pytest.raises(TypeError, match="floating-point for dropout, got int32"):
        through(dropping, state=jnp.zeros(64, jnp.int32))
    message = r"`input_size` must match the inputs \(\[\(50,\)\]\), got"
    with pytest.raises(ValueError, match=message):
        through(DropoutWrapper(plain(), 0.5, 1, 1, True, 3, F32))


@pytest.mark.parametrize(
    ("salt", "index", "want"),
    [("input", 0, 272342091), ("state", 1, 1749902402), ("output", 0, 1222008005)],
)
def test_streams_are_numbered_as_tensorflows_seeds(salt, index, want):
    assert DropoutWrapper(plain(), seed=42)._stream(salt, index) == want


def test_a_tensor_array_in_the_state_is_never_dropped():
    def step(params, inputs, state, key=None):
        count, rows, ta = state
        return rows, (count, rows, ta.write(0, rows))

    size = TensorShape([])
    cell = FunctionCell(step, (size, 50, size), 50, lambda *_: {})
    ones = jnp.ones((4, 50))
    state = jnp.ones(4), ones, TensorArray(ones.dtype, 2, element_shape=ones.shape)
    dropping = DropoutWrapper(cell, state_keep_prob=0.5)
    _, (_, rows, ta) = dropping.apply({}, ones, state, jax.random.key(0))
    assert set(np.unique(rows)) == {0.0, 2.0}
    np.testing.assert_array_equal(ta.read(0), ones)
