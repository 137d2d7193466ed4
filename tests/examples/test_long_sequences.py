"""Examples of long sequences, in small: slow digits and delayed rewards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from helpers import assert_near
from long_range import digits
from rl import recall

pytestmark = [
    pytest.mark.slow,
    pytest.mark.in_thirds,
    pytest.mark.usefixtures("users_settings"),
]


def test_long_range_learns(picture, capsys):
    flags = "--hold 1 --updates 60 --units 32 --figure".split()
    found = tyro.cli(digits.main, args=[*flags, str(picture)])
    assert found["updates"]["LRU"] == 60
    lru, lstm = found["curves"]["LRU"], found["curves"]["LSTM"]
    assert lru[-1, 1] > 0.4 > lru[0, 1]
    assert lstm[-1, 0] >= lru[-1, 0]
    assert len(lru) == digits.POINTS + 1
    assert "LRU: 60 updates in" in capsys.readouterr().out


def test_each_pixel_comes_for_as_many_steps():
    data, test = digits.load()
    assert data.pixels.shape == (1297, 64)
    assert sorted(set(test.labels)) == list(range(10))
    inputs = digits.as_sequences(digits.Config(hold=3), test.pixels[:2])
    want = np.repeat(test.pixels[:2].T, 3, axis=0)[..., None]
    np.testing.assert_array_equal(inputs, want)


@pytest.mark.parametrize("hold", [1, 128])
def test_the_states_forget_within_the_sequence(hold):
    cell = digits.make_cell(digits.Config(hold=hold), "LRU")
    inputs = jax.ShapeDtypeStruct((1, 64), np.float32)
    params = cell.init(jax.random.key(0), inputs)
    pixels = 1 / (np.exp(params["nu_log"]) * hold)
    assert 2.9 < pixels.min() < pixels.max() < 110
    assert np.exp(params["theta_log"]).max() * hold * 8 <= 2.01 * 2 * np.pi


def test_recall_learns(picture, capsys):
    flags = "--longest-delay 8 --updates 40 --figure".split()
    recalled = tyro.cli(recall.main, args=[*flags, str(picture)])
    assert recalled[:3].mean() < 0.4
    assert recalled[-5:].mean() > 0.8
    assert "40 updates in" in capsys.readouterr().out


SMALL = recall.Config(rows=8, steps=24, units=16, shortest_delay=1, longest_delay=6)


@pytest.fixture
def rollout():
    """Parameters that are not near zero, and two parts, each with the state before."""
    params = recall.init(SMALL, jax.random.key(0))
    params["head"] = jax.tree.map(lambda p: 50 * p, params["head"])
    env = recall.begin(SMALL, jax.random.key(1))
    state, parts = SMALL.cell.zero_state(SMALL.rows, jnp.float32), []
    collect = jax.jit(recall.collect, static_argnums=0)
    for n in range(2):
        before, key = state, jax.random.key(2 + n)
        part, env, state = collect(SMALL, params, env, state, key)
        parts.append((before, part))
    return params, parts


def test_what_is_trained_is_what_acted(rollout):
    params, parts = rollout
    for before, part in parts:
        assert part.first[1:].sum() > SMALL.rows
        args = SMALL, params, part.observation, part.first, before
        logits, values = recall.unroll(*args)
        found = recall.log_prob_of(logits, part.action), values
        assert_near(found, (part.log_prob, part.value), tolerance=1e-5)


def test_an_episode_is_a_cue_a_delay_and_a_question(rollout):
    _, ((_, part), (_, last)) = rollout
    part = jax.tree.map(lambda a, b: np.concatenate([a, b]), part, last)
    np.testing.assert_array_equal(part.first[1:], part.done[:-1])
    starts = map(np.flatnonzero, part.first.T)
    delays = np.concatenate([np.diff(steps) - 1 for steps in starts])
    assert delays.min() >= SMALL.shortest_delay
    assert delays.max() <= SMALL.longest_delay
    shows = part.observation[..., :-1].any(-1)
    np.testing.assert_array_equal(shows, part.first)
    right = part.done & (part.action == part.cue)
    np.testing.assert_array_equal(part.reward, right)


def test_no_advantage_crosses_the_end_of_an_episode(rollout):
    """By its recursion, backward; `done` cuts it."""
    _, ((_, part), _) = rollout
    after, want = np.full(SMALL.rows, 0.3), np.zeros((SMALL.steps, SMALL.rows))
    found, total = recall.advantages(part, jnp.float32(after)), 0.0
    for t in reversed(range(SMALL.steps)):
        goes_on = recall.DISCOUNT * (1 - part.done[t])
        delta = part.reward[t] + goes_on * after - part.value[t]
        want[t] = total = delta + goes_on * recall.TRACE * total
        after = part.value[t]
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
