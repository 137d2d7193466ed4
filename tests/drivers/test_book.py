"""The textbook's example: four instances with at most two steps."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import jaxrnn

X_BATCH = np.array(
    [
        [[0, 1, 2], [9, 8, 7]],
        [[3, 4, 5], [0, 0, 0]],  # The second step is padding.
        [[6, 7, 8], [6, 5, 4]],
        [[9, 0, 1], [3, 2, 1]],
    ],
    np.float32,
)
SEQ_LENGTH_BATCH = np.array([2, 1, 2, 2])
CELL = jaxrnn.BasicRNNCell(num_units=5)
PARAMS = jax.tree.map(np.asarray, CELL.init(jax.random.key(42), X_BATCH[:, 0]))


def run(x, params=PARAMS):
    return jaxrnn.dynamic_rnn(
        CELL.bind(params), x, dtype=jnp.float32, sequence_length=SEQ_LENGTH_BATCH
    )


def test_outputs_and_states():
    outputs, states = run(X_BATCH)
    want, want_states = reference.dynamic_rnn(
        reference.basic_rnn, PARAMS, X_BATCH, SEQ_LENGTH_BATCH, np.zeros((4, 5))
    )
    np.testing.assert_allclose(outputs, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(states, want_states, rtol=1e-5, atol=1e-6)


def test_the_short_instance_ends_after_its_first_step():
    outputs, states = run(X_BATCH)
    np.testing.assert_array_equal(outputs[1, 1], np.zeros(5))
    np.testing.assert_allclose(states[1], outputs[1, 0], rtol=1e-6)
    np.testing.assert_allclose(states[0], outputs[0, 1], rtol=1e-6)


@pytest.mark.parametrize("padding", [7.0, np.nan, np.inf])
def test_the_vector_that_pads_does_not_matter(padding):
    x = X_BATCH.copy()
    x[1, 1] = padding
    loss = lambda params, x: run(x, params)[0].sum()
    want, got = (jax.grad(loss, (0, 1))(PARAMS, x) for x in (X_BATCH, x))
    chex.assert_trees_all_equal(got, want)
