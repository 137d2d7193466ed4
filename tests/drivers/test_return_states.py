"""The states of all steps, beyond the law `returns_all_states`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, differentiated

import jaxrnn
from jaxrnn.testing import make_setup
from jaxrnn.testing._oracle import StepByStep, unrolled_states

BATCH, TIME, DEPTH = 4, 6, 3
X = np.random.default_rng(0).normal(size=(BATCH, TIME, DEPTH))
LENGTHS = np.array([6, 0, 3, 1], np.int32)
ALIVE = (np.arange(TIME) < LENGTHS[:, None])[..., None]
CELL = jaxrnn.MultiRNNCell([jaxrnn.LSTMCell(4, num_proj=2), jaxrnn.MinGRUCell(3)])
SETUP = make_setup(CELL, X[:, 0], jnp.float64)


def close(got, want):
    chex.assert_trees_all_close(got, want, rtol=1e-9, atol=1e-9)


def test_time_major_in_little_memory():
    """Past the lengths, where rows keep their states, inputs are NaN."""
    swapped = lambda tree: jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)
    options = {"time_major": True, "swap_memory": True, "return_states": True}

    def run(params, x, state):
        x = swapped(jnp.where(ALIVE, x, jnp.nan))
        outputs, state, states = SETUP.run(params, x, state, LENGTHS, **options)
        return swapped(outputs), state, swapped(states)

    loop = lambda *args: unrolled_states(SETUP, *args, LENGTHS)
    args = SETUP.params, X, SETUP.state
    close(differentiated(run, *args), differentiated(loop, *args))


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("wrap", [lambda cell: cell, StepByStep], ids=["loop", "steps"])
def test_lists_of_steps(wrap, lengths):
    cell, steps = wrap(SETUP.bind()), list(np.swapaxes(X, 0, 1))
    options = {"sequence_length": lengths, "return_states": True}
    outputs, last, states = jaxrnn.static_rnn(cell, steps, SETUP.state, **options)
    assert isinstance(states, list)
    stacked = lambda steps: jax.tree.map(lambda *s: jnp.stack(s, 1), *steps)
    want = unrolled_states(SETUP, SETUP.params, X, SETUP.state, lengths)
    close((stacked(outputs), last, stacked(states)), want)


def test_packed_sequences():
    cell, packed = bound(jaxrnn.LSTMCell(4)), jaxrnn.pack_sequences(X, LENGTHS)
    options = {"dtype": jnp.float64, "return_states": True}
    outputs, last, states = jaxrnn.packed_rnn(cell, packed, **options)
    want = jaxrnn.dynamic_rnn(cell, X, LENGTHS, **options)
    only = lambda tree: jax.tree.map(lambda s: jnp.where(ALIVE, s, 0), tree)
    got = packed.unpack(outputs), last, only(packed.unpack(states))
    close(got, (*want[:2], only(want[2])))


def test_states_have_the_dtypes_of_the_state():
    cell, x = bound(jaxrnn.LSTMCell(4), dtype="bfloat16"), X.astype(jnp.bfloat16)
    _, _, states = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype, return_states=True)
    assert (states.c.dtype, states.c.shape) == (jnp.bfloat16, (BATCH, TIME, 4))
