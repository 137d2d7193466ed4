"""popgym's task RepeatPreviousEasy: name the suit of the card before the last three.

Decks of 52 cards are shuffled, and shown card by card. Each row of a batch has a deck
of its own, and begins another episode when its deck ends.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

SUITS, CARDS, BACK = 4, 52, 3
LENGTH = CARDS - 1
"""The steps of an episode: popgym does not show the last card."""


class Env(NamedTuple):
    """The decks.

    Attributes:
        suits: int32 `[rows, 52]`, the suits of the cards in their order.
        t: int32 `[rows]`, the index of the last card that was shown.
    """

    suits: Any
    t: Any


def begin(rows, key):
    """Decks of which some cards were shown, so that episodes end at different steps."""
    of_suits, of_time = jax.random.split(key)
    decks = jnp.tile(jnp.arange(CARDS, dtype=jnp.int32) % SUITS, (rows, 1))
    suits = jax.random.permutation(of_suits, decks, axis=1, independent=True)
    return Env(suits, jax.random.randint(of_time, (rows,), 0, LENGTH))


def suit(env, back=0):
    """The suit of the last card, or of an earlier card."""
    return jnp.take_along_axis(env.suits, env.t[:, None] - back, axis=1)[:, 0]


def observe(env):
    """`[rows, 4]`: the suit of the last card."""
    return jax.nn.one_hot(suit(env), SUITS)


def step(env, action, key):
    """Returns `(env, reward, done)`; the rewards of an episode sum to at most 1."""
    reward = jnp.where(action == suit(env, BACK), 1.0, -1.0) / (LENGTH - BACK)
    reward = jnp.where(env.t < BACK, 0.0, reward)
    done = env.t == LENGTH - 1
    # One permutation serves all rows, because their decks differ.
    shuffled = jax.random.permutation(key, env.suits, axis=1)
    suits = jnp.where(done[:, None], shuffled, env.suits)
    return Env(suits, jnp.where(done, 0, env.t + 1)), reward, done
