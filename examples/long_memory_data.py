"""The adding problem: two of many random numbers are marked; what is their sum?"""

import jax
import jax.numpy as jnp

FEATURES = 2
CONSTANT_GUESS = 1 / 6
"""The mean squared error of always saying 1: twice the variance of a number, 1/12."""


def adding_problem(
    key: jax.Array, batch: int, steps: int
) -> tuple[jax.Array, jax.Array]:
    """Inputs `[steps, batch, 2]`, and the sums `[batch]` of the two marked numbers.

    The first feature is uniform in [0, 1). The second is the mark: 1 at a step of the
    first half and at one of the second, each step as likely as any other.

    Source: Hochreiter and Schmidhuber, 1997; one mark a half as in arXiv:1511.06464.
    """
    number_key, first_key, second_key = jax.random.split(key, 3)
    numbers = jax.random.uniform(number_key, (steps, batch), jnp.float32)
    rows, half = jnp.arange(batch), steps // 2
    first = jax.random.randint(first_key, (batch,), 0, half)
    second = jax.random.randint(second_key, (batch,), half, steps)
    marks = jnp.zeros((steps, batch), jnp.float32)
    marks = marks.at[first, rows].set(1).at[second, rows].set(1)
    return jnp.stack([numbers, marks], axis=-1), jnp.sum(numbers * marks, axis=0)
