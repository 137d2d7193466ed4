"""Loops that end at run time have the derivatives of a scan, also inside of others."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn

import jaxrnn
from jaxrnn._drivers import bounded_loop as module
from jaxrnn.memory import CheckpointPlan, Keep, Offload, Recompute
from jaxrnn.testing._oracle import weighted_sum

# LIMIT needs two segments of 16 steps. The second is skipped or ends early.
LIMIT, STEPS, ROWS, UNITS = 17, 4, 2, 3
bounded_loop = functools.partial(module.bounded_loop, plan=CheckpointPlan())


def data():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) * 0.7)
    return draw(UNITS, UNITS), draw(LIMIT, ROWS, UNITS), draw(ROWS, UNITS)


def loop(kernel, xs, state, steps=STEPS, limit=LIMIT):
    """An RNN that also carries a counter, a key and a buffer to write to."""

    def step(t, carry):
        count, end, key, state, kept = carry
        row = jax.lax.dynamic_index_in_dim(xs, t, keepdims=False)
        state = jnp.tanh(state @ kernel + row)
        kept = jax.lax.dynamic_update_index_in_dim(kept, state, t, 0)
        key = jax.random.fold_in(key, t)
        return (count + 2, end, key, state, kept), state**2

    kept = jnp.zeros((limit, *state.shape))
    carry = (jnp.int32(0), jnp.int32(2 * steps), jax.random.key(0), state, kept)
    running = lambda carry: carry[0] < carry[1]
    n, (count, _, _, state, kept), ys = bounded_loop(running, step, carry, limit)
    return n, count, (state, kept, ys)


def scan(kernel, xs, state, steps=STEPS, limit=LIMIT):
    """The same loop as a `lax.scan` over the known number of steps."""

    def step(state, row):
        state = jnp.tanh(state @ kernel + row)
        return state, state

    state, states = jax.lax.scan(step, state, xs[: min(steps, limit)])
    missing = jnp.zeros((limit - states.shape[0], *states.shape[1:]))
    kept = jnp.concatenate([states, missing])
    return min(steps, limit), 2 * min(steps, limit), (state, kept, kept**2)


def loss(run, kernel, xs, state):
    return weighted_sum(run(kernel, xs, state)[2]) ** 2


def gradient(run):
    return jax.grad(functools.partial(loss, run), (0, 1, 2))


def gradient_of_gradient(run):
    def length(*args):
        return sum(jnp.sum(g**2) for g in gradient(run)(*args))

    return jax.grad(length, (0, 1, 2))


def tangent_of_gradient(run):
    return lambda *args: jax.jvp(gradient(run), args, args)


def many(run):
    scaled = lambda c: lambda k, x, s: gradient(run)(k * c, x, s * c)
    return lambda *args: jax.vmap(lambda c: scaled(c)(*args))(jnp.arange(3.0))


def rematerialized(run):
    return jax.grad(jax.checkpoint(functools.partial(loss, run)), (0, 1, 2))


close = functools.partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-10)


@pytest.mark.fast("gradient", "tangent_of_gradient")
@pytest.mark.parametrize(
    "mode",
    [gradient, gradient_of_gradient, tangent_of_gradient, many, rematerialized],
)
def test_equals_the_scan_in_every_mode(mode):
    close(jax.jit(mode(loop))(*data()), jax.jit(mode(scan))(*data()))


@pytest.mark.fast("0", "17")
@pytest.mark.parametrize("steps", [0, 1, LIMIT, LIMIT + 3])
def test_counts_its_steps_and_stops_at_the_limit(steps):
    run = functools.partial(loop, steps=steps)
    want = functools.partial(scan, steps=steps)
    close(jax.jit(run)(*data()), want(*data()))
    close(jax.jit(gradient(run))(*data()), jax.jit(gradient(want))(*data()))


def test_with_a_limit_of_0_no_step_is_taken():
    def run(state):
        step = lambda t, state: (state * 2, state)
        n, state, ys = bounded_loop(lambda state: True, step, state, 0)
        return n, state, ys

    n, state, ys = jax.jit(run)(data()[2])
    assert n == 0
    assert ys.shape == (0, ROWS, UNITS)
    np.testing.assert_array_equal(state, data()[2])
    ones = jax.grad(lambda state: run(state)[1].sum())(data()[2])
    np.testing.assert_array_equal(ones, np.ones((ROWS, UNITS)))


@pytest.mark.slow
def test_batched_ends_differ_from_row_to_row():
    ends = jnp.asarray([0, 2, 7], jnp.int32)

    def run(end, *args):
        return gradient(functools.partial(loop, steps=end))(*args)

    got = jax.jit(jax.vmap(run, (0, None, None, None)))(ends, *data())
    for i, end in enumerate([0, 2, 7]):
        want = gradient(functools.partial(scan, steps=end))(*data())
        close(jax.tree.map(lambda x, i=i: x[i], got), want)


def shapes(fn, *args):
    """The shapes of all arrays in the compiled program."""
    text = jax.jit(fn).lower(*args).compile().as_text()
    return set(re.findall(r"f64\[([\d,]+)\]", text))


def test_records_only_what_derivatives_read():
    state = f"2,9,{ROWS},{UNITS}"  # Two segments of 9 steps cover the limit.
    buffer = f"2,9,{LIMIT},{ROWS},{UNITS}"
    only_state = lambda *args: loop(*args)[2][0]
    kernel, xs, start = data()
    xs = xs[:, :1] + jnp.zeros((1, 1, 1))  # Now only a record has that shape.
    bare = lambda kernel, xs, start: bounded_loop(
        lambda carry: carry[0] < STEPS,
        lambda t, carry: ((t + 1, jnp.tanh(carry[1] @ kernel + xs[t])), ()),
        (jnp.int32(0), start),
        LIMIT,
    )[1][1].sum()
    assert state not in shapes(bare, kernel, xs, start)
    assert state in shapes(jax.grad(bare), kernel, xs, start)
    taken = shapes(jax.grad(lambda *args: only_state(*args).sum()), *data())
    assert state in taken
    assert buffer not in taken


@pytest.mark.parametrize(
    ("limit", "steps", "in_segments"),
    [(30, 30, 30), (1000, 30, 32), (1000, 0, 0), (17, 17, 18)],
)
def test_steps_run_once_forward_and_once_backward(limit, steps, in_segments):
    """Segments have at most 16 steps and equal sizes; none starts after the end."""
    counts = {"steps": 0}

    def one(_):
        counts["steps"] += 1
        return np.ones((), np.int32)

    def run(state, kernel):
        def step(t, carry):
            left, state = carry
            # Steps run again for their values, and this callback has no effects.
            number = jax.pure_callback(one, left, jax.lax.stop_gradient(state))
            scaled = state @ kernel * number.astype(state.dtype)
            return (left - number, jnp.tanh(scaled)), state

        carry = jnp.int32(steps), state
        running = lambda carry: carry[0] > 0
        _, (_, state), ys = bounded_loop(running, step, carry, limit)
        return state.sum() + ys.sum()

    def count(fn):
        counts["steps"] = 0
        jax.block_until_ready(jax.jit(fn)(data()[2], data()[0]))
        return counts["steps"]

    assert count(run) == steps
    assert count(jax.grad(run, (0, 1))) == 2 * in_segments


def test_a_step_that_reads_a_row_costs_no_more_where_there_are_more_rows():
    """A step updates only one row of the array's gradient."""

    def work(rows):
        run = jax.jit(lambda kernel, xs, state: gradient(loop)(kernel, xs, state)[1])
        args = data()[0], jnp.zeros((rows, ROWS, UNITS)), data()[2]
        return run.lower(*args).compile().cost_analysis()["flops"]

    # Only one sum over all rows, independent of the number of steps.
    assert work(5000) - work(50) <= 4950 * ROWS * UNITS


# Drivers inside of a scan and of `vmap`

EPISODES, TIME = 3, 5


def episodes():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(EPISODES, ROWS, TIME, UNITS)))


def by_dynamic_rnn(cell, xs, state, strategy):
    lengths = jnp.asarray([TIME, 2])
    return jaxrnn.dynamic_rnn(cell, xs, lengths, state, swap_memory=strategy)


def by_raw_rnn(cell, xs, state, strategy):
    inputs = jaxrnn.TensorArray(jnp.float64, TIME).unstack(jnp.moveaxis(xs, 1, 0))
    lengths = jnp.asarray([TIME, 2], jnp.int32)

    def loop_fn(time, output, cell_state, loop_state):
        next_state = state if output is None else cell_state
        finished = time >= lengths
        row = inputs.read(jnp.minimum(time, jnp.int32(TIME - 1)))
        return finished, row, next_state, output, None

    options = {"max_time": TIME, "swap_memory": strategy}
    outputs, state, _ = jaxrnn.raw_rnn(cell, loop_fn, **options)
    return jnp.moveaxis(outputs.stack(), 0, 1), state


TWICE = {
    "keep": (Keep(), jax.grad),
    "recompute": (Recompute(2), jax.grad),
    # JAX cannot transpose moves to the host twice, so this one is forward.
    "offload": (Offload(Recompute(2)), jax.jacfwd),
}


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "outer"), TWICE.values(), ids=TWICE)
@pytest.mark.parametrize("driver", [by_dynamic_rnn, by_raw_rnn])
def test_derivatives_of_gradients_of_a_scan_around_a_driver(driver, strategy, outer):
    """JAX splits the outer scan in two, but not the inner loops, which end early."""
    cell, xs = jaxrnn.GRUCell(UNITS), episodes()
    params = drawn(cell, xs[0, :, 0])

    def episode(scale, params, state, xs):
        outputs, state = driver(cell.bind(params), xs * scale, state, strategy)
        return state, jnp.sum(outputs**2)

    def scanned(params, scale):
        first = jnp.zeros((ROWS, UNITS))
        visit = lambda state, xs: episode(scale, params, state, xs)
        return jnp.sum(jax.lax.scan(visit, first, xs)[1])

    def written_out(params, scale):
        state, total = jnp.zeros((ROWS, UNITS)), jnp.zeros(())
        for x in xs:
            state, loss = episode(scale, params, state, x)
            total += loss
        return total

    def twice(loss):
        inner = lambda scale: jax.grad(loss)(params, scale)
        norm = lambda s: sum(jnp.sum(jnp.sin(d)) for d in jax.tree.leaves(inner(s)))
        return jax.jit(outer(norm))(jnp.asarray(1.3))

    np.testing.assert_allclose(twice(scanned), twice(written_out), rtol=1e-12)


@pytest.mark.fast("Offload*")
@pytest.mark.parametrize(
    "strategy", [Keep(), Recompute(2), Offload(Keep(), 2)], ids=str
)
def test_a_cell_may_sum_over_what_vmap_maps_over(strategy):
    """For example, a normalization over a named axis needs such a sum."""

    def apply(params, inputs, state, key=None):
        state = jnp.tanh(inputs @ params["w"] + state)
        state = state - jax.lax.pmean(state, "episodes")
        return state, state

    cell = jaxrnn.FunctionCell(apply, UNITS, UNITS)
    kernel, xs = jnp.eye(UNITS) * 0.7, episodes()

    def one(params, xs):
        bound = cell.bind(params)
        return jaxrnn.dynamic_rnn(bound, xs, dtype=xs.dtype, swap_memory=strategy)[0]

    def loss(kernel):
        mapped = jax.vmap(one, (None, 0), axis_name="episodes")
        return jnp.sum(mapped({"w": kernel}, xs) ** 3)

    def by_hand(kernel):
        state, total = jnp.zeros((EPISODES, ROWS, UNITS)), jnp.zeros(())
        for t in range(TIME):
            state = jnp.tanh(xs[:, :, t] @ kernel + state)
            state = state - jnp.mean(state, 0, keepdims=True)
            total += jnp.sum(state**3)
        return total

    want = jax.grad(by_hand)(kernel)
    np.testing.assert_allclose(jax.grad(loss)(kernel), want, rtol=1e-12)
