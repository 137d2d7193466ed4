"""A run keeps its derivatives wherever JAX takes the program around it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxrnn._autodiff.differentiable import differentiable
from jaxrnn._autodiff.jax_internals import zero_from_primal

import jaxrnn
from jaxrnn import FunctionCell, GRUCell
from jaxrnn.memory import Keep, Offload, Recompute

EPISODES, ROWS, TIME, UNITS = 3, 2, 5, 3


def data():
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

    outputs, state, _ = jaxrnn.raw_rnn(
        cell, loop_fn, max_time=TIME, swap_memory=strategy
    )
    return jnp.moveaxis(outputs.stack(), 0, 1), state


@pytest.mark.fast("*-Keep()")
@pytest.mark.parametrize("strategy", [Keep(), Offload(Recompute(2))], ids=str)
@pytest.mark.parametrize("driver", [by_dynamic_rnn, by_raw_rnn])
def test_backward_twice_through_a_scan_around_a_driver(driver, strategy):
    """JAX splits such a scan in two, but not the loops inside that end early."""
    cell, xs = GRUCell(UNITS), data()
    params = cell.init(jax.random.key(0), xs[0, :, 0])

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
        return jax.jit(jax.grad(norm))(jnp.asarray(1.3))

    np.testing.assert_allclose(twice(scanned), twice(written_out), rtol=1e-12)


@pytest.mark.parametrize(
    "strategy", [Keep(), Recompute(2), Offload(Keep(), 2)], ids=str
)
def test_a_cell_may_sum_over_what_vmap_maps_over(strategy):
    """As a normalization over a named axis does."""

    def apply(params, inputs, state, key=None):
        state = jnp.tanh(inputs @ params["w"] + state)
        state = state - jax.lax.pmean(state, "episodes")
        return state, state

    cell = FunctionCell(apply, UNITS, UNITS)
    kernel, xs = jnp.eye(UNITS) * 0.7, data()

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


def plus_three(x, y):
    return [jnp.sin(x), y + 3, jnp.cos(x)]


def tenfold(primals, tangents):
    """A derivative that is wrong on purpose, to see which rule is used."""
    (x, y), (d_x, _) = primals, tangents
    zero = zero_from_primal(y, symbolic_zeros=True)
    return plus_three(x, y), [10 * d_x, zero, 20 * d_x]


def test_the_rule_outlives_vmap_and_what_is_left_out():
    x, y = jnp.arange(4.0), jnp.int32(1)
    run = lambda x, y: differentiable(plus_three, tenfold, x, y)
    mapped = jax.vmap(run, (0, None), [0, None, 0])
    outs, out_tangents = jax.jvp(lambda x: mapped(x, y), (x,), (x,))
    np.testing.assert_array_equal(outs[0], jnp.sin(x))
    assert (outs[1], out_tangents[1].dtype) == (4, jax.dtypes.float0)
    np.testing.assert_array_equal(out_tangents[0], 10 * x)

    def last(x):
        visit = lambda c, x: (c, run(x, y)[2])
        return jax.lax.scan(visit, jnp.zeros(()), x)[1]

    np.testing.assert_array_equal(jax.jit(jax.jacobian(last))(x), 20 * jnp.eye(4))


def test_vmap_leaves_the_whole_numbers_apart_that_all_have_in_common():
    def fn(x, mine, ours):
        return [mine + 1, jnp.sin(x), ours + 1, x * mine.astype(x.dtype)]

    def rule(primals, tangents):
        d_x, at_rest, _ = tangents
        return fn(*primals), [at_rest, 10 * d_x, at_rest, 20 * d_x]

    run = lambda x, mine, ours: differentiable(fn, rule, x, mine, ours)
    x, mine, ours = jnp.arange(3.0), jnp.arange(3), jnp.asarray(5)
    mapped = jax.vmap(run, (0, 0, None), [0, 0, None, 0])  # None: one for all.
    outs, out_tangents = jax.jvp(lambda x: jax.jit(mapped)(x, mine, ours), (x,), (x,))
    for got, want in zip(outs, fn(x, mine, ours), strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(out_tangents[1], 10 * x)
    np.testing.assert_array_equal(out_tangents[3], 20 * x)
    twice = jax.vmap(mapped, (None, 0, 0), [0, 0, 0, 0])
    outs = twice(x, jnp.stack([mine, mine]), jnp.asarray([5, 6]))
    np.testing.assert_array_equal(outs[2], [6, 7])
    np.testing.assert_array_equal(outs[0], [mine + 1, mine + 1])
