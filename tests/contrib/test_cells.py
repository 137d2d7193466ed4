"""What the laws and the goldens do not tell of contrib's cells and wrappers."""
# ruff: noqa: E501 (One refusal a row.)

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, draw, drawn, refusals

import jaxrnn
from jaxrnn import DropoutWrapper, GRUCell, contrib

KEY = jax.random.key(0)
STEP = jax.ShapeDtypeStruct((4, 300), jnp.float32)
X = draw(2, 5, 6)
CONV = {"input_shape": [3, 2], "output_channels": 2, "kernel_shape": [2]}


def run(cell, params, x=X, key=None, **options):
    return jaxrnn.dynamic_rnn(cell.bind(params, key), x, dtype=x.dtype, **options)


# Initial values, and cells as values.


def test_initial_values_are_those_of_contrib():
    ones = contrib.MinimalRNNCell(2), contrib.CFNCell(2)
    zeros = contrib.SRUCell(2), contrib.UGRNNCell(2), contrib.IndyLSTMCell(2)
    biases = lambda cells: [cell.init(KEY, STEP)["bias"] for cell in cells]
    highway = contrib.HighwayWrapper(GRUCell(3), False, 2.5)
    embedding = contrib.EmbeddingWrapper(GRUCell(2), 40, 50)

    @jax.jit  # What is not returned is not computed.
    def init():
        carry = highway.init(KEY, INPUTS)
        carry = {name: carry[name] for name in ("carry_b", "transform_b")}
        table = embedding.init(KEY, IDS)["embedding"]
        gru = contrib.IndyGRUCell(200).init(KEY, STEP)
        return biases(ones), biases(zeros), carry, table, gru

    ones, zeros, carry, table, gru = jax.device_get(init())
    ones.append(gru["gates"]["bias"])
    zeros.append(gru["candidate"]["bias"])
    assert all((bias == 1).all() for bias in ones)
    assert all((bias == 0).all() for bias in zeros)
    assert (carry["carry_b"] == 2.5).all()
    assert (carry["transform_b"] == -2.5).all()
    assert abs(table.var() - 1) < 0.05
    assert abs(table).max() <= 3**0.5
    weights = gru["gates"]["kernel_u"]
    assert -1 <= weights.min() < -0.9 < 0.9 < weights.max() <= 1


# LSTMs.


def test_dropout_draws_from_the_key():
    fields = {"dropout_keep_prob": 0.7}
    plain = contrib.LayerNormBasicLSTMCell(50)
    cell = contrib.LayerNormBasicLSTMCell(50, **fields)
    seeded = contrib.LayerNormBasicLSTMCell(50, **fields, dropout_prob_seed=1)
    params, x = drawn(cell, X[:, 0]), X[:, :1]

    @jax.jit
    def run_all(key):
        outputs = lambda cell, key=None: run(cell, params, x, key)[0]
        quiet = outputs(plain, key), outputs(cell)
        return *quiet, outputs(cell, key), outputs(seeded, key)

    want, quiet, dropped, other = run_all(jax.random.key(2))
    np.testing.assert_array_equal(quiet, want)
    assert not np.allclose(dropped, want)
    assert not np.allclose(dropped, other)


@pytest.mark.slow
def test_dropout_scales_what_it_keeps():
    cell = contrib.LayerNormBasicLSTMCell(
        1000, layer_norm=False, dropout_keep_prob=0.7, forget_bias=0.0
    )
    params = drawn(cell, X[:, 0])
    state = cell.zero_state(2, X.dtype)
    _, (quiet, _) = cell.apply(params, X[:, 0], state)
    _, (c, _) = cell.apply(params, X[:, 0], state, jax.random.key(3))
    kept = np.asarray(c != 0)
    assert 0.65 < kept.mean() < 0.75
    np.testing.assert_allclose(c[kept] * 0.7, quiet[kept], 1e-12)


@pytest.mark.slow
def test_a_fixed_ratio_has_no_gradient():
    inputs = jnp.full((2, 1), 0.3), jnp.ones((2, 3))

    def slope(trainable):
        cell = contrib.PhasedLSTMCell(4, ratio_on=0.9, trainable_ratio_on=trainable)
        params = drawn(cell, inputs)
        state = cell.zero_state(2, inputs[1].dtype)
        loss = lambda p: jnp.sum(cell.apply(p, inputs, state)[0] ** 2)
        return jnp.any(jax.jit(jax.grad(loss))(params)["ratio_on"] != 0)

    assert slope(True)
    assert not slope(False)


# Grids, windows, memories and empty shapes.


def test_initial_phases_are_uniform_in_the_period():
    inputs = jax.ShapeDtypeStruct((2, 1), np.float32), X[:, 0].astype(np.float32)
    params = jax.jit(lambda: contrib.PhasedLSTMCell(1000).init(KEY, inputs))()
    share = np.sort(params["phase"] / params["period"])
    np.testing.assert_allclose(share, np.linspace(0, 1, 1000), atol=0.06)


def test_attention_over_an_empty_batch():
    cell = contrib.AttentionCellWrapper(jaxrnn.GRUCell(2), 3, state_is_tuple=False)
    x = jnp.ones((0, 4, 3))
    outputs, state = run(cell, drawn(cell, x[:, 0]), x)
    assert outputs.shape == (0, 4, 2)
    want = cell.zero_state(0, x.dtype)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, want)


def test_a_layer_norm_of_equal_numbers_is_finite():
    """Its variance is 0; the gradient, too, stays finite."""
    cell, x = contrib.LayerNormLSTMCell(4, layer_norm=True), jnp.ones((2, 1, 3))
    params = jax.tree.map(np.zeros_like, drawn(cell, x[:, 0]))
    gradient = jax.jit(jax.grad(lambda params: run(cell, params, x)[0].sum()))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(params)))


# Wrappers: initial values, names and ids.

DEPTH = 3
INPUTS = jax.ShapeDtypeStruct((4, DEPTH), jnp.float32)
IDS = jax.ShapeDtypeStruct((4, 1), jnp.int32)


def test_ids_may_lack_their_axis_and_those_that_are_unknown_are_nan():
    """Their type may be smaller than their number."""
    cell = contrib.EmbeddingWrapper(GRUCell(2), 300, 3)
    bound, state = cell.bind(drawn(cell, IDS)), jnp.zeros((5, 2), "float32")
    run = jax.jit(lambda ids: bound(ids, state)[0])
    ids = np.asarray([0, -1, 300, 2**32, -(2**32)])
    np.testing.assert_array_equal(run(ids), run(ids[:, None]))
    np.testing.assert_array_equal(np.isnan(run(ids)).any(axis=1), [False] + [True] * 4)
    assert np.isfinite(run(np.asarray([0, 255, 1, 2, 3], np.uint8))).all()


# Cells of whole sequences: lists of steps, keys and values of their own.

TIME, BATCH = 4, 3
LENGTHS = np.array([4, 0, 2])
XS = draw(TIME, BATCH, DEPTH)
ALIVE = np.arange(TIME)[:, None, None] < LENGTHS[:, None]
PADDED = np.where(ALIVE, XS, np.nan)
DYNAMIC = contrib.FusedRNNCellAdaptor(GRUCell(3), use_dynamic_rnn=True)
STATIC = contrib.FusedRNNCellAdaptor(GRUCell(3))
FUSED = {
    "block": contrib.LSTMBlockFusedCell(3),
    "dynamic": DYNAMIC,
    "reversed": contrib.TimeReversedFusedRNN(DYNAMIC),
    "static_reversed": contrib.TimeReversedFusedRNN(STATIC),
}


@pytest.mark.fast("block")
@pytest.mark.parametrize("cell", FUSED.values(), ids=FUSED)
def test_lists_of_steps_are_arrays_of_time(cell):
    bound = cell.bind(drawn(cell, list(XS)))
    run = jax.jit(lambda bound, x: bound(x, None, XS.dtype, LENGTHS))
    outputs, state = run(bound, PADDED)
    steps, state_of_list = run(bound, list(PADDED))
    assert isinstance(steps, list)
    assert_near((jnp.stack(steps), state_of_list), (outputs, state), tolerance=1e-12)
    assert not outputs[~np.broadcast_to(ALIVE, outputs.shape)].any()
    assert np.isfinite(outputs).all()


@pytest.mark.slow
def test_the_key_reaches_the_cell():
    wrapped = DropoutWrapper(GRUCell(3), output_keep_prob=0.5)
    cell = contrib.FusedRNNCellAdaptor(wrapped, use_dynamic_rnn=True)
    params, key = drawn(cell, XS), jax.random.key(2)

    @jax.jit
    def run():
        outputs, _ = cell.bind(params, key)(XS, dtype=XS.dtype)
        bound = wrapped.bind(params, key)
        wanted, _ = jaxrnn.dynamic_rnn(bound, XS, dtype=XS.dtype, time_major=True)
        return outputs, wanted

    outputs, wanted = run()
    assert_near(outputs, wanted, tolerance=1e-12)
    assert (outputs == 0).any()


# Refusals, by the name of the argument.

GRU, ONES, WIDE = GRUCell(3), np.ones((4, 3), np.float32), np.ones((1, 4))
WINDOWS = {"feature_size": 3, "frequency_skip": 2}
grid = functools.partial(contrib.GridLSTMCell, 2, **WINDOWS)
heads = {"memory_vector_dim": 2, "read_head_num": 1, "write_head_num": 1}
ntm = functools.partial(contrib.NTMCell, GRU, **heads)
attention_cell = functools.partial(contrib.AttentionCellWrapper, attn_length=2)


def step(cell, state=None):
    """A call of one step, by default with a state that fits."""
    start = lambda: state or cell.zero_state(4, ONES.dtype)
    return lambda: cell.apply(drawn(cell, ONES), ONES, start())


FUSED_LSTM = contrib.LSTMBlockFusedCell(3)
SHARDED = contrib.CoupledInputForgetGateLSTMCell(2, num_unit_shards=9)
REFUSALS = [
    (ValueError, "`ratio_on`", lambda: contrib.PhasedLSTMCell(2, ratio_on=0.0)),
    (ValueError, "`inputs`", lambda: contrib.PhasedLSTMCell(2).init(KEY, WIDE)),
    (ValueError, "`kernel_shape`", lambda: contrib.Conv1DLSTMCell(**CONV | {"kernel_shape": [1, 1]})),
    (ValueError, "`num_windows`", lambda: contrib.TimeFreqLSTMCell(2, feature_size=2).init(KEY, WIDE)),
    (ValueError, "`num_frequency_blocks.0.`", lambda: grid(num_frequency_blocks=[2]).init(KEY, WIDE)),
    (ValueError, "`num_units`.* got 3.*`num_in_proj=2`", step(contrib.IntersectionRNNCell(2))),
    (ValueError, r"shards \(9\)", lambda: drawn(SHARDED, ONES)),
    (ValueError, "`memory_size`", lambda: ntm(memory_size=2, output_dim=2)),
    (ValueError, r"`state\[1\]`", step(attention_cell(GRU), state=(ONES, ONES, ONES))),
    (TypeError, "^`state`.* LSTMStateTuple", lambda: FUSED_LSTM.bind(drawn(FUSED_LSTM, ONES[None]))(ONES[None], 3.0)),
    (ValueError, "`dtype`", lambda: STATIC.bind({})(ONES[None])),
    (TypeError, "`cell`", lambda: contrib.FusedRNNCellAdaptor(STATIC)),
]  # fmt: skip
test_refuses = refusals(REFUSALS)
