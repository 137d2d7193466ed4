"""Steps that do not count: rows that have ended, and resets at masked steps."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn, normalized

import jaxrnn
from jaxrnn import BasicRNNCell, FunctionCell, GRUCell

F64 = jnp.float64


def test_a_cell_that_is_undefined_at_zero():
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    x[1, 2:] = 0
    cell = FunctionCell(normalized, 3, 3)

    def gradient(rows, lengths=None):
        run = lambda cell: jaxrnn.dynamic_rnn(cell, rows, lengths, dtype=F64)[0]
        return jax.grad(lambda w: run(cell.bind({"w": w})).sum())(jnp.eye(3))

    of_rows = lambda: gradient(x[:1]) + gradient(x[1:, :2])
    got, want = jax.jit(lambda: (gradient(x, [4, 2]), of_rows()))()
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_a_state_that_would_grow_beyond_bounds():
    cell = BasicRNNCell(1, activation="exponential")
    params = {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)}

    def gradient(time):
        x, options = np.ones((1, time, 1)), {"dtype": F64}
        run = lambda params: jaxrnn.dynamic_rnn(cell.bind(params), x, [2], **options)
        return jax.grad(lambda params: run(params)[0].sum())(params)

    few, many = jax.jit(lambda: (gradient(2), gradient(9)))()
    chex.assert_trees_all_equal(few, many)


X = np.random.default_rng(0).normal(size=(2, 4, 3))
GRU = GRUCell(3)
PARAMS = drawn(GRU, X[:, 0])


def run(params, x, lengths=(4, 2), state=None):
    return jaxrnn.dynamic_rnn(GRU.bind(params), x, lengths, state, dtype=F64)[0]


def test_a_row_of_length_zero_may_start_at_nan():
    loss = lambda params, state: run(params, X, [4, 0], state).sum()
    gradient = jax.jit(jax.grad(loss))
    good, bad = np.zeros((2, 2, 3))
    bad[1] = np.nan
    chex.assert_trees_all_equal(gradient(PARAMS, bad), gradient(PARAMS, good))


def test_cotangents_of_dead_outputs_are_dropped():
    pull_back = jax.jit(lambda weights: jax.vjp(run, PARAMS, X)[1](weights))
    weights = np.ones((2, 4, 3))
    bad = weights.copy()
    bad[1, 2:] = np.nan
    chex.assert_trees_all_equal(pull_back(bad), pull_back(weights))


def test_debug_nans_does_not_mind():
    x = X.copy()
    x[1, 2:] = np.nan
    loss = lambda params, x: run(params, x).sum()
    with jax.debug_nans(True):
        of_params, of_x = jax.jit(jax.grad(loss, (0, 1)))(PARAMS, x)
    chex.assert_tree_all_finite(of_params)
    assert not np.any(of_x[1, 2:])


def scheduled(params, inputs, state, key=None):
    """Singular at step 4, which a loop to the longest row never takes."""
    total, count = state
    total = total + params["w"] * inputs / (4 - count)
    return total, (total, count + 1)


def test_steps_after_the_longest_row_leave_no_trace():
    cell = FunctionCell(scheduled, (2, jaxrnn.TensorShape([])), 2)
    start = np.zeros((2, 2)), np.float64(0)

    def loss(w, time):
        x = np.ones((2, time, 2))
        return jaxrnn.dynamic_rnn(cell.bind({"w": w}), x, [4, 2], start, F64)[0].sum()

    got, want = jax.jit(lambda w: [jax.grad(loss)(w, time) for time in (6, 4)])(1.0)
    assert np.isfinite(want)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def mean_of_rows(params, inputs, state, key=None):
    """A leaf without axes that is computed from all rows."""
    total, mean = state
    return total + inputs, (total + inputs, mean + jnp.mean(inputs + total))


def test_a_leaf_made_of_all_rows_sees_padding_as_zeros():
    cell = FunctionCell(mean_of_rows, (1, jaxrnn.TensorShape([])), 1).bind({})
    x = np.array([[[1.0], [5.0], [7.0]], [[2.0], [3.0], [4.0]]])
    start = np.zeros((2, 1)), np.float64(0)
    mean = lambda x: jaxrnn.dynamic_rnn(cell, x, [1, 3], start, F64)[1][1]
    mean, gradient = jax.jit(mean), jax.jit(jax.grad(mean))
    # Steps: (1, 2); (0 + 1, 3 + 2); (0 + 1, 4 + 5): TensorFlow's for zeros as padding.
    np.testing.assert_allclose(mean(x), 1.5 + 3 + 5)
    units = np.eye(x.size).reshape(-1, *x.shape)
    want = [(mean(x + d) - mean(x - d)) / 2 for d in units]
    np.testing.assert_allclose(gradient(x).ravel(), want, atol=1e-9)


def count(params, inputs, state, key=None):
    return state + 1, state + 1


@pytest.mark.parametrize("rows_interact", [False, True])
def test_a_reset_at_a_masked_step_waits_for_a_valid_one(rows_interact):
    """Valid steps move to the front, unless rows interact and must stay in step."""
    cell = FunctionCell(count, 1, 1, rows_interact=rows_interact).bind({})
    mask = np.array([[1, 0, 1, 1, 0, 1]], bool)
    resets = np.array([[0, 1, 0, 0, 0, 1]], bool)
    given = {"initial_state": np.full((1, 1), 10.0), "mask": mask, "resets": resets}
    outputs, _ = jaxrnn.dynamic_rnn(cell, np.zeros((1, 6, 1)), **given)
    assert outputs[0, :, 0].tolist() == [11, 0, 1, 2, 0, 1]
