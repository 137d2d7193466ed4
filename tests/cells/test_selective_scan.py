"""`S6MemoryCell` against a loop in NumPy."""

import jax
import numpy as np
from helpers import assert_near, differentiated, draw, refusals

import jaxrnn

ROWS, TIME, UNITS, STATES = 3, 11, 4, 2
CELL = jaxrnn.S6MemoryCell(UNITS, STATES)
INPUTS = jaxrnn.S6Inputs(
    draw(ROWS, TIME, UNITS),
    np.exp(draw(ROWS, TIME, UNITS, seed=1)),
    draw(ROWS, TIME, STATES, seed=2),
    draw(ROWS, TIME, STATES, seed=3),
)
PARAMS = {"A_log": draw(UNITS, STATES), "D": draw(UNITS)}


def in_a_loop(resets):
    x, dt, b, c = INPUTS
    a = -np.exp(PARAMS["A_log"])
    h, outputs = np.zeros((ROWS, UNITS, STATES)), []
    for t in range(TIME):
        h[resets[:, t]] = 0
        for n in range(STATES):
            written = dt[:, t] * x[:, t] * b[:, t, n, None]
            h[:, :, n] = np.exp(dt[:, t] * a[:, n]) * h[:, :, n] + written
        outputs.append(sum(h[:, :, n] * c[:, t, n, None] for n in range(STATES)))
        outputs[-1] = outputs[-1] + PARAMS["D"] * x[:, t]
    return np.stack(outputs, axis=1), h


def test_equals_a_loop():
    resets = np.random.default_rng(4).random((ROWS, TIME)) < 0.2
    got = jaxrnn.dynamic_rnn(CELL.bind(PARAMS), INPUTS, dtype="float64", resets=resets)
    assert_near(got, in_a_loop(resets), tolerance=1e-14)


def test_gradients_are_those_of_single_steps():
    """Over several chunks of the loop, whose states fill a cache."""
    cell = jaxrnn.S6MemoryCell(64, 16)
    sizes = cell.input_sizes
    inputs = jaxrnn.S6Inputs(*(draw(4, 150, *size) / 3 for size in sizes))
    inputs = inputs._replace(dt=np.exp(inputs.dt - 2))
    params = {"A_log": draw(64, 16) / 3, "D": draw(64)}

    def by_steps(params, inputs):
        def step(state, x):
            return cell.apply(params, x, state)[::-1]

        swap = lambda tree: jax.tree.map(lambda x: x.swapaxes(0, 1), tree)
        start = cell.zero_state(4, "float64")
        state, outputs = jax.lax.scan(step, start, swap(inputs))
        return swap(outputs), state

    own = lambda params, inputs: jaxrnn.dynamic_rnn(
        cell.bind(params), inputs, dtype="float64"
    )
    want = differentiated(by_steps, params, inputs)
    assert_near(differentiated(own, params, inputs), want, tolerance=1e-12)


def test_initial_parameters_are_those_of_the_authors():
    step = jax.tree.map(lambda x: x[:, 0], INPUTS)
    params = CELL.init(jax.random.key(0), step, "float64")
    assert_near(params["A_log"], np.log([[1.0, 2.0]] * UNITS), tolerance=1e-15)
    assert_near(params["D"], np.ones(UNITS), tolerance=0)


def refused(**inputs):
    given = INPUTS._replace(**inputs)
    return lambda: jaxrnn.dynamic_rnn(CELL.bind(PARAMS), given, dtype="float64")


test_refuses = refusals(
    [
        (ValueError, r"`inputs.b`.*\[batch, 2\]", refused(b=INPUTS.x)),
        (ValueError, "`inputs.dt`.*floating", refused(dt=np.ones_like(INPUTS.x, int))),
    ]
)
