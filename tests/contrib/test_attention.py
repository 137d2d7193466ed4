"""Attention: a cell as any other, blind to padding. The goldens have its numbers."""
# ruff: noqa: E501 (One refusal a row.)

import functools

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

import jaxrnn
import jaxrnn.decode
from jaxrnn import contrib

# Memories, lengths and states.

B, S, D, I, H = 3, 6, 4, 3, 5
LENGTHS = [6, 0, 2]
KEY = jax.random.key(0)
draw = functools.partial(helpers.draw, dtype=np.float32)
MEMORY, X = draw(B, S, D), draw(B, 4, I)
WIDER = contrib.LuongAttention(H + 1, D)
BAHDANAU = contrib.BahdanauAttention(H, D)


def monotonic(**options):
    return contrib.LuongMonotonicAttention(H, D, **options)


def test_a_score_of_zero_attends_to_nothing_in_hard_mode():
    """`tf.contrib` compares with `score > 0`."""
    mechanism = monotonic(mode="hard")
    score = jnp.array([[-1.0, 0.0, 1.0]])
    start = jnp.array([[1.0, 0.0, 0.0]])
    found = mechanism.probabilities(score, start, None)
    np.testing.assert_array_equal(found, [[0, 0, 1]])


def attending(mechanism=BAHDANAU):
    return contrib.AttentionWrapper(jaxrnn.LSTMCell(H), mechanism, H)


CELL = attending()
STATE = CELL.initial_state(MEMORY, LENGTHS)


def params_of(cell):
    return bound(cell, I, "float32", 1, scale=0.5).params


PARAMS = params_of(CELL)


def over_time(cell, state, x=X, lengths=None):
    return jaxrnn.dynamic_rnn(cell, x, lengths, initial_state=state, dtype=x.dtype)


def unit_values(keys, values):
    """Not finite for zeros."""
    return keys, values / jnp.linalg.norm(values, axis=-1, keepdims=True)


def test_scores_of_a_normalized_vector_of_zeros_are_finite():
    cell = attending(contrib.BahdanauAttention(H, D, normalize=True))

    def loss(params):
        state = cell.initial_state(MEMORY, LENGTHS)
        return jnp.sum(over_time(cell.bind(params), state, X[:, :1])[0] ** 2)

    params = params_of(cell)
    mechanism, *_ = [x for x in params.values() if "attention_v" in x]
    mechanism["attention_v"] = jnp.zeros(H, jnp.float32)
    gradient = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


BLIND = {
    "bahdanau": BAHDANAU,
    "recursive": monotonic(mode="recursive"),
    "custom": contrib.LuongAttention(H, D, custom_key_value_fn=unit_values),
}


@pytest.mark.fast("custom")
@pytest.mark.parametrize("mechanism", BLIND.values(), ids=BLIND)
def test_the_padding_of_a_memory_leaves_no_trace(mechanism):
    cell = attending(mechanism)
    beyond = np.arange(S)[None, :, None] >= np.array(LENGTHS)[:, None, None]

    def loss(params, memory):
        state = cell.initial_state(memory, LENGTHS)
        outputs, state = over_time(cell.bind(params), state)
        return jnp.sum(outputs**2) + jnp.sum(state.alignments**3), state.alignments

    differentiate = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    clean, alignments = differentiate(params_of(cell), MEMORY)
    dirty, _ = differentiate(params_of(cell), jnp.where(beyond, jnp.nan, MEMORY))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))
    assert not np.asarray(alignments)[beyond[..., 0]].any()
    assert not np.asarray(clean[1])[np.broadcast_to(beyond, MEMORY.shape)].any()


@pytest.mark.slow
def test_each_run_computes_the_keys_from_its_own_parameters():
    _, passed_on = over_time(CELL.bind(PARAMS), STATE)
    assert jax.tree.structure(passed_on) == jax.tree.structure(STATE)
    fresh = passed_on._replace(memory=STATE.memory)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(params, state):
        outputs, _ = over_time(CELL.bind(params), state)
        return jnp.sum(outputs), outputs

    other = jax.tree.map(lambda p: 2 * p, PARAMS)
    (gradient, got), (_, want) = (run(other, state) for state in (passed_on, fresh))
    assert np.abs(gradient["memory_layer"]["kernel"]).max() > 0
    np.testing.assert_array_equal(got, want)


def test_the_memory_is_saved_once_not_at_each_step():
    cell = attending(contrib.LuongAttention(H, 64))
    state, x = cell.initial_state(draw(B, 64, 64)), draw(B, 32, I)
    loss = lambda p: jnp.sum(over_time(cell.bind(p), state, x, [32, 1, 9])[0])
    compiled = jax.jit(jax.grad(loss)).lower(params_of(cell)).compile()
    # 48 KiB; its copies for 32 steps would be 1.5 MiB.
    assert compiled.memory_analysis().temp_size_in_bytes < 2**19


# Mechanisms.


def test_noise_is_drawn_from_the_key_of_the_run():
    noisy = attending(monotonic(sigmoid_noise=1.0))
    quiet = attending(monotonic())
    params, state = params_of(noisy), noisy.initial_state(MEMORY)
    run = jax.jit(lambda key: over_time(noisy.bind(params, key), state)[0])
    one, same, other = (run(jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
    unkeyed = jax.jit(lambda: over_time(quiet.bind(params), state)[0])()
    np.testing.assert_array_equal(run(None), unkeyed)
    assert (noisy.is_random, quiet.is_random) == (True, False)


# Refusals.


def on(mechanisms, units=H, **options):
    return contrib.AttentionWrapper(jaxrnn.GRUCell(units), mechanisms, **options)


initial, two = CELL.initial_state, on([WIDER, WIDER], H + 1).initial_state
run, first = CELL.bind(PARAMS), X[:, 0]
HALVES = contrib.LuongAttention(H, D, dtype=jnp.float16)
REFUSALS = [
    (ValueError, "method `initial_state", lambda: over_time(run, None)),
    (ValueError, "memories", lambda: two((MEMORY, MEMORY[:1]))),
    (ValueError, "`memory_depth`", lambda: initial(MEMORY[..., :2])),
    (ValueError, "size of the cell's output", lambda: attending(WIDER).init(KEY, first)),
    (TypeError, "`memory`", lambda: contrib.BahdanauAttention(H, memory=MEMORY)),
    (TypeError, "like the mechanism", lambda: on(HALVES).initial_state(MEMORY)),
]  # fmt: skip

test_refuses = helpers.refusals(REFUSALS)
