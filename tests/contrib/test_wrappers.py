"""Contrib's wrappers: initial values, names and ids; cells of whole sequences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, differentiated, drawn

import jaxrnn
from jaxrnn import DropoutWrapper, GRUCell, LSTMCell, contrib

KEY = jax.random.key(0)
DEPTH, F64 = 3, jnp.float64
STEP = jax.ShapeDtypeStruct((4, DEPTH), jnp.float32)
IDS = jax.ShapeDtypeStruct((4, 1), jnp.int32)


def test_initial_values_are_those_of_contrib():
    params = contrib.HighwayWrapper(GRUCell(DEPTH), False, 2.5).init(KEY, STEP)
    np.testing.assert_array_equal(params["carry_b"], 2.5)
    np.testing.assert_array_equal(params["transform_b"], -2.5)
    table = contrib.EmbeddingWrapper(GRUCell(2), 40, 50).init(KEY, IDS)["embedding"]
    assert abs(table.var() - 1) < 0.05
    assert abs(table).max() <= 3**0.5


SCOPES = {
    "mine": GRUCell(DEPTH, name="mine"),
    "gru_cell": DropoutWrapper(jaxrnn.ResidualWrapper(GRUCell(DEPTH)), 0.5),
    "multi_rnn_cell": jaxrnn.MultiRNNCell([GRUCell(DEPTH)]),
    "input_projection_wrapper": contrib.InputProjectionWrapper(GRUCell(DEPTH), 5),
}


@pytest.mark.parametrize("scope", SCOPES)
def test_the_wrapped_cells_parameters_are_under_its_scope(scope):
    params = contrib.HighwayWrapper(SCOPES[scope]).init(KEY, STEP)
    assert params.keys() == {"carry_w", "carry_b", scope}


def test_ids_may_lack_their_axis_and_those_that_are_unknown_are_nan():
    cell = contrib.EmbeddingWrapper(GRUCell(2), 5, 3)
    bound = cell.bind(drawn(cell, IDS))
    ids, state = jnp.asarray([0, -1, 5, 2**32, -(2**32)]), jnp.zeros((5, 2), "float32")
    flat, apart = bound(ids, state)[0], bound(ids[:, None], state)[0]
    np.testing.assert_array_equal(flat, apart)
    np.testing.assert_array_equal(jnp.isnan(flat).any(axis=1), [False] + [True] * 4)


def test_the_type_of_ids_may_be_smaller_than_their_number():
    cell = contrib.EmbeddingWrapper(GRUCell(2), 300, 3)
    bound = cell.bind(drawn(cell, IDS))
    output, _ = bound(jnp.asarray([0, 255], jnp.uint8), cell.zero_state(2, jnp.float32))
    assert jnp.isfinite(output).all()


def test_ids_of_padding_do_not_matter():
    cell = contrib.EmbeddingWrapper(LSTMCell(2), 5, 3)
    params = drawn(cell, IDS, F64)
    ids = jnp.asarray([[[1], [2], [3]], [[4], [-1], [9]]])

    def run(params, ids=ids):
        lengths = jnp.asarray([3, 1])
        return jaxrnn.dynamic_rnn(cell.bind(params), ids, lengths, dtype=F64)

    cleaned = ids.at[1, 1:].set(0)
    want = differentiated(lambda params: run(params, cleaned), params)
    assert_near(differentiated(run, params), want, tolerance=1e-12)


def test_declines_where_the_wrapped_cell_does():
    inner = contrib.AttentionCellWrapper(GRUCell(2), 2)
    cell = contrib.InputProjectionWrapper(inner, 4)
    x = jnp.ones((2, 3, DEPTH))
    bound = cell.bind(drawn(cell, x[:, 0]))
    with pytest.raises(ValueError, match="AttentionCellWrapper has no `apply_seq"):
        jaxrnn.dynamic_rnn(bound, x, dtype=x.dtype, implementation="cudnn")
    outputs, _ = jaxrnn.dynamic_rnn(bound, x, dtype=x.dtype)
    assert outputs.shape == (2, 3, 2)


# Cells of whole sequences: lists of steps, keys and values of their own.

TIME, BATCH = 4, 3
LENGTHS = np.array([4, 0, 2])
X = jax.random.normal(jax.random.key(1), (TIME, BATCH, DEPTH))
ALIVE = np.arange(TIME)[:, None, None] < LENGTHS[:, None]
PADDED = jnp.where(ALIVE, X, jnp.nan)
DYNAMIC = contrib.FusedRNNCellAdaptor(GRUCell(3), use_dynamic_rnn=True)
STATIC = contrib.FusedRNNCellAdaptor(GRUCell(3))
FUSED = {
    "block": contrib.LSTMBlockFusedCell(3),
    "dynamic": DYNAMIC,
    "static": STATIC,
    "reversed": contrib.TimeReversedFusedRNN(DYNAMIC),
    "static_reversed": contrib.TimeReversedFusedRNN(STATIC),
}


@pytest.mark.fast("block", "static_reversed")
@pytest.mark.parametrize("cell", FUSED.values(), ids=FUSED)
def test_lists_of_steps_are_arrays_of_time(cell):
    bound = cell.bind(drawn(cell, list(X)))
    run = jax.jit(lambda bound, x: bound(x, None, X.dtype, LENGTHS))
    outputs, state = run(bound, PADDED)
    steps, state_of_list = run(bound, list(PADDED))
    assert isinstance(steps, list)
    assert_near((jnp.stack(steps), state_of_list), (outputs, state), tolerance=1e-12)
    assert not outputs[~np.broadcast_to(ALIVE, outputs.shape)].any()
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_a_pair_is_an_lstms_state(lengths):
    bound = FUSED["block"].bind(drawn(FUSED["block"], X))
    c, h = jax.random.normal(jax.random.key(3), (2, BATCH, 3))
    with pytest.warns(UserWarning, match="plain pair, which is read as `.c, h.`"):
        got = bound(X, (c, h), sequence_length=lengths)
    want = bound(X, jaxrnn.LSTMStateTuple(c, h), sequence_length=lengths)
    assert_near(got, want, tolerance=1e-12)


def test_the_key_reaches_the_cell():
    wrapped = DropoutWrapper(GRUCell(3), output_keep_prob=0.5)
    cell = contrib.FusedRNNCellAdaptor(wrapped, use_dynamic_rnn=True)
    params, key = drawn(cell, X), jax.random.key(2)
    outputs, _ = cell.bind(params, key)(X, dtype=X.dtype)
    bound = wrapped.bind(params, key)
    wanted, _ = jaxrnn.dynamic_rnn(bound, X, dtype=X.dtype, time_major=True)
    assert_near(outputs, wanted, tolerance=1e-12)
    assert (outputs == 0).any()


def test_cells_are_values():
    assert contrib.LSTMBlockFusedCell(3) == contrib.LSTMBlockFusedCell(3)
    assert contrib.LSTMBlockFusedCell(3, cell_clip=0).cell_clip is None
    assert contrib.LSTMBlockFusedCell(3, cell_clip=-1.0).cell_clip is None
    assert STATIC != DYNAMIC
    assert hash(STATIC) == hash(contrib.FusedRNNCellAdaptor(GRUCell(3)))
