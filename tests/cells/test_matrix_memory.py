"""Matrix memories, with projections and without, and xLSTM against its authors' code.

`test_against_numpy.py` compares the memories with loops of their equations.
"""

import dataclasses
import functools
import pathlib

import chex
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    assert_near,
    bound,
    differentiated,
    drawn,
    largest_error,
    with_prefix,
)

import jaxrnn
from jaxrnn import (
    DeltaInputs,
    DeltaMemoryCell,
    LinearAttentionInputs,
    LinearAttentionMemoryCell,
    MLSTMCell,
    SLSTMCell,
)

FILE = np.load(pathlib.Path(__file__).parents[1] / "golden" / "xlstm.npz")
F32 = jnp.float32
FORMS = {"steps": "scan", "chunks": None}


def run(cell, xs, *args, **options):
    return jaxrnn.dynamic_rnn(cell, xs, *args, dtype=xs.dtype, **options)


# xLSTM.


@pytest.mark.fast("steps-slstm")
@pytest.mark.parametrize(
    "case", sorted({name.split("/")[0] for name in FILE} - {"init"})
)
@pytest.mark.parametrize("form", FORMS)
def test_same_as_the_packages(case, form):
    cell = SLSTMCell(6, 2) if case[0] == "s" else MLSTMCell(6, 2, chunk_size=4)
    golden = with_prefix(f"{case}/", FILE)
    tree = jax.tree.structure(cell.zero_state(2, float))

    def results(given):
        params, state = (with_prefix(f"{of}/", given) for of in ("params", "state"))
        state = tree.unflatten(state.values()) if state else None
        options = {"initial_state": state, "implementation": FORMS[form]}
        return run(cell.bind(params), given["x"], **options)

    slopes = with_prefix("grads/", golden)
    got = helpers.squared(results, {name: golden[name] for name in slopes})
    finals = tree.unflatten(with_prefix("final/", golden).values())
    assert_near(got, ((golden["outputs"], finals), (slopes,)), tolerance=1e-13)


def test_the_biases_start_as_in_the_package():
    x = jax.ShapeDtypeStruct((1, 3), F32)
    bias_of = lambda make: make(6, 2).init(jax.random.key(0), x)["bias"]
    mlstm, slstm = jax.jit(lambda: (bias_of(MLSTMCell), bias_of(SLSTMCell)))()
    np.testing.assert_allclose(mlstm[-2:], FILE["init/mlstm_f"])
    assert not mlstm[:-4].any()
    assert mlstm[-4:-2].all()
    np.testing.assert_allclose(slstm, FILE["init/slstm"], rtol=1e-6)


def test_the_first_step_of_an_slstm_with_a_closed_input_gate():
    """An empty state takes what is written, however small its weight is."""
    cell, x = SLSTMCell(2), jnp.ones((1, 1, 3), F32)
    params = drawn(cell, x[:, 0])
    _, _, z, o = jnp.split(params["bias"] + params["kernel"].sum(0), 4)
    params["bias"] = params["bias"].at[:2].add(-300)
    got, _ = run(cell.bind(params), x)
    np.testing.assert_allclose(got[0, 0], jax.nn.sigmoid(o) * jnp.tanh(z), rtol=1e-5)


# At every step, or at some steps, where -1e38 makes a sum infinite.
SHUT = [(-np.inf, "bias", -1), (-1e6, "kernel", (0, -1)), (-1e38, "kernel", (0, -1))]


@pytest.mark.fast("-1000000.0-*")
@pytest.mark.parametrize(("gate", "name", "index"), SHUT)
def test_shut_forget_gates(gate, name, index):
    """Chunks have finite gradients, and almost what single steps give in float64."""
    x = np.random.default_rng(0).normal(size=(96, 3))
    x[:, 0] = np.arange(96) % 7 == 0
    cell = MLSTMCell(4, chunk_size=48)
    params = drawn(cell, jax.ShapeDtypeStruct((1, 3), F32))
    params[name] = params[name].at[index].set(gate)
    outputs = lambda params, x: run(cell.bind(params), x)[0]
    got, gradients = differentiated(outputs, params, jnp.asarray(x[None], F32))
    chex.assert_tree_all_finite(gradients)
    exact = jax.tree.map(lambda p: p.astype(np.float64), params)
    want, _ = run(cell.bind(exact), x[None], implementation="scan")
    np.testing.assert_allclose(got, want, atol=5e-4)


@pytest.mark.slow
def test_a_memory_that_overflowed_ends_at_a_reset():
    """In an earlier chunk; gradients after the reset are those of a scan."""
    cell = bound(MLSTMCell(4, 2, chunk_size=4), dtype="float32")
    x = np.random.default_rng(0).normal(size=(2, 12, 3)).astype(np.float32)
    x[:, 1:3] = 1e20  # The products k v overflow, the products with the kernel do not.
    resets = np.tile(np.arange(12) == 6, (2, 1))

    @functools.partial(jax.jit, static_argnums=1)
    @jax.grad
    def gradient(x, implementation):
        outputs, _ = run(cell, x, resets=resets, implementation=implementation)
        return jnp.sum(outputs[:, 6:] ** 2)

    got, want = (gradient(x, name)[:, 6:] for name in (None, "scan"))
    assert jnp.isfinite(got).all()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.loops
@pytest.mark.slow
def test_no_later_step_reaches_the_gradients_of_earlier_steps():
    """It is not finite, and in the same chunk."""
    x = np.random.default_rng(0).normal(size=(1, 20, 3)).astype(np.float32)
    cell = bound(MLSTMCell(16, 2), dtype="float32")
    outputs = lambda cell, x: run(cell, x)[0][:, :15]
    want = differentiated(outputs, cell, jnp.asarray(x))
    x[:, 15, 0] = np.nan
    got = differentiated(outputs, cell, jnp.asarray(x))
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-5)


# Memories without projections.

ROWS, TIME, HEADS, KEY, VALUE = 3, 11, 4, 3, 2
LENGTHS = np.array([11, 0, 6])
RNG = np.random.default_rng(0)
SHAPES = [(2, KEY), (2, KEY), (HEADS, VALUE), (HEADS,), (HEADS,)]
INPUTS = [RNG.normal(size=(ROWS, TIME, *shape)) for shape in SHAPES]
DELTA = DeltaInputs(*INPUTS[:3], -np.abs(INPUTS[3]), 1 / (1 + np.exp(-INPUTS[4])))
# Decays from almost 1 to almost 0, of which -inf is the edge.
G = -np.exp(RNG.uniform(-6, 4, size=(ROWS, TIME, HEADS, KEY)))
G[RNG.random(G.shape) < 0.05] = -np.inf
SIZES = HEADS, KEY, VALUE, 2  # Two heads share the keys.
WITH_KEY_DECAYS = {
    "linear": (
        LinearAttentionMemoryCell(*SIZES, key_decay=True, chunk_size=16),
        LinearAttentionInputs(*INPUTS[:3], G),
    ),
    "delta": (
        DeltaMemoryCell(*SIZES, key_decay=True, chunk_size=16),
        DELTA._replace(g=G),
    ),
}


def bound_to(cell, inputs):
    """The cell with random parameters, if it has any."""
    return cell.bind(drawn(cell, jax.tree.map(lambda x: x[:, 0], inputs)))


def unit(x):
    """Vectors of length 1."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def fast_and_slow(name, least):
    """A cell, and inputs whose decays are fast for 16 steps and then slow, twice."""
    rng, shape = np.random.default_rng(0), (2, 96, 2)
    fast = np.arange(96) % 48 < 16
    draw = lambda *size: rng.normal(size=(*shape, *size))
    q, k = abs(draw(8)), unit(draw(8))
    v, gate = draw(8), 1 / (1 + np.exp(-draw()))
    g = np.where(fast[:, None, None], least, -0.01) - 1e-3 * abs(draw(8))
    if name == "linear":
        inputs = LinearAttentionInputs(q, k, v, g[..., 0])
        return LinearAttentionMemoryCell(2, 8, 8, chunk_size=48), inputs
    cell = DeltaMemoryCell(2, 8, 8, key_decay=True, chunk_size=48)
    return cell, DeltaInputs(q, k, v, g, gate)


LEAST = {"linear": -20.0, "delta": -87.0}


@pytest.mark.fast("linear")
@pytest.mark.parametrize("name", LEAST)
def test_fast_decays_round_away_no_slow_ones(name):
    """Float32 chunks against single steps in float64, in spans that begin at resets."""
    cell, inputs = fast_and_slow(name, LEAST[name])
    resets = np.arange(96)[None] == [[7], [60]]

    def results(dtype, **options):
        def run(inputs):
            cell_of, driver = bound_to(cell, inputs), jaxrnn.dynamic_rnn
            return driver(cell_of, inputs, dtype=dtype, resets=resets, **options)

        given = jax.tree.map(lambda x: jnp.asarray(x, dtype), inputs)
        return differentiated(run, given)

    both = results(F32), results(float, implementation="scan")
    leaves = (map(np.asarray, jax.tree.leaves(tree)) for tree in both)
    assert largest_error(zip(*leaves, strict=True)) < 5e-6


def test_a_decay_in_place_of_its_logarithm_warns():
    """Where it is known. Some growth, no decay and traced values are no mistakes."""
    cell, inputs = WITH_KEY_DECAYS["linear"]
    run = lambda x: jaxrnn.dynamic_rnn(bound_to(cell, x), x, dtype=float)
    some = np.where(np.arange(KEY) == 0, 0.1, -0.1)
    for g in G, np.zeros_like(G), np.broadcast_to(some, G.shape):
        run(inputs._replace(g=g))
    decays = inputs._replace(g=np.exp(G))
    with pytest.warns(UserWarning, match="`g`"):
        run(decays)
    jax.jit(run)(decays)


@pytest.mark.fast("chunks")
@pytest.mark.parametrize("form", FORMS)
def test_nan_stays_where_no_later_step_reads_it(form):
    """In padding, before a reset, and in a state that step 0 resets."""
    cell = DeltaMemoryCell(*SIZES, chunk_size=4).bind({})
    resets = np.zeros((ROWS, TIME), bool)
    resets[[0, 2], [6, 0]] = True
    v, state = DELTA.v.copy(), RNG.normal(size=(ROWS, HEADS, KEY, VALUE))
    bad_state = state.copy()
    v[0, 2] = v[1] = v[2, 4:] = bad_state[2] = np.nan
    options = {"resets": resets, "implementation": FORMS[form]}
    run = lambda v, state: jaxrnn.dynamic_rnn(
        cell, DELTA._replace(v=v), LENGTHS, state, **options
    )
    (got, got_last), (want, last) = run(v, bad_state), run(DELTA.v, state)
    # Row 0 is reset at step 6; row 2 ends after step 5, with zeros beyond.
    want = want.at[0, 2:6].set(np.nan).at[2, 4:6].set(np.nan)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(got_last, last.at[2].set(np.nan), 1e-12, 1e-14)


@pytest.mark.loops
@pytest.mark.fast("linear-*")
@pytest.mark.parametrize(("name", "size"), [("linear", 4), ("delta", 16)])
def test_a_query_spoils_no_gradient_of_another_span(name, size):
    """The step does not change the state, and a reset follows."""
    cell, inputs = WITH_KEY_DECAYS[name]
    cell = dataclasses.replace(cell, chunk_size=size)
    resets = np.zeros((ROWS, TIME), bool)
    resets[0, 8] = True

    def loss(cell, inputs):
        outputs, _ = jaxrnn.dynamic_rnn(cell, inputs, dtype=float, resets=resets)
        return jnp.sum(outputs[0, 8:] ** 2)

    gradient = jax.jit(jax.grad(loss, (0, 1)))
    spoiled = INPUTS[0].copy()
    spoiled[0, 3] = np.nan
    given = bound_to(cell, inputs), inputs
    got = gradient(given[0], inputs._replace(q=spoiled))
    assert_near(got, gradient(*given), tolerance=1e-12)


@pytest.mark.loops
def test_a_narrow_state_is_rounded_after_the_last_step():
    """A bfloat16 sum of ones, rounded at every step, ends at 256."""
    cell = LinearAttentionMemoryCell(1, 1, 1, scale=1.0, chunk_size=64)
    one = jnp.ones((1, 1000, 1, 1), jnp.bfloat16)
    inputs = LinearAttentionInputs(one, one, one, 0 * one[..., 0])
    run = lambda x: jaxrnn.dynamic_rnn(cell.bind({}), x, [1000], dtype=one.dtype)[1]
    assert run(inputs).item() == 1000


def test_a_reset_within_the_middle_chunk():
    """Three chunks of 3 steps; the state after the reset goes on to the last."""
    cell = LinearAttentionMemoryCell(*SIZES, chunk_size=3)
    inputs = LinearAttentionInputs(*(x[:, :9] for x in DELTA[:4]))
    resets = np.zeros((ROWS, 9), bool)
    resets[0, 5] = True
    options = {"resets": resets, "return_states": True, "dtype": float}
    run = functools.partial(jaxrnn.dynamic_rnn, cell.bind({}), inputs, **options)
    assert_near(run(), run(implementation="scan"), tolerance=1e-12)


@pytest.mark.loops
@pytest.mark.parametrize(("rows", "is_scanned"), [(8, False), (1, True)])
def test_explain_says_whether_a_call_is_scanned(rows, is_scanned):
    """A small memory is scanned in calls without derivatives."""
    cell = DeltaMemoryCell(2, 64, 64)
    shape = lambda size: jax.ShapeDtypeStruct((rows, 40, *size), F32)
    inputs = DeltaInputs(*map(shape, cell.input_sizes))
    found = jaxrnn.explain(cell.bind({}), inputs, dtype=F32)
    reason = "they are faster with derivatives; without derivatives, a faster scan runs"
    assert (found.loop, found.reason) == ("chunks", reason if is_scanned else "")
