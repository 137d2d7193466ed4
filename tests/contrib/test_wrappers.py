"""Contrib's wrappers: initial values, names, ids, packs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, differentiated, drawn

import jaxrnn
from jaxrnn import DropoutWrapper, GRUCell, LSTMCell, MultiRNNCell, ResidualWrapper
from jaxrnn.contrib import (
    AttentionCellWrapper,
    EmbeddingWrapper,
    HighwayWrapper,
    InputProjectionWrapper,
    IntersectionRNNCell,
    OutputProjectionWrapper,
)

KEY = jax.random.key(0)
DEPTH, F64 = 3, jnp.float64
STEP = jax.ShapeDtypeStruct((4, DEPTH), jnp.float32)
IDS = jax.ShapeDtypeStruct((4, 1), jnp.int32)


def test_initial_values_are_those_of_contrib():
    params = HighwayWrapper(GRUCell(DEPTH), False, 2.5).init(KEY, STEP)
    np.testing.assert_array_equal(params["carry_b"], 2.5)
    np.testing.assert_array_equal(params["transform_b"], -2.5)
    table = EmbeddingWrapper(GRUCell(2), 40, 50).init(KEY, IDS)["embedding"]
    assert abs(table.var() - 1) < 0.05
    assert abs(table).max() <= 3**0.5


SCOPES = {
    "mine": GRUCell(DEPTH, name="mine"),
    "gru_cell": DropoutWrapper(ResidualWrapper(GRUCell(DEPTH)), 0.5),
    "multi_rnn_cell": MultiRNNCell([GRUCell(DEPTH)]),
    "input_projection_wrapper": InputProjectionWrapper(GRUCell(DEPTH), 5),
}


@pytest.mark.parametrize("scope", SCOPES)
def test_the_wrapped_cells_parameters_are_under_its_scope(scope):
    params = HighwayWrapper(SCOPES[scope]).init(KEY, STEP)
    assert params.keys() == {"carry_w", "carry_b", scope}


def test_ids_may_lack_their_axis_and_those_that_are_unknown_are_nan():
    cell = EmbeddingWrapper(GRUCell(2), 5, 3)
    bound = cell.bind(drawn(cell, IDS))
    ids, state = jnp.asarray([0, -1, 5, 2**32, -(2**32)]), jnp.zeros((5, 2), "float32")
    flat, apart = bound(ids, state)[0], bound(ids[:, None], state)[0]
    np.testing.assert_array_equal(flat, apart)
    np.testing.assert_array_equal(jnp.isnan(flat).any(axis=1), [False] + [True] * 4)


def test_the_type_of_ids_may_be_smaller_than_their_number():
    cell = EmbeddingWrapper(GRUCell(2), 300, 3)
    bound = cell.bind(drawn(cell, IDS))
    output, _ = bound(jnp.asarray([0, 255], jnp.uint8), cell.zero_state(2, jnp.float32))
    assert jnp.isfinite(output).all()


def test_ids_of_padding_do_not_matter():
    cell = EmbeddingWrapper(LSTMCell(2), 5, 3)
    params = drawn(cell, IDS, F64)
    ids = jnp.asarray([[[1], [2], [3]], [[4], [-1], [9]]])

    def run(params, ids=ids):
        lengths = jnp.asarray([3, 1])
        return jaxrnn.dynamic_rnn(cell.bind(params), ids, lengths, dtype=F64)

    cleaned = ids.at[1, 1:].set(0)
    want = differentiated(lambda params: run(params, cleaned), params)
    assert_near(differentiated(run, params), want, tolerance=1e-12)


PACKED = {
    "highway": HighwayWrapper(LSTMCell(DEPTH), False),
    "input": InputProjectionWrapper(GRUCell(4), 2, "tanh"),
    "output": OutputProjectionWrapper(GRUCell(4), 2),
    "intersection": IntersectionRNNCell(4, 4),
}


@pytest.mark.fast("highway")
@pytest.mark.parametrize("name", PACKED)
def test_packs_give_what_padded_rows_give(name):
    cell, lengths = PACKED[name], np.asarray([3, 0, 6, 1, 2])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6, DEPTH)))
    params = drawn(cell, x[:, 0], F64)
    packed = jaxrnn.pack_sequences(x, lengths)
    zeros = cell.zero_state(5, F64)

    def of_packs(params, state):
        outputs, last = jaxrnn.packed_rnn(cell.bind(params), packed, state)
        return packed.unpack(outputs), last

    def of_rows(params, state):
        return jaxrnn.dynamic_rnn(cell.bind(params), x, lengths, state)

    got, want = (differentiated(run, params, zeros) for run in (of_packs, of_rows))
    assert_near(got, want, tolerance=1e-12)


def test_declines_where_the_wrapped_cell_does():
    cell = InputProjectionWrapper(AttentionCellWrapper(GRUCell(2), 2), 4)
    x = jnp.ones((2, 3, DEPTH))
    bound = cell.bind(drawn(cell, x[:, 0]))
    with pytest.raises(ValueError, match="AttentionCellWrapper has no `apply_seq"):
        jaxrnn.dynamic_rnn(bound, x, dtype=x.dtype, implementation="cudnn")
    outputs, _ = jaxrnn.dynamic_rnn(bound, x, dtype=x.dtype)
    assert outputs.shape == (2, 3, 2)
