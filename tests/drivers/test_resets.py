"""Resets within a run: what the law `starts_again_at_resets` does not say."""

import functools

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, differentiated
from hypothesis.extra.numpy import arrays

import jaxrnn
from jaxrnn import memory
from jaxrnn._cells import linear_recurrence as linear
from jaxrnn.testing import make_setup
from jaxrnn.testing._oracle import unrolled

BATCH, TIME, DEPTH = 4, 6, 3
X = np.random.default_rng(0).normal(size=(BATCH, TIME, DEPTH))
# Resets at the first step, the last, several or all steps, even past row 3's end.
RESETS = np.zeros((BATCH, TIME), bool)
RESETS[0, 0] = RESETS[1, -1] = RESETS[2, 2:4] = RESETS[3] = True
LENGTHS = np.array([6, 6, 5, 3], np.int32)


def step_of_sums(params, inputs, state, key=None):
    state = jnp.tanh(params["w"] @ state[..., None])[..., 0] + inputs
    return state, state


def init_sums(key, inputs, dtype):
    return {"w": jnp.zeros((DEPTH, DEPTH), dtype)}


CELLS = {
    "lstm": jaxrnn.LSTMCell(3, use_peepholes=True, num_proj=2),
    "gru": jaxrnn.GRUCell(2),
    "stack": jaxrnn.MultiRNNCell([jaxrnn.GRUCell(2), jaxrnn.BasicLSTMCell(2)]),
    "linear": jaxrnn.MinGRUCell(2),
    "function": jaxrnn.FunctionCell(step_of_sums, DEPTH, DEPTH, init_sums),
}
close = functools.partial(chex.assert_trees_all_close, rtol=1e-9, atol=1e-12)


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Divide the steps of linear recurrences, so that resets are near boundaries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "steps_in_block", lambda *_: 4)
        yield


def states(cell, seed):
    """A random nonzero state."""
    draw = np.random.default_rng(seed).normal
    return jax.tree.map(lambda s: draw(size=s.shape), cell.zero_state(BATCH, "float64"))


@functools.cache
def both(name):
    """`dynamic_rnn` and the loop of the oracle, compiled once."""
    setup = make_setup(CELLS[name], X[:, 0], jnp.float64)
    given = setup.params, X, setup.state
    other = jax.tree.map(lambda s: s[::-1], setup.state)

    @jax.jit
    def run(lengths, resets):
        options = {"resets": resets, "reset_state": other}
        loop = unrolled(setup, *given, lengths, **options)
        return setup.run(*given, lengths, **options), loop

    return run


@hypothesis.given(
    st.sampled_from(["lstm", "linear"]),
    arrays(bool, (BATCH, TIME)),
    arrays(np.int32, BATCH, elements=st.integers(-1, TIME + 2)),
)
@hypothesis.settings(max_examples=25)
def test_any_resets_and_lengths(name, resets, lengths):
    close(*both(name)(lengths, resets))


@pytest.mark.fast("gru-Recompute")
@pytest.mark.parametrize(
    "strategy",
    [memory.Recompute(4), memory.Nested(2), memory.Offload(memory.Recompute(2))],
    ids=lambda strategy: type(strategy).__name__,
)
@pytest.mark.parametrize("name", ["gru", "linear", "function"])
def test_memory_strategies(name, strategy):
    cell = bound(CELLS[name])

    def run(swap_memory):
        def of_arrays(cell, x, state, other):
            options = {"reset_state": other, "swap_memory": swap_memory}
            args = cell, x, LENGTHS, state
            return jaxrnn.dynamic_rnn(*args, resets=RESETS, **options)

        return differentiated(of_arrays, cell, X, states(cell, 1), states(cell, 2))

    close(run(strategy), run(False))


def test_a_carried_state_is_not_what_rows_are_reset_to():
    """A rollout in parts, with the state carried over, equals the whole rollout."""
    setup = make_setup(CELLS["gru"], X[:, 0], jnp.float64)
    run = functools.partial(jaxrnn.dynamic_rnn, setup.bind(), dtype="float64")
    want = run(X, resets=RESETS)
    first, state = run(X[:, :4], resets=RESETS[:, :4])
    second, state = run(X[:, 4:], initial_state=state, resets=RESETS[:, 4:])
    close((jnp.concatenate([first, second], 1), state), want)
    zeros = setup.cell.zero_state(BATCH, "float64")
    restarts = {"resets": RESETS, "reset_state": zeros}
    close(want, unrolled(setup, setup.params, X, zeros, None, **restarts))


def test_zeros_have_the_dtypes_of_the_carried_state():
    cell = bound(jaxrnn.MinGRUCell(2), dtype="float32")
    state, x = jnp.ones((BATCH, 2), jnp.float64), X.astype(np.float32)
    options = {"initial_state": state, "resets": RESETS | True}
    outputs, last = jaxrnn.dynamic_rnn(cell, x, dtype="float32", **options)
    assert (outputs.dtype, last.dtype) == (jnp.float32, jnp.float64)
    want, _ = cell(x[:, 5], jnp.zeros_like(state))
    np.testing.assert_allclose(outputs[:, 5], want, rtol=1e-5)


@pytest.mark.fast("linear", "function")
@pytest.mark.parametrize("name", CELLS)
def test_nothing_crosses_a_reset(name):
    """Neither gradients nor NaN of the initial state, padding or a finished row."""
    cell = bound(CELLS[name])
    resets = np.zeros((BATCH, TIME), bool)
    resets[:, 0] = resets[:, 3] = True
    lengths = np.array([6, 4, 5, 0], np.int32)
    dead = np.arange(TIME) >= lengths[:, None]

    def after(cell, x, state):
        options = {"resets": resets, "dtype": "float64"}
        outputs, _ = jaxrnn.dynamic_rnn(cell, x, lengths, state, **options)
        return outputs[:, 3:]

    clean = after(cell, X, states(cell, 1))
    bad = jax.tree.map(lambda s: np.full_like(s, np.nan), states(cell, 1))
    padded = np.where(dead[..., None], np.nan, X)
    got, (of_cell, of_x, of_state) = differentiated(after, cell, padded, bad)
    close(got, clean)
    chex.assert_tree_all_finite((of_cell, of_x))
    assert not any(jnp.any(s) for s in jax.tree.leaves(of_state))
    assert not of_x[:, :3].any()
    assert of_x[:3, 3].any(-1).all()
    padded[0, 1] = np.nan  # A reset also restarts a row that computed NaN.
    got, (_, of_x, _) = differentiated(after, cell, padded, bad)
    close(got, clean)
    chex.assert_tree_all_finite(of_x[:, 3:])


@pytest.mark.parametrize(("name", "time_major"), [("stack", True), ("linear", False)])
def test_no_steps(name, time_major):
    """The state does not change, so no gradient reaches `reset_state`."""
    cell, shape = bound(CELLS[name]), (0, BATCH) if time_major else (BATCH, 0)

    def run(state, other):
        options = {"time_major": time_major, "reset_state": other}
        args = cell, jnp.zeros((*shape, DEPTH)), [0] * BATCH, state
        return jaxrnn.dynamic_rnn(*args, resets=np.zeros(shape, bool), **options)

    given = states(cell, 1), states(cell, 2)
    (outputs, state), (of_state, of_other) = differentiated(run, *given)
    assert outputs.shape == (*shape, cell.output_size)
    chex.assert_trees_all_equal(state, given[0])
    assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(of_state))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(of_other))


def test_no_steps_of_two_directions():
    cell, x = bound(CELLS["linear"]), jnp.zeros((BATCH, 0, DEPTH))
    options = {"dtype": "float64", "resets": np.zeros((BATCH, 0), bool)}
    outputs, pair = jaxrnn.bidirectional_dynamic_rnn(cell, cell, x, **options)
    assert [y.shape for y in outputs] == [(BATCH, 0, 2)] * 2
    assert not np.any(pair)


@pytest.mark.fast("linear")
@pytest.mark.parametrize("name", ["lstm", "linear"])
def test_vmap_and_checkpoint(name):
    cell, resets = bound(CELLS[name]), np.stack([RESETS, RESETS[::-1]])
    run = lambda r: jaxrnn.dynamic_rnn(cell, X, LENGTHS, dtype="float64", resets=r)
    got = jax.jit(jax.vmap(jax.checkpoint(run)))(resets)
    close(got, jax.tree.map(lambda *parts: jnp.stack(parts), *map(run, resets)))
