"""Gradients in bfloat16: sums over many steps have the accuracy of float32."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from helpers import StepByStep, drawn
from jax.flatten_util import ravel_pytree

import jaxrnn

TIME, ROWS, DEPTH, UNITS = 2000, 2, 3, 4
LIMIT = 0.02


def cast(tree, dtype):
    """Cast the floating-point arrays to `dtype`."""
    is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    return jax.tree.map(lambda x: jnp.asarray(x, dtype) if is_float(x) else x, tree)


def relative_error(got, want):
    """The norm of the difference relative to the norm, over all leaves."""
    got, want = (ravel_pytree(cast(tree, jnp.float64))[0] for tree in (got, want))
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def total(tree):
    """The sum over all leaves, in float32."""
    return sum(jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(tree))


def error_in_bfloat16(loss, *given):
    """The relative error of the bfloat16 gradients of `loss(*given)`."""
    low = cast(given, jnp.bfloat16)
    gradients = jax.jit(jax.grad(loss, tuple(range(len(given)))))
    return relative_error(gradients(*low), gradients(*cast(low, jnp.float32)))


CELL = jaxrnn.BasicRNNCell(UNITS)


def data():
    """Parameters, inputs `[ROWS, TIME, DEPTH]`, and the first state of each row."""
    x = 0.3 * np.random.default_rng(0).normal(size=(ROWS, TIME, DEPTH))
    params = drawn(CELL, x[:, 0], jnp.float32, scale=0.3)
    return params, jnp.asarray(x, jnp.float32), jnp.ones((1, UNITS))


def by_dynamic_rnn(params, x, state, wrap=lambda cell: cell, **options):
    cell, state = wrap(CELL.bind(params)), jnp.broadcast_to(state, (ROWS, UNITS))
    if "resets" in options:
        options["reset_state"] = state
    options |= {"initial_state": state, "implementation": "scan"}
    return jaxrnn.dynamic_rnn(cell, x, **options)[0]


def by_raw_rnn(params, x, state):
    def loop_fn(time, output, cell_state, loop_state):
        if output is None:
            cell_state = jnp.broadcast_to(state, (ROWS, UNITS))
        at = jnp.minimum(time, TIME - 1)
        inputs = jax.lax.dynamic_index_in_dim(x, at, 1, keepdims=False)
        # The loop function reads its own parameters.
        inputs = inputs + params["bias"][:DEPTH][None]
        return time >= TIME, inputs, cell_state, output, None

    cell = CELL.bind(params)
    return jaxrnn.raw_rnn(cell, loop_fn, max_time=TIME)[0].stack()


LOOPS = {
    "dynamic": by_dynamic_rnn,
    # The cell is no pytree: it captures its arrays.
    "protocol": partial(by_dynamic_rnn, wrap=StepByStep),
    "raw": by_raw_rnn,
    "parts": partial(by_dynamic_rnn, swap_memory=jaxrnn.memory.Recompute(7)),
    # The gradient of the state sums 1000 terms for each row.
    "resets": partial(by_dynamic_rnn, resets=np.arange(TIME)[None] % 2 == [[0], [0]]),
}


@pytest.mark.fast("protocol")
@pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
def test_every_loop_sums_in_float32(run):
    assert error_in_bfloat16(lambda *given: total(run(*given)), *data()) < LIMIT


@pytest.mark.slow
def test_derivatives_of_derivatives_are_those_of_the_cell():
    """The arrays that a step reads have their copies' tangents, in every order."""
    params, x, state = cast(data(), jnp.bfloat16)

    def second(dtype):
        others = cast((x[:, :5], state), dtype)
        loss = lambda params: total(by_dynamic_rnn(params, *others))
        given = cast(params, dtype)
        ones = jax.tree.map(jnp.ones_like, given)
        return jax.jvp(jax.grad(loss), (given,), (ones,))[1]

    assert relative_error(second(jnp.bfloat16), second(jnp.float32)) < 2 * LIMIT


# One case for each derivative rule of a loop. Layer normalization amplifies rounding.
SUMMED = "lstm_projection mlstm lru rg_lru min_gru short_conv dropout"


@pytest.mark.slow
@pytest.mark.parametrize("name", SUMMED.split())
def test_cells_have_the_gradients_of_float32(name):
    """The runs have parts, and resets that are all false."""
    case, resets = CASES[name], jnp.zeros((ROWS, TIME), bool)
    x = np.random.default_rng(0).normal(size=(ROWS, TIME, *case.inputs.shape[1:]))
    x = cast(jnp.asarray(x), jnp.bfloat16)

    def loss(params):
        dtype = jax.tree.leaves(params)[0].dtype
        cell, given = case.cell.bind(params, case.key), (cast(x, dtype), [TIME, 1300])
        options = {"dtype": dtype, "swap_memory": True, "resets": resets}
        if name == "mlstm":  # In bfloat16, the memory would round at each step.
            options["initial_state"] = case.cell.zero_state(ROWS, jnp.float32)
        return total(jaxrnn.dynamic_rnn(cell, *given, **options)[0])

    params = case.cell.init(jax.random.key(0), cast(x[:, 0], jnp.float32), jnp.float32)
    assert error_in_bfloat16(loss, params) < LIMIT
