"""A driver has the same derivatives inside of a scan and of `vmap`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn

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
    cell, xs = GRUCell(UNITS), data()
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
