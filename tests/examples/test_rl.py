"""The examples of reinforcement learning, in small."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from helpers import assert_near
from rl import recall, time_update
from rl.recall import Config

pytestmark = pytest.mark.usefixtures("users_settings")
SMALL = Config(rows=8, steps=24, units=16, shortest_delay=1, longest_delay=6)


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
    return params, parts, state


@pytest.mark.slow
def test_what_is_trained_is_what_acted(rollout):
    params, parts, _ = rollout
    for before, part in parts:
        assert part.first[1:].sum() > SMALL.rows
        args = SMALL, params, part.observation, part.first, before
        logits, values = recall.unroll(*args)
        found = recall.log_prob_of(logits, part.action), values
        assert_near(found, (part.log_prob, part.value), tolerance=1e-5)


@pytest.mark.slow
def test_an_episode_is_a_cue_a_delay_and_a_question(rollout):
    _, ((_, part), (_, last)), _ = rollout
    join = lambda a, b: np.concatenate([a, b])
    part = jax.tree.map(join, part, last)
    for row in range(SMALL.rows):
        starts = np.flatnonzero(part.first[:, row])
        ends = np.flatnonzero(part.done[:, row])
        delays = ends - starts[: len(ends)]
        assert delays.min() >= SMALL.shortest_delay
        assert delays.max() <= SMALL.longest_delay
        np.testing.assert_array_equal(starts[1:], ends[: len(starts) - 1] + 1)
        shows = part.observation[:, row, :-1].any(-1)
        np.testing.assert_array_equal(shows, part.first[:, row])
        right = part.done[:, row] & (part.action[:, row] == part.cue[:, row])
        np.testing.assert_array_equal(part.reward[:, row], right)


@pytest.mark.slow
def test_no_advantage_crosses_the_end_of_an_episode(rollout):
    """The sum of all that follows within the episode, as in its definition."""
    _, ((_, part), _), _ = rollout
    last = jnp.full(SMALL.rows, 0.3)
    found = recall.advantages(part, last)
    values = np.concatenate([part.value, last[None]])
    for row in range(SMALL.rows):
        for t in range(SMALL.steps):
            total, weight = 0.0, 1.0
            for s in range(t, SMALL.steps):
                goes_on = recall.DISCOUNT * (not part.done[s, row])
                delta = part.reward[s, row] + goes_on * values[s + 1, row]
                total += weight * (delta - values[s, row])
                weight *= goes_on * recall.TRACE
            np.testing.assert_allclose(found[t, row], total, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_it_learns_and_draws(tmp_path, capsys):
    picture = tmp_path / "figure.png"
    flags = ["--longest-delay", "8", "--updates", "40", "--figure", str(picture)]
    recalled = tyro.cli(recall.main, args=flags)
    assert recalled[:3].mean() < 0.4
    assert recalled[-5:].mean() > 0.8
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "40 updates in" in capsys.readouterr().out


@pytest.mark.slow
def test_all_ways_to_unroll_are_timed(capsys):
    """And the two of the same cell have the same gradient."""
    times = time_update.main(SMALL, rounds=2)
    assert [len(each) for each in times.values()] == [2, 2, 2]
    assert capsys.readouterr().out.count(" ms\n") == 3
    (gradient, params), (of_scan, _), _ = time_update.make_losses(SMALL).values()
    assert_near(gradient(params), of_scan(params), tolerance=1e-5)
