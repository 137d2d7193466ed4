"""Dtypes of cells, memories wider than inputs, and sums over many bfloat16 steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from helpers import StepByStep, differentiated, drawn
from jax.flatten_util import ravel_pytree

import jaxrnn
from jaxrnn import LRUCell, LSTMCell, LSTMStateTuple, RGLRUCell, testing
from jaxrnn.contrib import IndyLSTMCell
from jaxrnn.testing._oracle import weighted_sum

X = np.random.default_rng(0).normal(size=(4, 30, 3)).astype(np.float32)


def dtypes(tree):
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("basic_rnn", "bfloat16"), ("lstm_projection", "float16"), ("gru", "bfloat16")],
)
def test_laws_in_low_precision(name, dtype):
    case = CASES[name]
    setup = testing.make_setup(case.cell, case.inputs, dtype, case.key)
    assert dtypes(setup.differentiated) == {dtype}
    testing.runs_as_a_loop(setup)


MIXED = {
    "projection": LSTMCell(4, num_proj=2, proj_clip=0.9),
    "independent": IndyLSTMCell(4),
}


@pytest.mark.fast("projection")
@pytest.mark.parametrize("cell", MIXED.values(), ids=MIXED)
def test_memory_in_float32_under_bfloat16(cell):
    """It is nearer to the truth than a memory in bfloat16."""
    params = drawn(cell, X[:, 0].astype(jnp.bfloat16))

    def run(params, dtype, of_c):
        zeros = cell.zero_state(4, dtype)
        state = LSTMStateTuple(zeros.c.astype(of_c), zeros.h)
        x, lengths = X.astype(jnp.bfloat16).astype(dtype), [30, 7, 0, 1]
        return jaxrnn.dynamic_rnn(cell.bind(params), x, lengths, state, dtype)

    half, single, double = jnp.bfloat16, jnp.float32, jnp.float64
    of_truth = lambda: run(jax.tree.map(double, params), double, double)[0]
    truth, narrow = jax.jit(lambda: (of_truth(), run(params, half, half)[0]))()
    mixed = lambda params: run(params, half, single)
    total = lambda results: weighted_sum(results[0])
    (outputs, state), gradients = differentiated(mixed, params, total=total)
    assert dtypes((gradients, outputs, state.h)) == {"bfloat16"}
    assert state.c.dtype == single
    assert not np.isin(state.c[0], state.c[0].astype(half)).all()
    error = lambda outputs: np.abs(outputs.astype(np.float64) - truth).mean()
    assert error(outputs) < error(narrow)


@pytest.mark.filterwarnings("ignore:`dtype` is float64, but JAX uses float32")
def test_without_x64_float64_is_float32():
    with jax.enable_x64(False):
        cell, x = LSTMCell(4, dtype="float64"), np.ones((4, 5, 3))
        cell = cell.bind(cell.init(jax.random.key(0), x[:, 0]))
        lengths = np.array([2**32 + 1] * 4)
        outputs, _ = jaxrnn.dynamic_rnn(cell, x, lengths, dtype="float64")
        assert outputs.dtype == jnp.float32
        assert outputs[:, -1].any()


LINEAR = {
    "min_gru": (jaxrnn.MinGRUCell(8), "bfloat16", 0.02),
    "lru": (LRUCell(8, min_radius=0.99, max_radius=0.9999), "float32", 1e-4),
    "rg_lru": (RGLRUCell(8, 2, min_radius=0.999, max_radius=0.9999), "float32", 1e-4),
}


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "dtype", "limit"), LINEAR.values(), ids=LINEAR)
def test_long_linear_recurrences(cell, dtype, limit):
    """Both passes are accurate with factors near 1 and a float32 state."""
    x = np.random.default_rng(0).normal(size=(1, 500, 8)).astype(jnp.dtype(dtype))
    params = cell.init(jax.random.key(0), x[:, 0])
    if "bias" in params:  # The update gates of a MinGRU are almost shut.
        params["kernel"] /= 10
        params["bias"] = params["bias"].at[:8].set(-5)

    def run(params, x, of_state):
        state = cell.zero_state(1, of_state)
        outputs, last = jaxrnn.dynamic_rnn(cell.bind(params), x, None, state, x.dtype)
        assert (outputs.dtype, dtypes(last)) == (x.dtype, {of_state})
        return jnp.mean(jnp.sin(outputs.astype(of_state))), outputs

    graded = jax.jit(jax.grad(run, (0, 1), has_aux=True), static_argnums=2)
    wide = lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree)
    got = wide(graded(params, x, "float32"))
    want = graded(*wide((params, x)), "float64")
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.linalg.norm(g - w) <= limit * np.linalg.norm(w)


# Gradients in bfloat16: sums over many steps have the accuracy of float32.

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
