"""Contrib's wrappers: initial values, names, ids, packs, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, differentiated

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


@pytest.mark.parametrize(
    ("cell", "scope"),
    [
        (GRUCell(DEPTH, name="mine"), "mine"),
        (DropoutWrapper(ResidualWrapper(GRUCell(DEPTH)), 0.5), "gru_cell"),
        (MultiRNNCell([GRUCell(DEPTH)]), "multi_rnn_cell"),
        (InputProjectionWrapper(GRUCell(DEPTH), 5), "input_projection_wrapper"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_wrapped_cells_parameters_are_under_its_scope(cell, scope):
    assert HighwayWrapper(cell).init(KEY, STEP).keys() == {"carry_w", "carry_b", scope}


def test_ids_may_lack_their_axis_and_those_that_are_unknown_are_nan():
    cell = EmbeddingWrapper(GRUCell(2), 5, 3)
    bound = cell.bind(cell.init(KEY, IDS))
    state = cell.zero_state(3, jnp.float32)
    for wrong in (5, 2**32, -(2**32)):
        ids = jnp.asarray([0, -1, wrong])
        flat, apart = (bound(ids.reshape(shape), state)[0] for shape in ((3,), (3, 1)))
        np.testing.assert_array_equal(flat, apart)
        np.testing.assert_array_equal(jnp.isnan(flat).any(axis=1), [False, True, True])


def test_the_type_of_ids_may_be_smaller_than_their_number():
    cell = EmbeddingWrapper(GRUCell(2), 300, 3)
    bound = cell.bind(cell.init(KEY, IDS))
    output, _ = bound(jnp.asarray([0, 255], jnp.uint8), cell.zero_state(2, jnp.float32))
    assert jnp.isfinite(output).all()


def test_ids_of_padding_do_not_matter():
    cell = EmbeddingWrapper(LSTMCell(2), 5, 3)
    params = cell.init(KEY, IDS, F64)
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
    "attention": AttentionCellWrapper(GRUCell(4), 2),
    "embedding": EmbeddingWrapper(GRUCell(4), 5, 3),
}


@pytest.mark.fast("highway")
@pytest.mark.parametrize("name", PACKED)
def test_packs_give_what_padded_rows_give(name):
    cell, lengths = PACKED[name], np.asarray([3, 0, 6, 1, 2])
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(5, 6, DEPTH)))
    if name == "embedding":
        x = jnp.asarray(rng.integers(0, 5, (5, 6, 1)))
    params = cell.init(KEY, x[:, 0], F64)
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
    bound = cell.bind(cell.init(KEY, x[:, 0]))
    with pytest.raises(ValueError, match="AttentionCellWrapper has no `apply_seq"):
        jaxrnn.dynamic_rnn(bound, x, dtype=x.dtype, implementation="cudnn")
    outputs, _ = jaxrnn.dynamic_rnn(bound, x, dtype=x.dtype)
    assert outputs.shape == (2, 3, 2)


def step(cell, params=None, inputs=None, state=None):
    inputs = np.ones((4, DEPTH), "float32") if inputs is None else inputs
    params = cell.init(KEY, STEP) if params is None else params
    state = cell.zero_state(4, "float32") if state is None else state
    return cell.apply(params, inputs, state)


NESTED = jaxrnn.FunctionCell(lambda *args, key=None: None, (2, 3), (2, 3))
REFUSALS = {
    "no_cell": (TypeError, "`cell` must be an RNNCell", lambda: HighwayWrapper(3)),
    "carry_bias": (
        TypeError,
        "`carry_bias_init` must be a number",
        lambda: HighwayWrapper(GRUCell(3), True, "1"),
    ),
    "coupled": (
        TypeError,
        "`couple_carry_transform_gates` must be True or False",
        lambda: HighwayWrapper(GRUCell(3), 1),
    ),
    "highway_output": (
        ValueError,
        r"`inputs` must be \[batch, 2\] like the cell's output, got",
        lambda: step(HighwayWrapper(GRUCell(2))),
    ),
    "no_dict": (
        TypeError,
        "HighwayWrapper: `params` must be a dict of arrays, got 3",
        lambda: step(HighwayWrapper(GRUCell(3)), params=3),
    ),
    "no_inner": (
        ValueError,
        "must hold `gru_cell`, the parameters of the wrapped cell, got carry_w",
        lambda: step(HighwayWrapper(GRUCell(3)), params={"carry_w": 1}),
    ),
    "no_own": (
        ValueError,
        "`params` must hold .*; missing: .*carry_b",
        lambda: step(
            HighwayWrapper(GRUCell(3)), params={"gru_cell": {}, "carry_w": np.ones(3)}
        ),
    ),
    "num_proj": (
        ValueError,
        "`num_proj` must be at least 1, got 0",
        lambda: InputProjectionWrapper(GRUCell(3), 0),
    ),
    "output_size": (
        ValueError,
        "`output_size` must be at least 1, got 0",
        lambda: OutputProjectionWrapper(GRUCell(3), 0),
    ),
    "output_of_nests": (
        ValueError,
        r"`cell` must output one vector, got \(2, 3\)",
        lambda: OutputProjectionWrapper(NESTED, 2),
    ),
    "classes": (
        ValueError,
        "`embedding_classes` must be at least 1",
        lambda: EmbeddingWrapper(GRUCell(3), 0, 2),
    ),
    "initializer": (
        TypeError,
        "`initializer` must be a function",
        lambda: EmbeddingWrapper(GRUCell(3), 2, 2, 1.0),
    ),
    "floating_ids": (
        TypeError,
        r"`inputs` must be an array of integers, got float32\[4, 3\]",
        lambda: EmbeddingWrapper(GRUCell(3), 2, 2).init(KEY, STEP),
    ),
    "several_ids": (
        ValueError,
        r"must be \[batch, 1\] or \[batch\], got int64\[4, 2\]",
        lambda: EmbeddingWrapper(GRUCell(3), 2, 2).init(KEY, np.ones((4, 2), int)),
    ),
    "no_embedding": (
        ValueError,
        "`params` must hold .*; missing: .*embedding",
        lambda: step(
            EmbeddingWrapper(GRUCell(3), 2, 2), {"gru_cell": {}}, np.ones(4, int)
        ),
    ),
    "length": (
        ValueError,
        "`attn_length` must be at least 1",
        lambda: AttentionCellWrapper(GRUCell(3), 0),
    ),
    "joined": (
        ValueError,
        "`cell.state_size` must be one vector if `state_is_tuple` is False",
        lambda: AttentionCellWrapper(LSTMCell(3), 2, state_is_tuple=False),
    ),
    "parts": (
        ValueError,
        r"`state` must be \(cell state, context, memory\), got tuple",
        lambda: step(AttentionCellWrapper(GRUCell(3), 2), state=(1, 2)),
    ),
    "memory": (
        ValueError,
        r"`state\[1\]` must have shape \(4, 6\)",
        lambda: step(
            AttentionCellWrapper(GRUCell(3), 2),
            state=tuple(np.ones((4, 3), "float32") for _ in range(3)),
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses(name):
    kind, message, call = REFUSALS[name]
    with pytest.raises(kind, match=message):
        call()
