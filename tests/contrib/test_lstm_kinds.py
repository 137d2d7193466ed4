"""What contrib's LSTMs have beyond the laws of cells and the goldens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn

import jaxrnn
from jaxrnn import contrib

X = jax.random.normal(jax.random.key(1), (2, 5, 6))


def run(cell, params=None, key=None):
    params = drawn(cell, X[:, 0]) if params is None else params
    return jaxrnn.dynamic_rnn(cell.bind(params, key), X, dtype=X.dtype)


def test_dropout_draws_from_the_key():
    cell = contrib.LayerNormBasicLSTMCell(50, dropout_keep_prob=0.7)
    plain = contrib.LayerNormBasicLSTMCell(50)
    params = drawn(cell, X[:, 0])
    quiet, _ = run(cell, params)
    np.testing.assert_array_equal(quiet, run(plain, params)[0])
    np.testing.assert_array_equal(quiet, run(plain, params, jax.random.key(2))[0])
    dropped, _ = run(cell, params, jax.random.key(2))
    again, _ = run(cell, params, jax.random.key(2))
    np.testing.assert_array_equal(dropped, again)
    seeded = contrib.LayerNormBasicLSTMCell(
        50, dropout_keep_prob=0.7, dropout_prob_seed=1
    )
    assert not np.allclose(dropped, quiet)
    assert not np.allclose(dropped, run(seeded, params, jax.random.key(2))[0])


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


@pytest.mark.parametrize("keep_prob", [0, 1.5])
def test_refuses_a_probability(keep_prob):
    with pytest.raises(ValueError, match=r"`dropout_keep_prob` must be in \(0, 1\]"):
        contrib.LayerNormBasicLSTMCell(4, dropout_keep_prob=keep_prob)


def test_groups_do_not_see_each_other():
    cell = contrib.GLSTMCell(4, number_of_groups=2)
    params = drawn(cell, X[:, 0])
    first = jax.grad(lambda x: jnp.sum(cell_outputs(cell, params, x)[..., :2]))(X)
    assert np.all(first[..., :3] != 0)
    assert not first[..., 3:].any()
    # What is not finite stays in its group, too.
    params["group1"] = {"kernel": jnp.full_like(params["group1"]["kernel"], jnp.nan)}
    outputs = cell_outputs(cell, params, X)
    assert np.isfinite(outputs[..., :2]).all()


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_groups_of_whole_sequences_equal_single_steps(activation):
    # In float32 groups run by the native loops, where they were built.
    cell = contrib.GLSTMCell(4, number_of_groups=2, activation=activation)
    x = jnp.asarray(X, jnp.float32)
    params = jax.tree.map(lambda p: p.astype(x.dtype), drawn(cell, X[:, 0]))
    lengths, resets = jnp.asarray([4, 5]), jnp.arange(x.shape[1]) % 3 == 2

    def whole(params, x):
        arguments = {"dtype": x.dtype, "resets": jnp.tile(resets, (2, 1))}
        return jaxrnn.dynamic_rnn(cell.bind(params), x, lengths, **arguments)

    def stepped(params, x):
        state = first = cell.zero_state(2, x.dtype)
        outputs = []
        for t in range(x.shape[1]):
            before = first if resets[t] else state
            output, after = cell.apply(params, x[:, t], before)
            alive = (t < lengths)[:, None]
            outputs.append(jnp.where(alive, output, 0))
            keep = lambda new, old, alive=alive: jnp.where(alive, new, old)
            state = jax.tree.map(keep, after, state)
        return jnp.stack(outputs, 1), state

    def results(run):
        loss = lambda *args: sum(jnp.sum(y**2) for y in jax.tree.leaves(run(*args)))
        return run(params, x), jax.grad(loss, (0, 1))(params, x)

    pairs = zip(*map(jax.tree.leaves, map(results, (whole, stepped))), strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def cell_outputs(cell, params, x):
    return jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)[0]


def test_groups_must_divide_all_sizes():
    with pytest.raises(ValueError, match="`num_units` must be divisible"):
        contrib.GLSTMCell(5, number_of_groups=2)
    with pytest.raises(ValueError, match="`num_proj` must be divisible"):
        contrib.GLSTMCell(4, num_proj=3, number_of_groups=2)
    with pytest.raises(ValueError, match=r"`inputs.shape\[-1\]` must be divisible"):
        run(contrib.GLSTMCell(8, number_of_groups=4))


def test_a_wrong_parameter_is_named_though_its_size_is_no_depth():
    cell, x = contrib.GLSTMCell(6, number_of_groups=2), jnp.zeros((1, 6))
    params = cell.init(jax.random.key(0), x) | {"bias_f": jnp.zeros(5)}
    with pytest.raises(ValueError, match=r"bias_f'\]` must have shape \(6,\)"):
        cell.apply(params, x, cell.zero_state(1, jnp.float32))


def test_more_shards_than_rows_are_refused():
    cell = contrib.CoupledInputForgetGateLSTMCell(2, num_unit_shards=9)
    message = "`W` must have a row for each of 9 shards, got 8"
    with pytest.raises(ValueError, match=message):
        run(cell)


def test_block_cells_are_the_cells_of_the_core():
    block = contrib.LSTMBlockCell(4, 0.5, 0.3, use_peephole=True)
    params = drawn(block, X[:, 0])
    core = jaxrnn.LSTMCell(4, True, 0.3, forget_bias=0.5)
    np.testing.assert_array_equal(run(block, params)[0], run(core, params)[0])
    gru = contrib.GRUBlockCellV2(cell_size=4)
    assert gru == contrib.GRUBlockCellV2(4)
    params = drawn(gru, X[:, 0])
    core = jaxrnn.GRUCell(4)
    np.testing.assert_array_equal(run(gru, params)[0], run(core, params)[0])


@pytest.mark.parametrize("sizes", [{}, {"num_units": 4, "cell_size": 4}])
def test_a_block_gru_has_one_size(sizes):
    with pytest.raises(ValueError, match="`num_units` must be given, unless"):
        contrib.GRUBlockCellV2(**sizes)


def test_no_clip_by_a_number_that_is_not_positive():
    assert contrib.LSTMBlockCell(4, cell_clip=-1) == contrib.LSTMBlockCell(4)
