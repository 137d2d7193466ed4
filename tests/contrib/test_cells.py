"""What the laws and the goldens do not tell of contrib's cells and wrappers."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, drawn

import jaxrnn
from jaxrnn import DropoutWrapper, GRUCell, contrib
from jaxrnn.testing import _laws, make_setup

KEY = jax.random.key(0)
STEP = jax.ShapeDtypeStruct((4, 300), jnp.float32)
X = jax.random.normal(KEY, (2, 5, 6))
GRID = {"feature_size": 3, "frequency_skip": 2, "num_frequency_blocks": [2]}
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

    ones, zeros, carry, table, gru = init()
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


def test_initializers_are_taken():
    twos, threes = (jax.nn.initializers.constant(value) for value in (2, 3))
    both = {"kernel_initializer": twos, "bias_initializer": threes}
    # The projection has the size of the state, whatever `num_in_proj` is.
    intersection = contrib.IntersectionRNNCell(2, 7, twos)

    @jax.jit
    def init():
        kinds = contrib.IndyLSTMCell, contrib.MinimalRNNCell, contrib.CFNCell
        taken = [kind(2, **both).init(KEY, STEP) for kind in kinds]
        taken += contrib.IndyGRUCell(2, **both).init(KEY, STEP).values()
        taken.append({"kernel": contrib.UGRNNCell(2, twos).init(KEY, STEP)["kernel"]})
        return taken, intersection.init(KEY, STEP)["in_projection"]["kernel"]

    taken, projection = init()
    for params in taken:
        assert (params.get("kernel_w", params.get("kernel")) == 2).all()
        assert np.all(params.get("bias", 3) == 3)
    np.testing.assert_array_equal(projection, np.full((300, 2), 2))


def test_equal_arguments_make_equal_cells():
    assert contrib.CFNCell(2, None) == contrib.CFNCell(2, "linear")
    assert contrib.SRUCell(2, None) == contrib.SRUCell(2, "tanh")
    assert contrib.LSTMBlockCell(4, cell_clip=-1) == contrib.LSTMBlockCell(4)
    assert contrib.GRUBlockCellV2(cell_size=4) == contrib.GRUBlockCellV2(4)
    for clip in (None, 0, -1.0):
        fused = contrib.LSTMBlockFusedCell(3, cell_clip=clip)
        assert fused == contrib.LSTMBlockFusedCell(3)
    assert STATIC != DYNAMIC
    assert hash(STATIC) == hash(contrib.FusedRNNCellAdaptor(GRUCell(3)))
    lists = {"start_freqindex_list": [], "end_freqindex_list": []}
    assert isinstance(hash(contrib.GridLSTMCell(2, **GRID, **lists)), int)


def test_states_of_equal_grids_are_of_one_class_and_survive_pickling():
    first, second = (contrib.GridLSTMCell(2, **GRID) for _ in range(2))
    state = first.zero_state(1, np.float32)
    assert isinstance(state, second.state_tuple_type)
    again = pickle.loads(pickle.dumps(first.state_size))
    assert again == first.state_size
    assert isinstance(again, first.state_tuple_type)


# LSTMs.


def test_dropout_draws_from_the_key():
    fields = {"dropout_keep_prob": 0.7}
    plain = contrib.LayerNormBasicLSTMCell(50)
    cell = contrib.LayerNormBasicLSTMCell(50, **fields)
    seeded = contrib.LayerNormBasicLSTMCell(50, **fields, dropout_prob_seed=1)
    params, x = drawn(cell, X[:, 0]), X[:, :2]

    @jax.jit
    def run_all(key):
        outputs = lambda cell, key=None: run(cell, params, x, key)[0]
        quiet = outputs(plain), outputs(cell), outputs(plain, key)
        return *quiet, outputs(cell, key), outputs(seeded, key)

    want, *quiet, dropped, other = run_all(jax.random.key(2))
    np.testing.assert_array_equal(quiet, [want, want])
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


def test_what_is_not_finite_stays_in_its_group():
    cell = contrib.GLSTMCell(4, number_of_groups=2)
    params = drawn(cell, X[:, 0])
    params["group1"] = {"kernel": jnp.full_like(params["group1"]["kernel"], jnp.nan)}
    assert np.isfinite(run(cell, params)[0][..., :2]).all()


@pytest.mark.slow
def test_groups_of_whole_sequences_start_again_at_resets():
    # In float32 groups run by the native loops, where they were built.
    cell = contrib.GLSTMCell(4, number_of_groups=2)
    step = jax.ShapeDtypeStruct((4, 6), jnp.float32)
    _laws.starts_again_at_resets(make_setup(cell, step))


@pytest.mark.slow
def test_a_fixed_ratio_has_no_gradient():
    inputs = jnp.full((2, 1), 0.3), jnp.ones((2, 3))

    def slope(trainable):
        cell = contrib.PhasedLSTMCell(4, ratio_on=0.9, trainable_ratio_on=trainable)
        params = drawn(cell, inputs)
        state = cell.zero_state(2, inputs[1].dtype)
        loss = lambda p: jnp.sum(cell.apply(p, inputs, state)[0] ** 2)
        return jnp.any(jax.grad(loss)(params)["ratio_on"] != 0)

    assert slope(True)
    assert not slope(False)


# Grids, windows, memories and empty shapes.


def test_a_skip_connection_widens_the_output_but_not_the_state():
    x = jax.random.normal(KEY, (2, 4, 3, 2))
    plain = contrib.Conv1DLSTMCell(**CONV, skip_connection=False)
    skip = contrib.Conv1DLSTMCell(**CONV, skip_connection=True)
    params = drawn(plain, x[:, 0])
    want, want_state = run(plain, params, x)
    got, state = run(skip, params, x)
    np.testing.assert_array_equal(got, jnp.concatenate([want, x], -1))
    np.testing.assert_array_equal(state.h, want_state.h)


def test_initial_phases_are_uniform_in_the_period():
    inputs = jax.ShapeDtypeStruct((2, 1), np.float32), X[:, 0].astype(np.float32)
    params = contrib.PhasedLSTMCell(1000).init(KEY, inputs)
    share = np.sort(params["phase"] / params["period"])
    np.testing.assert_allclose(share, np.linspace(0, 1, 1000), atol=0.06)


def test_a_phased_lstm_may_have_no_units():
    inputs = jnp.ones((2, 1)), jnp.ones((2, 3))
    cell = contrib.PhasedLSTMCell(0)
    state = cell.zero_state(2, inputs[1].dtype)
    output, _ = jax.jit(cell.apply)(drawn(cell, inputs), inputs, state)
    assert output.shape == (2, 0)


def test_attention_over_an_empty_batch():
    cell = contrib.AttentionCellWrapper(jaxrnn.GRUCell(2), 3, state_is_tuple=False)
    x = jnp.ones((0, 4, 3))
    outputs, state = run(cell, drawn(cell, x[:, 0]), x)
    assert outputs.shape == (0, 4, 2)
    want = cell.zero_state(0, x.dtype)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, want)


def test_a_layer_norm_of_equal_numbers_is_finite():
    """Its variance is 0; the gradient, too, stays finite."""
    cell, x = contrib.LayerNormLSTMCell(4, layer_norm=True), jnp.ones((2, 3, 3))
    params = jax.tree.map(np.zeros_like, drawn(cell, x[:, 0]))
    gradient = jax.jit(jax.grad(lambda params: run(cell, params, x)[0].sum()))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(params)))


# Wrappers: initial values, names and ids.

DEPTH, F64 = 3, jnp.float64
INPUTS = jax.ShapeDtypeStruct((4, DEPTH), jnp.float32)
IDS = jax.ShapeDtypeStruct((4, 1), jnp.int32)


SCOPES = {
    "mine": GRUCell(DEPTH, name="mine"),
    "gru_cell": DropoutWrapper(jaxrnn.ResidualWrapper(GRUCell(DEPTH)), 0.5),
    "multi_rnn_cell": jaxrnn.MultiRNNCell([GRUCell(DEPTH)]),
    "input_projection_wrapper": contrib.InputProjectionWrapper(GRUCell(DEPTH), 5),
}


@pytest.mark.parametrize("scope", SCOPES)
def test_the_wrapped_cells_parameters_are_under_its_scope(scope):
    params = contrib.HighwayWrapper(SCOPES[scope]).init(KEY, INPUTS)
    assert params.keys() == {"carry_w", "carry_b", scope}


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
XS = jax.random.normal(jax.random.key(1), (TIME, BATCH, DEPTH))
ALIVE = np.arange(TIME)[:, None, None] < LENGTHS[:, None]
PADDED = jnp.where(ALIVE, XS, jnp.nan)
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
    bound = cell.bind(drawn(cell, list(XS)))
    run = jax.jit(lambda bound, x: bound(x, None, XS.dtype, LENGTHS))
    outputs, state = run(bound, PADDED)
    steps, state_of_list = run(bound, list(PADDED))
    assert isinstance(steps, list)
    assert_near((jnp.stack(steps), state_of_list), (outputs, state), tolerance=1e-12)
    assert not outputs[~np.broadcast_to(ALIVE, outputs.shape)].any()
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_a_pair_is_an_lstms_state(lengths):
    bound = FUSED["block"].bind(drawn(FUSED["block"], XS))
    c, h = jax.random.normal(jax.random.key(3), (2, BATCH, 3))
    with pytest.warns(UserWarning, match="plain pair, which is read as `.c, h.`"):
        got = bound(XS, (c, h), sequence_length=lengths)
    want = bound(XS, jaxrnn.LSTMStateTuple(c, h), sequence_length=lengths)
    assert_near(got, want, tolerance=1e-12)


def test_the_key_reaches_the_cell():
    wrapped = DropoutWrapper(GRUCell(3), output_keep_prob=0.5)
    cell = contrib.FusedRNNCellAdaptor(wrapped, use_dynamic_rnn=True)
    params, key = drawn(cell, XS), jax.random.key(2)
    outputs, _ = cell.bind(params, key)(XS, dtype=XS.dtype)
    bound = wrapped.bind(params, key)
    wanted, _ = jaxrnn.dynamic_rnn(bound, XS, dtype=XS.dtype, time_major=True)
    assert_near(outputs, wanted, tolerance=1e-12)
    assert (outputs == 0).any()
