"""Dtypes: cells keep the input dtypes, and c may be wider than h."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from helpers import differentiated, drawn

import jaxrnn
from jaxrnn import LRUCell, LSTMCell, LSTMStateTuple, RGLRUCell, testing
from jaxrnn.contrib import IndyLSTMCell
from jaxrnn.testing._oracle import weighted_sum

X = np.random.default_rng(0).normal(size=(4, 30, 3)).astype(np.float32)


def dtypes(tree):
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


@pytest.mark.fast("basic_rnn-*")
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
    truth, _ = run(jax.tree.map(double, params), double, double)
    narrow, _ = run(params, half, half)
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


@pytest.mark.fast("min_gru")
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
