"""Cells of whole sequences: lists of steps, keys and values of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn

import jaxrnn
from jaxrnn import contrib

TIME, BATCH, DEPTH = 4, 3, 2
LENGTHS = np.array([4, 0, 2])
X = jax.random.normal(jax.random.key(1), (TIME, BATCH, DEPTH))
ALIVE = np.arange(TIME)[:, None, None] < LENGTHS[:, None]
PADDED = jnp.where(ALIVE, X, jnp.nan)
DYNAMIC = contrib.FusedRNNCellAdaptor(jaxrnn.GRUCell(3), use_dynamic_rnn=True)
STATIC = contrib.FusedRNNCellAdaptor(jaxrnn.GRUCell(3))
FUSED = {
    "block": contrib.LSTMBlockFusedCell(3),
    "dynamic": DYNAMIC,
    "static": STATIC,
    "reversed": contrib.TimeReversedFusedRNN(DYNAMIC),
    "static_reversed": contrib.TimeReversedFusedRNN(STATIC),
}


def assert_same(got, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-12), got, wanted)


@pytest.mark.fast("block", "static_reversed")
@pytest.mark.parametrize("cell", FUSED.values(), ids=FUSED)
def test_lists_of_steps_are_arrays_of_time(cell):
    bound = cell.bind(drawn(cell, list(X)))
    run = jax.jit(lambda bound, x: bound(x, None, X.dtype, LENGTHS))
    outputs, state = run(bound, PADDED)
    steps, state_of_list = run(bound, list(PADDED))
    assert isinstance(steps, list)
    assert_same((jnp.stack(steps), state_of_list), (outputs, state))
    assert not outputs[~np.broadcast_to(ALIVE, outputs.shape)].any()
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_a_pair_is_an_lstms_state(lengths):
    bound = FUSED["block"].bind(drawn(FUSED["block"], X))
    c, h = jax.random.normal(jax.random.key(3), (2, BATCH, 3))
    got = bound(X, (c, h), sequence_length=lengths)
    assert_same(got, bound(X, jaxrnn.LSTMStateTuple(c, h), sequence_length=lengths))


def test_the_key_reaches_the_cell():
    wrapped = jaxrnn.DropoutWrapper(jaxrnn.GRUCell(3), output_keep_prob=0.5)
    cell = contrib.FusedRNNCellAdaptor(wrapped, use_dynamic_rnn=True)
    params, key = drawn(cell, X), jax.random.key(2)
    outputs, _ = cell.bind(params, key)(X, dtype=X.dtype)
    bound = wrapped.bind(params, key)
    wanted, _ = jaxrnn.dynamic_rnn(bound, X, dtype=X.dtype, time_major=True)
    assert_same(outputs, wanted)
    assert (outputs == 0).any()


def test_cells_are_values():
    assert contrib.LSTMBlockFusedCell(3) == contrib.LSTMBlockFusedCell(3)
    assert contrib.LSTMBlockFusedCell(3, cell_clip=0).cell_clip is None
    assert contrib.LSTMBlockFusedCell(3, cell_clip=-1.0).cell_clip is None
    assert STATIC != DYNAMIC
    assert hash(STATIC) == hash(contrib.FusedRNNCellAdaptor(jaxrnn.GRUCell(3)))
