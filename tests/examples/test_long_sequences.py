"""Examples of long sequences, in small: slow digits, and policies with a memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from helpers import assert_near
from long_range import digits
from rl import ppo

import jaxrnn.linen
from jaxrnn import convert

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_settings")]


def test_long_range_learns(picture, monkeypatch):
    monkeypatch.setattr(digits, "PICTURE", picture)
    flags = "--hold 1 --updates 20 --units 16"
    found = tyro.cli(digits.main, args=flags.split())
    assert found["updates"]["LRU"] == 20
    lru, lstm = found["curves"]["LRU"], found["curves"]["LSTM"]
    assert lru[-1, 1] > 0.2 > lru[0, 1]
    assert lstm[-1, 0] >= lru[-1, 0]
    assert len(lru) == digits.POINTS + 1


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


def test_both_layers_learn(picture, monkeypatch):
    monkeypatch.setattr(ppo, "PICTURE", picture)
    flags = "--seeds 2 --rows 8 --updates 12 --learning-rate 0.03 --units 8"
    returns = tyro.cli(ppo.main, args=flags.split())
    for of_layer in returns.values():
        assert of_layer.shape == (12, 2)
        assert of_layer[-3:].mean() > of_layer[:3].mean() + 0.05


SMALL = ppo.Config(rows=8, steps=70, units=16)


def at_random(layer):
    """A policy, with parameters whose logits differ, and its training."""
    policy = ppo.ActorCritic(layer, SMALL.units)
    training = ppo.start(SMALL, policy, jax.random.key(0))
    params = jax.tree.map(lambda p: 3 * p + 0.1, training.params)
    return policy, training._replace(params=params)


@pytest.fixture
def rollout():
    """A policy, and two rollouts, each with the training before it."""
    policy, training = at_random(ppo.ResetRNN)
    collect, parts = jax.jit(ppo.collect, static_argnums=(0, 1)), []
    for n in range(2):
        before = training
        training, part = collect(SMALL, policy, before, jax.random.key(n))
        parts.append((before, part))
    return policy, parts


def test_what_is_trained_is_what_acted(rollout):
    policy, parts = rollout
    for before, part in parts:
        assert part.first[1:].sum() >= SMALL.rows
        inputs = before.state, part.observation, part.first
        _, logits, values = policy.apply(before.params, *inputs)
        found = ppo.log_prob_of(logits, part.action), values
        assert_near(found, (part.log_prob, part.value), tolerance=1e-5)


def test_both_layers_are_one_network(rollout):
    """With Flax's parameters in jaxrnn's layer."""
    policy, training = at_random(ppo.ScannedRNN)
    ours, [(before, part), _] = rollout
    inputs = before.state + 0.5, part.observation, part.first
    want = policy.apply(training.params, *inputs)
    params = dict(training.params["params"])
    [gru] = params.pop("rnn").values()
    cell = convert.from_flax(gru)
    [name] = before.params["params"]["rnn"]
    params["rnn"] = {name: jaxrnn.linen.RNN(cell.cell).variables_of(cell)["params"]}
    assert_near(ours.apply({"params": params}, *inputs), want, tolerance=1e-5)


def test_the_rewards_are_those_of_popgym(rollout):
    """By the suits that the policy saw since the deck began."""
    _, ((_, part), (_, last)) = rollout
    part = jax.tree.map(lambda a, b: np.concatenate([a, b]), part, last)
    np.testing.assert_array_equal(part.first[1:], part.done[:-1])
    for row in range(SMALL.rows):
        begin, *_ = np.flatnonzero(part.done[:, row]) + 1
        seen = part.observation[begin : begin + 51, row].argmax(-1)
        assert np.bincount(seen, minlength=4).max() <= 13
        right = part.action[begin + 3 : begin + 51, row] == seen[:-3]
        want = [0, 0, 0, *(np.where(right, 1, -1) / 48)]
        np.testing.assert_allclose(part.reward[begin : begin + 51, row], want)
        np.testing.assert_array_equal(part.done[begin : begin + 51, row].nonzero(), 50)


def test_no_advantage_crosses_the_end_of_an_episode(rollout):
    """By its recursion, backward; `done` cuts it."""
    _, ((_, part), _) = rollout
    after, want = np.full(SMALL.rows, 0.3), np.zeros((SMALL.steps, SMALL.rows))
    found, total = ppo.advantages(part, jnp.float32(after)), 0.0
    for t in reversed(range(SMALL.steps)):
        goes_on = ppo.DISCOUNT * (1 - part.done[t])
        delta = part.reward[t] + goes_on * after - part.value[t]
        want[t] = total = delta + goes_on * ppo.TRACE * total
        after = part.value[t]
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
