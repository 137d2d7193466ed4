"""Dropout: what is dropped, how often, and from which keys."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import (
    DropoutWrapper,
    FunctionCell,
    GRUCell,
    LSTMCell,
    LSTMStateTuple,
    MultiRNNCell,
    TensorArray,
    TensorShape,
)

KEY = jax.random.key(7)
F32 = jnp.float32
X = np.ones((64, 6, 50), np.float32)


def identity(params, inputs, state, key=None):
    """Outputs its inputs and keeps its state."""
    return inputs, state


def through(wrapper, x=X, key=KEY, **kwargs):
    state = kwargs.pop("state", None)
    return jaxrnn.dynamic_rnn(wrapper.bind({}, key), x, None, state, F32, **kwargs)


def plain(size=50):
    return FunctionCell(identity, size, size)


@pytest.mark.fast("input_keep_prob-0.25", "output_keep_prob-0.9")
@pytest.mark.parametrize("keep", [0.25, 0.9])
@pytest.mark.parametrize("where", ["input_keep_prob", "output_keep_prob"])
def test_rate_and_scale(keep, where):
    outputs, _ = through(DropoutWrapper(plain(), **{where: keep}))
    np.testing.assert_allclose(np.unique(outputs), [0, 1 / keep], rtol=1e-6)
    n = outputs.size
    assert abs((outputs > 0).mean() - keep) < 5 * (keep * (1 - keep) / n) ** 0.5


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
    both = (outputs[:, 0] > 0) & (final > 0)
    assert abs(both.mean() - 0.125) < 0.03


def test_the_output_is_taken_before_the_state_is_dropped():
    outputs, state = through(DropoutWrapper(plain(), state_keep_prob=0.0), X[:, :1])
    assert not state.any()
    np.testing.assert_array_equal(outputs, X[:, :1])


def test_zero_keeps_nothing_and_one_is_the_cell():
    outputs, _ = through(DropoutWrapper(plain(), 1.0, 0.0))
    assert not outputs.any()
    cell = DropoutWrapper(
        plain(), variational_recurrent=True, dtype=F32, output_keep_prob=0
    )
    assert not through(cell)[0].any()
    np.testing.assert_array_equal(through(DropoutWrapper(plain(), 1.0))[0], X)


def test_without_a_key_nothing_is_dropped():
    np.testing.assert_array_equal(
        through(DropoutWrapper(plain(), 0.1, 0.1), key=None)[0], X
    )


def test_step_t_draws_from_the_key_folded_with_t():
    cell = DropoutWrapper(GRUCell(4), 0.5, 0.5, 0.5)
    x = X[:3, :, :5]
    params = cell.init(KEY, x[:, 0])
    outputs, final = jaxrnn.dynamic_rnn(cell.bind(params, KEY), x, dtype=F32)
    state = cell.zero_state(3, F32)
    for t in range(6):
        key = jax.random.fold_in(KEY, t)
        output, state = cell.apply(params, x[:, t], state, key=key)
        np.testing.assert_allclose(outputs[:, t], output, 1e-5, 1e-6)
    np.testing.assert_allclose(final, state, 1e-5, 1e-6)


def draws(params, inputs, state, key=None):
    """Outputs what it draws, to show which key it receives."""
    return jax.random.normal(key, inputs.shape, inputs.dtype), state


def test_a_cell_of_ones_own_draws_from_the_key_of_the_step():
    cell = FunctionCell(draws, 3, 3)
    outputs, _ = through(cell, X[:2, :, :3])
    for t in range(6):
        want = jax.random.normal(jax.random.fold_in(KEY, t), (2, 3), F32)
        np.testing.assert_array_equal(outputs[:, t], want)


def test_cells_of_a_stack_draw_apart():
    stack = MultiRNNCell([DropoutWrapper(plain(), 0.5), DropoutWrapper(plain(), 0.5)])
    outputs, _ = through_stack(stack)
    # Equal masks would leave half of the entries, independent ones a quarter.
    assert abs((outputs > 0).mean() - 0.25) < 0.02


def through_stack(stack):
    params = {"cell_0": {}, "cell_1": {}}
    return jaxrnn.dynamic_rnn(stack.bind(params, KEY), X, dtype=F32)


def test_a_wrapper_in_a_wrapper_draws_apart():
    outputs, _ = through(DropoutWrapper(DropoutWrapper(plain(), 0.5), 0.5))
    assert abs((outputs > 0).mean() - 0.25) < 0.02


def test_seeds_tell_wrappers_apart():
    one, other = (through(DropoutWrapper(plain(), 0.5, seed=s))[0] for s in (1, 2))
    again = through(DropoutWrapper(plain(), 0.5, seed=1))[0]
    np.testing.assert_array_equal(one, again)
    assert 0.4 < (one == other).mean() < 0.6


def test_variational_masks_serve_all_rows_and_steps():
    cell = DropoutWrapper(
        plain(),
        input_keep_prob=0.5,
        variational_recurrent=True,
        input_size=50,
        dtype=F32,
    )
    outputs = np.asarray(through(cell)[0])
    assert (outputs == outputs[:1, :1]).all()
    assert 0.2 < (outputs[0, 0] > 0).mean() < 0.8
    other = np.asarray(through(cell, key=jax.random.key(8))[0])
    assert (other[0, 0] != outputs[0, 0]).any()


def per_row(cell, *keep_probs):
    return DropoutWrapper(cell, *keep_probs, True, 50, F32, mask_per_row=True)


@pytest.mark.parametrize("keep", [0.25, 0.9])
@pytest.mark.parametrize("where", [0, 1])
def test_masks_per_row_serve_all_steps(where, keep):
    probabilities = [keep, 1.0, 1.0] if where == 0 else [1.0, keep, 1.0]
    outputs = np.asarray(through(per_row(plain(), *probabilities))[0])
    assert (outputs == outputs[:, :1]).all()
    mask = outputs[:, 0]
    np.testing.assert_allclose(np.unique(mask), [0, 1 / keep], rtol=1e-6)
    assert abs((mask > 0).mean() - keep) < 5 * (keep * (1 - keep) / mask.size) ** 0.5
    agree = keep**2 + (1 - keep) ** 2  # Of independent masks.
    pairs = mask[::2] == mask[1::2]
    assert abs(pairs.mean() - agree) < 5 * (agree * (1 - agree) / pairs.size) ** 0.5


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


def test_variational_masks_hold_within_a_stack():
    variational = DropoutWrapper(
        plain(), output_keep_prob=0.5, variational_recurrent=True, dtype=F32
    )
    stack = MultiRNNCell([FunctionCell(draws_twice, 50, 50), variational])
    outputs = np.asarray(through_stack(stack)[0])
    kept = outputs != 0
    assert (kept == kept[:1, :1]).all()


def draws_twice(params, inputs, state, key=None):
    return jax.random.uniform(key, inputs.shape, inputs.dtype) + 1, state


@dataclasses.dataclass(frozen=True, eq=False)
class Drawing(jaxrnn.RNNCell):
    """A user's wrapper, which draws before the cell inside does."""

    cell: jaxrnn.RNNCell
    derive: Callable[[jax.Array], Any] = jax.random.split

    state_size = property(lambda self: self.cell.state_size)
    output_size = property(lambda self: self.cell.output_size)

    def init(self, key, inputs, dtype=None):
        return self.cell.init(key, inputs, dtype)

    def apply(self, params, inputs, state, key=None):
        own, inner = self.derive(key)
        inputs = inputs + jax.random.uniform(own, inputs.shape, inputs.dtype)
        return self.cell.apply(params, inputs, state, inner)


def fold_twice(key):
    return jax.random.fold_in(key, 1), jax.random.fold_in(key, 2)


def by_raw_rnn(cell, x):
    def feed(time, output, state, loop_state):
        state = cell.zero_state(len(x), x.dtype) if output is None else state
        inputs = x[:, jnp.minimum(time, x.shape[1] - 1)]
        return time >= jnp.full(len(x), x.shape[1]), inputs, state, output, None

    return jnp.swapaxes(
        jaxrnn.raw_rnn(cell, feed, max_time=x.shape[1])[0].stack(), 0, 1
    )


DRIVERS = {
    "dynamic": lambda cell, x: jaxrnn.dynamic_rnn(cell, x, dtype=F32)[0],
    "segments": lambda cell, x: jaxrnn.dynamic_rnn(
        cell, x, dtype=F32, swap_memory=jaxrnn.memory.Recompute(4)
    )[0],
    "static": lambda cell, x: jnp.stack(
        jaxrnn.static_rnn(cell, list(jnp.unstack(x, axis=1)), dtype=F32)[0], 1
    ),
    "raw": by_raw_rnn,
    "vmap": lambda cell, x: jax.vmap(
        lambda x: jaxrnn.dynamic_rnn(cell, x[None], dtype=F32)[0][0]
    )(x),
}


@pytest.mark.fast("dynamic-split-key", "raw-split-key")
@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey])
@pytest.mark.parametrize("derive", [jax.random.split, fold_twice])
@pytest.mark.parametrize("driver", DRIVERS)
def test_variational_masks_hold_within_a_users_wrapper(driver, derive, make_key):
    variational = DropoutWrapper(
        plain(), output_keep_prob=0.5, variational_recurrent=True, dtype=F32
    )
    cell = Drawing(variational, derive).bind({}, make_key(3))
    outputs = np.asarray(jax.jit(DRIVERS[driver])(cell, X[:3]))
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
    variational = DropoutWrapper(
        plain(), output_keep_prob=0.5, variational_recurrent=True, dtype=F32
    )
    inner = MultiRNNCell([plain(), variational])
    stack = MultiRNNCell([inner, DropoutWrapper(plain(), output_keep_prob=0.5)])
    params = stack.init(KEY, X[:, 0])
    outputs, _ = jaxrnn.dynamic_rnn(stack.bind(params, KEY), X[:1], dtype=F32)
    kept = [
        np.asarray(jaxrnn.dynamic_rnn(stack.bind(params, k), X[:1], dtype=F32)[0] > 0)
        for k in jax.random.split(KEY, 8)
    ]
    assert outputs.shape == (1, 6, 50)
    rate = np.mean(kept, axis=(0, 1, 3))
    np.testing.assert_allclose(rate, 0.25, atol=0.12)


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
    cell = DropoutWrapper(
        FunctionCell(identity, NEST, 50),
        state_keep_prob=0.0,
        dropout_state_filter_visitor=visitor,
    )
    state = jax.tree.map(lambda n: jnp.ones((64, n), F32), NEST)
    _, final = through(cell, X[:, :1], state=state)
    return [not leaf.any() for leaf in jax.tree.leaves(final)]


@pytest.mark.parametrize(
    ("visitor", "want"),
    [
        (lambda s: True, [True, True, True]),
        (lambda s: False, [False, False, False]),
        (
            lambda s: {"a": True, "b": False} if isinstance(s, dict) else True,
            [True, True, False],
        ),
        (
            lambda s: {"a": False, "b": True} if isinstance(s, dict) else True,
            [False, False, True],
        ),
        (
            lambda s: (True, False) if isinstance(s, tuple) else True,
            [True, False, True],
        ),
        (
            lambda s: isinstance(s, dict) or getattr(s, "shape", (0, 0))[1] == 4,
            [False, False, True],
        ),
        (
            lambda s: {"a": True, "b": True} if isinstance(s, dict) else False,
            [False, False, False],
        ),
    ],
    ids=["all", "none", "child_a", "child_b", "within_a", "by_leaf", "asked_again"],
)
def test_the_filter_walks_the_state(visitor, want):
    assert dropped(visitor) == want


@pytest.mark.parametrize(
    ("visitor", "error", "words"),
    [
        (lambda s: 1, TypeError, "must return a bool or a structure of bools, got 1"),
        (lambda s: (True,), ValueError, "one bool for each of 2 children"),
        (lambda s: {"a": 1, "b": 0}, ValueError, "one bool for each"),
    ],
)
def test_a_filter_that_answers_nonsense(visitor, error, words):
    with pytest.raises(error, match=words):
        dropped(visitor)


def test_integers_cannot_be_dropped():
    cell = DropoutWrapper(
        FunctionCell(identity, TensorShape([]), 50), state_keep_prob=0.5
    )
    with pytest.raises(
        TypeError, match=r"`state` must be floating-point for dropout, got int32"
    ):
        through(cell, state=jnp.zeros(64, jnp.int32))


def test_inputs_must_have_the_declared_size():
    cell = DropoutWrapper(
        plain(), 0.5, variational_recurrent=True, input_size=3, dtype=F32
    )
    with pytest.raises(
        ValueError, match=r"`input_size` must match the inputs \(\[\(50,\)\]\), got"
    ):
        through(cell)


@pytest.mark.parametrize(
    ("salt", "index", "want"),
    [("input", 0, 272342091), ("state", 1, 1749902402), ("output", 0, 1222008005)],
)
def test_streams_are_numbered_as_tensorflows_seeds(salt, index, want):
    assert DropoutWrapper(plain(), seed=42)._stream(salt, index) == want


def test_the_mean_is_kept():
    outputs, _ = through(DropoutWrapper(plain(), 0.3))
    assert abs(outputs.mean() - 1) < 0.05


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
