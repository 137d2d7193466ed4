"""Loops that end at run time have the derivatives of a scan, also inside of others."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MODES

import jaxrnn
from jaxrnn._run.bounded_loop import bounded_loop
from jaxrnn.memory import CheckpointPlan, Keep, Recompute
from jaxrnn.testing._oracle import weighted_sum

# LIMIT needs two parts of 16 steps. The second is skipped or ends early.
LIMIT, STEPS, ROWS, UNITS = 17, 4, 2, 3
PLAN = CheckpointPlan()  # Saves everything.


def data():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) * 0.7)
    return draw(UNITS, UNITS), draw(LIMIT, ROWS, UNITS), draw(ROWS, UNITS)


def loop(kernel, xs, state, steps=STEPS):
    """An RNN that also carries a counter, a key and a buffer to write to."""

    def step(t, carry):
        count, end, key, state, kept = carry
        row = jax.lax.dynamic_index_in_dim(xs, t, keepdims=False)
        state = jnp.tanh(state @ kernel + row)
        kept = jax.lax.dynamic_update_index_in_dim(kept, state, t, 0)
        key = jax.random.fold_in(key, t)
        return (count + 2, end, key, state, kept), state**2

    kept = jnp.zeros((LIMIT, *state.shape))
    carry = (jnp.int32(0), jnp.int32(2 * steps), jax.random.key(0), state, kept)
    running = lambda carry: carry[0] < carry[1]
    n, last, ys = bounded_loop(running, step, carry, LIMIT, PLAN)
    count, _, _, state, kept = last
    return n, count, (state, kept, ys)


def scan(kernel, xs, state, steps=STEPS):
    """The same loop as a `lax.scan` over the known number of steps."""

    def step(state, row):
        state = jnp.tanh(state @ kernel + row)
        return state, state

    n = min(steps, LIMIT)
    state, states = jax.lax.scan(step, state, xs[:n])
    kept = jnp.pad(states, [(0, LIMIT - n), (0, 0), (0, 0)])
    return n, 2 * n, (state, kept, kept**2)


def loss(run, kernel, xs, state):
    return weighted_sum(run(kernel, xs, state)[2]) ** 2


def gradient(run):
    return MODES["backward"](partial(loss, run))


close = partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-10)


@pytest.mark.fast("forward of backward")
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_equals_the_scan_in_every_mode(mode):
    of = lambda run: jax.jit(mode(partial(loss, run)))(*data())
    close(of(loop), of(scan))


@pytest.mark.fast("20")
@pytest.mark.parametrize("steps", [0, LIMIT + 3])
def test_counts_its_steps_and_stops_at_the_limit(steps):
    run, want = partial(loop, steps=steps), partial(scan, steps=steps)
    n, count, got = jax.jit(run)(*data())
    assert (n, count) == (min(steps, LIMIT), 2 * min(steps, LIMIT))
    close(got, jax.jit(lambda *given: want(*given)[2])(*data()))


def test_with_a_limit_of_0_no_step_is_taken():
    step = lambda t, state: (state * 2, state)
    run = lambda state: bounded_loop(
        lambda state: True, step, state, 0, CheckpointPlan()
    )
    start = data()[2]
    n, state, ys = jax.jit(run)(start)
    assert (n, ys.shape) == (0, (0, ROWS, UNITS))
    np.testing.assert_array_equal(state, start)
    ones = jax.grad(lambda state: run(state)[1].sum())(start)
    np.testing.assert_array_equal(ones, np.ones_like(start))


@pytest.mark.slow
def test_mapped_ends():
    ends, of = [0, 7], lambda run, n: gradient(partial(run, steps=n))
    got = jax.jit(jax.vmap(lambda n: of(loop, n)(*data())))(jnp.asarray(ends, "i4"))
    want = jax.jit(lambda: [of(scan, n)(*data()) for n in ends])()
    close(got, jax.tree.map(lambda *leaves: jnp.stack(leaves), *want))


def test_steps_run_once_forward_and_once_backward():
    """Parts have at most 16 steps and equal sizes; none starts after the end."""
    taken, steps = [], 30

    def one(_):
        taken.append(1)
        return np.ones((), np.int32)

    def run(state, kernel):
        def step(t, carry):
            left, state = carry
            # Steps run again for their values, and this callback has no effects.
            number = jax.pure_callback(one, left, jax.lax.stop_gradient(state))
            scaled = state @ kernel * number.astype(state.dtype)
            return (left - number, jnp.tanh(scaled)), state

        running, carry = lambda carry: carry[0] > 0, (jnp.int32(steps), state)
        _, (_, state), ys = bounded_loop(running, step, carry, 1000, PLAN)
        return state.sum() + ys.sum()

    def count(fn):
        taken.clear()
        jax.block_until_ready(jax.jit(fn)(data()[2], data()[0]))
        return len(taken)

    assert count(run) == steps
    assert count(jax.grad(run, (0, 1))) == 2 * 32


@pytest.mark.slow
def test_a_step_that_reads_a_row_costs_no_more_where_there_are_more_rows():
    """A step updates only one row of the array's gradient."""

    def work(rows):
        run = jax.jit(lambda kernel, xs, state: gradient(loop)(kernel, xs, state)[1])
        args = data()[0], jnp.zeros((rows, ROWS, UNITS)), data()[2]
        return run.lower(*args).compile().cost_analysis()["flops"]

    # Only one sum over all rows, independent of the number of steps.
    assert work(5000) - work(50) <= 4950 * ROWS * UNITS


TIME = 5
EPISODES = np.random.default_rng(0).normal(size=(3, ROWS, TIME, UNITS))


@pytest.mark.fast("Keep*")
@pytest.mark.parametrize("strategy", [Keep(), Recompute(2)], ids=str)
def test_a_cell_may_sum_over_what_vmap_maps_over(strategy):
    """For example, a normalization over a named axis needs such a sum."""

    def apply(params, inputs, state, key=None):
        state = jnp.tanh(inputs @ params["w"] + state)
        state = state - jax.lax.pmean(state, "episodes")
        return state, state

    cell = jaxrnn.FunctionCell(apply, UNITS, UNITS)
    kernel = jnp.eye(UNITS) * 0.7

    def loss(kernel):
        run = partial(jaxrnn.dynamic_rnn, cell.bind({"w": kernel}))
        options = {"dtype": kernel.dtype, "swap_memory": strategy}
        mapped = jax.vmap(lambda xs: run(xs, **options)[0], axis_name="episodes")
        return jnp.sum(mapped(EPISODES) ** 3)

    def by_hand(kernel):
        state, total = jnp.zeros((3, ROWS, UNITS)), jnp.zeros(())
        for t in range(TIME):
            state = jnp.tanh(EPISODES[:, :, t] @ kernel + state)
            state = state - jnp.mean(state, 0, keepdims=True)
            total += jnp.sum(state**3)
        return total

    got, want = jax.jit(lambda: (jax.grad(loss)(kernel), jax.grad(by_hand)(kernel)))()
    np.testing.assert_allclose(got, want, rtol=1e-12)
