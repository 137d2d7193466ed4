"""xLSTM and the delta rule: against the authors' packages, and a NumPy loop."""

import dataclasses
import functools
import pathlib
import re

import chex
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, bound, differentiated, drawn, with_prefix

import jaxrnn
from jaxrnn import DeltaInputs, DeltaMemoryCell, MLSTMCell, SLSTMCell
from jaxrnn._base.math import cast
from jaxrnn.testing._oracle import weighted_sum

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FILE = {**np.load(GOLDEN / "xlstm.npz"), **np.load(GOLDEN / "delta_rule.npz")}
BATCH, TIME, DEPTH = 4, 10, 3
UNITS, HEADS, KEY = 6, 2, 4
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(BATCH, TIME, DEPTH))
STATE = RNG.normal(size=(BATCH, HEADS, KEY, UNITS // HEADS))
START = RNG.normal(size=STATE.shape)
LENGTHS = np.array([TIME, 0, 7, 1])
RESETS = np.arange(TIME) % 3 == np.arange(BATCH)[:, None]
FORMS = {"steps": "scan", "chunks": None}


def run(cell, xs, *args, **kwargs):
    return jaxrnn.dynamic_rnn(cell, xs, *args, dtype=xs.dtype, **kwargs)


@jax.numpy_rank_promotion("allow")
def run_delta(implementation, params, x, state, factor=1, **options):
    """A `DeltaMemoryCell` in the projections and the norm of the packages."""
    keys, size = HEADS * KEY, UNITS // HEADS
    z = x @ params["kernel"] + params["bias"]
    ends = np.cumsum([keys, keys, UNITS, HEADS, HEADS])
    q, k, v, b, *gates = jnp.split(z, ends[: 5 if "a_log" in params else 3], axis=-1)
    q, k, v = (jax.nn.silu(y).reshape(*y.shape[:2], HEADS, -1) for y in (q, k, v))
    q, k = (y / jnp.sqrt(jnp.sum(y * y, -1, keepdims=True) + 1e-6) for y in (q, k))
    g = jnp.zeros_like(b)
    if gates:
        g = -jnp.exp(params["a_log"]) * jax.nn.softplus(gates[0])
    inputs = DeltaInputs(q, k, v, g, factor * jax.nn.sigmoid(b))
    cell = DeltaMemoryCell(HEADS, KEY, size, chunk_size=4).bind({})
    options |= {"initial_state": state, "implementation": implementation}
    h, last = jaxrnn.dynamic_rnn(cell, inputs, dtype=x.dtype, **options)
    h = h / jnp.sqrt(jnp.mean(h * h, -1, keepdims=True) + 1e-5) * params["norm_scale"]
    h = h.reshape(*x.shape[:2], UNITS)
    return (h * jax.nn.silu(gates[1]) if gates else h), last


@pytest.mark.fast("*-mlstm", "steps-slstm", "*-gated_neg", "chunks-delta")
@pytest.mark.parametrize(
    "case", sorted({name.split("/")[0] for name in FILE} - {"init"})
)
@pytest.mark.parametrize("form", FORMS)
def test_same_as_the_packages(case, form):
    cell = (SLSTMCell if case[0] == "s" else MLSTMCell)(UNITS, HEADS)
    if case[0] == "m":
        cell = dataclasses.replace(cell, chunk_size=4)
    is_delta = "lstm" not in case
    if is_delta:
        cell = DeltaMemoryCell(HEADS, KEY, UNITS // HEADS)
    golden = with_prefix(f"{case}/", FILE)
    tree = jax.tree.structure(cell.zero_state(2, XS.dtype))

    def results(given):
        params, state = (with_prefix(f"{of}/", given) for of in ("params", "state"))
        state = tree.unflatten(state.values()) if state else None
        if is_delta:
            factor = 2 if "neg" in case else 1
            return run_delta(FORMS[form], params, given["x"], state, factor)
        options = {"initial_state": state, "implementation": FORMS[form]}
        return run(cell.bind(params), given["x"], **options)

    slopes = with_prefix("grads/", golden)
    got = helpers.squared(results, {name: golden[name] for name in slopes})
    finals = tree.unflatten(with_prefix("final/", golden).values())
    assert_near(got, ((golden["outputs"], finals), (slopes,)), tolerance=1e-13)


def test_a_narrow_scale_keeps_the_memory():
    """The memory is `exp(m) c` and `exp(m) n`, also after m was rounded."""
    rng = np.random.default_rng(0)
    sizes = {"c": (2, HEADS, 3, 4), "n": (2, HEADS, 3), "m": (2, HEADS)}
    draws = {name: jnp.asarray(rng.normal(size=s)) for name, s in sizes.items()}
    state = jaxrnn.MLSTMState(**draws | {"m": 30 * draws["m"]})
    like = jax.tree.map(lambda x: x.astype(jnp.bfloat16), state)
    got = cast(MLSTMCell(8, HEADS).rule.stored(like, state), jnp.float64)
    shift = jnp.exp(got.m - state.m)
    near = functools.partial(np.testing.assert_allclose, rtol=1e-2)
    near(got.c * shift[..., None, None], state.c)
    near(got.n * shift[..., None], state.n)


def test_the_biases_start_as_in_the_package():
    x = jax.ShapeDtypeStruct((1, 3), jnp.float32)
    bias_of = lambda make: make(UNITS, HEADS).init(jax.random.key(0), x)["bias"]
    mlstm, slstm = map(bias_of, (MLSTMCell, SLSTMCell))
    np.testing.assert_allclose(mlstm[-2:], FILE["init/mlstm_f"])
    assert not mlstm[:-4].any()
    assert mlstm[-4:-2].all()
    np.testing.assert_allclose(slstm, FILE["init/slstm"], rtol=1e-6)


@pytest.mark.fast("chunks-4")
@pytest.mark.parametrize("size", [4, 16, None], ids=["chunks-4", "chunks-16", "steps"])
def test_nan_stays_where_no_later_step_reads_it(size):
    """In padding, before a reset, and in a state that step 0 resets."""
    form = FORMS["chunks" if size else "steps"]
    params = with_prefix("gated_neg/params/", FILE)
    resets = np.zeros((BATCH, TIME), bool)
    resets[[0, 2], [6, 0]] = True
    bad, bad_state = XS.copy(), STATE.copy()
    bad[0, 2] = bad[1] = bad[2, 5:] = bad[3, 1:] = bad_state[2] = np.nan
    options = {"sequence_length": LENGTHS, "resets": resets}
    both = jax.jit(lambda x, s: run_delta(form, params, x, s, **options))
    (got, got_last), (want, last) = both(bad, bad_state), both(XS, STATE)
    # The projections of a layer also read the padding.
    is_valid = (np.arange(TIME) < LENGTHS[:, None])[..., None]
    got, want = (jnp.where(is_valid, y, 0) for y in (got, want))
    # Row 0 is reset at step 6; row 2 ends after step 6, with zeros beyond.
    want = want.at[0, 2:6].set(np.nan).at[2, 5:7].set(np.nan)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(got_last, last.at[2].set(np.nan), 1e-12, 1e-14)


@pytest.mark.parametrize("factor", [1, 2])
def test_a_value_changes_its_sign_only_if_b_may_be_2(factor):
    """With v = 0, b = 2 makes the memory count steps modulo 2; b = 1 clears it."""
    cell, one = DeltaMemoryCell(1, 1, 1), jnp.ones((1, 5, 1, 1))
    number = one[..., 0]
    inputs = DeltaInputs(one, one, 0 * one, 0 * number, factor * number)
    got, _ = jaxrnn.dynamic_rnn(
        cell.bind({}), inputs, initial_state=one[:, :1], dtype=one.dtype
    )
    want = [-1, 1, -1, 1, -1] if factor == 2 else [0] * 5
    np.testing.assert_allclose(got[0, :, 0, 0], want, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_all_gates_give_finite_results_in_float32(form):
    """Gates from closed to values far beyond the range of exp."""
    cell = MLSTMCell(2, chunk_size=4)
    x = jnp.linspace(-50, 50, 10, dtype=jnp.float32)
    params = cell.init(jax.random.key(0), x[:, None])
    params["kernel"] = params["kernel"].at[:, -2:].set(1)

    def loss(params, gates):
        params = params | {"bias": params["bias"].at[-2:].set(gates)}
        given = cell.bind(params), x[None, :, None]
        return weighted_sum(run(*given, implementation=FORMS[form]))

    gates = jnp.asarray([[-300, -300], [300, -300], [300, 300], [-300, 300]], x.dtype)
    gradients = jax.vmap(jax.value_and_grad(loss, (0, 1)), (None, 0))
    chex.assert_tree_all_finite(jax.jit(gradients)(params, gates))


def test_the_first_step_of_an_slstm_with_a_closed_input_gate():
    """An empty state takes what is written, however small its weight is."""
    cell, x = SLSTMCell(2), jnp.ones((1, 1, 3), jnp.float32)
    params = drawn(cell, x[:, 0])
    _, _, z, o = jnp.split(params["bias"] + params["kernel"].sum(0), 4)
    params["bias"] = params["bias"].at[:2].add(-300)
    got, _ = run(cell.bind(params), x)
    np.testing.assert_allclose(got[0, 0], jax.nn.sigmoid(o) * jnp.tanh(z), rtol=1e-5)


# At every step, or at some steps, where -1e38 makes a sum infinite.
SHUT = [(gate, ("bias", -1)) for gate in (-100, -1e6, -np.inf)]
SHUT += [(gate, ("kernel", (0, -1))) for gate in (-100, -1e6, -1e38)]


@pytest.mark.fast("-1000000.0-place4")
@pytest.mark.parametrize(("gate", "place"), SHUT)
def test_shut_forget_gates(gate, place):
    """Chunks have finite gradients, and almost what single steps give in float64."""
    x = np.random.default_rng(0).normal(size=(100, 3))
    x[:, 0] = np.arange(100) % 7 == 0
    cell, (name, index) = MLSTMCell(4), place
    params = drawn(cell, jax.ShapeDtypeStruct((1, 3), jnp.float32))
    params[name] = params[name].at[index].set(gate)
    outputs = lambda params, x: run(cell.bind(params), x)[0]
    got, gradients = differentiated(outputs, params, jnp.asarray(x[None], jnp.float32))
    chex.assert_tree_all_finite(gradients)
    exact = jax.tree.map(lambda p: p.astype(np.float64), params)
    want, _ = run(cell.bind(exact), x[None], implementation="scan")
    np.testing.assert_allclose(got, want, atol=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_an_empty_memory_without_steps_has_finite_gradients(form):
    """The scale of an empty memory may be -inf; rows without steps keep it."""
    cell = MLSTMCell(4, 2, chunk_size=2)
    x = np.random.default_rng(0).normal(size=(3, 5, 3))
    start = jax.tree.map(jnp.ones_like, cell.zero_state(3, x.dtype))
    start = start._replace(m=jnp.full_like(start.m, -jnp.inf))
    params = bound(cell).params

    @jax.jit
    @functools.partial(jax.grad, has_aux=True, argnums=(0, 1, 2))
    def gradients(params, x, state, options):
        options |= {"initial_state": state, "implementation": FORMS[form]}
        made = run(cell.bind(params), x, **options)
        return jnp.sum(made[0] ** 2), made

    late = np.arange(5) % np.array([[6], [4], [2]]) == 3
    for options in ({"mask": late}, {"sequence_length": np.array([0, 3, 5])}):
        got, (outputs, last) = gradients(params, x, start, options)
        chex.assert_tree_all_finite((got, outputs, last._replace(m=outputs)))
    chex.assert_trees_all_equal(*jax.tree.map(lambda x: x[0], (last, start)))


def test_a_memory_that_overflowed_ends_at_a_reset():
    """In an earlier chunk; gradients after the reset are those of a scan."""
    cell = bound(MLSTMCell(4, 2, chunk_size=4), dtype="float32")
    x = np.random.default_rng(0).normal(size=(2, 12, 3)).astype(np.float32)
    x[:, 1:3] = 1e20  # The products k v overflow, the products with the kernel do not.
    resets = np.tile(np.arange(12) == 6, (2, 1))

    def loss(x, implementation):
        outputs, _ = run(cell, x, resets=resets, implementation=implementation)
        return jnp.sum(outputs[:, 6:] ** 2)

    got, want = (jax.grad(loss)(x, name)[:, 6:] for name in (None, "scan"))
    assert jnp.isfinite(got).all()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.loops
@pytest.mark.parametrize("size", [3e37, np.nan])
def test_no_later_step_reaches_the_gradients_of_earlier_steps(size):
    """Its values or cotangents overflow, or it is not finite."""
    x = np.random.default_rng(0).normal(size=(1, 20, 3)).astype(np.float32)
    cell = bound(MLSTMCell(16, 2), dtype="float32")
    steps = slice(15)

    def outputs(cell, x):
        return run(cell, x)[0][:, steps]

    want = differentiated(outputs, cell, jnp.asarray(x))
    x[:, 15, 0] = size
    got = differentiated(outputs, cell, jnp.asarray(x))
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-5)


HALVED = {
    "mlstm_steps": (MLSTMCell(8, 2), "scan"),
    "mlstm": (MLSTMCell(8, 2, chunk_size=4), None),
    "slstm": (SLSTMCell(8, 2), None),
}


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "implementation"), HALVED.values(), ids=HALVED)
def test_half_precision_loses_little_with_a_state_of_float32(cell, implementation):
    exact, x = bound(cell), np.random.default_rng(1).normal(size=(2, 64, 3))
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), (exact, x))
    want, _ = run(*jax.tree.map(lambda leaf: leaf.astype(jnp.float64), half))
    state = cell.zero_state(2, jnp.float32)
    if isinstance(cell, SLSTMCell):
        state = state._replace(h=state.h.astype(jnp.bfloat16))
    options = {"initial_state": state, "implementation": implementation}
    got, last = run(*half, **options)
    chex.assert_trees_all_equal_shapes_and_dtypes(last, state)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(jnp.float64), want, rtol=0.01, atol=0.02)


@pytest.mark.loops
def test_tensorflow_lite_can_pad_all_arrays():
    """Its operator pads at most five axes."""
    params = with_prefix("gated_neg/params/", FILE)
    run = functools.partial(run_delta, FORMS["chunks"], state=None)
    text = jax.jit(run).lower(params, jnp.ones((2, 9, 3))).as_text()
    pads = re.findall(r"stablehlo\.pad .*-> tensor<(.*)x", text)
    assert pads
    assert max(sizes.count("x") + 1 for sizes in pads) <= 5


@pytest.mark.parametrize("make", [MLSTMCell, SLSTMCell])
def test_profiles_name_the_step(make):
    lowered = jax.jit(run).lower(bound(make(4, name="memory")), jnp.ones((2, 5, 3)))
    assert "memory/" in lowered.as_text(debug_info=True)


@pytest.mark.parametrize("returns_states", [False, True])
@pytest.mark.parametrize("reset", [4, 5])
def test_a_reset_within_the_middle_chunk(reset, returns_states):
    """Three chunks of 3 steps; the state after the reset goes on to the last."""
    cell = jaxrnn.LinearAttentionMemoryCell(2, 3, 2, chunk_size=3)
    x = [np.random.default_rng(i).normal(size=(2, 9, 2, 3)) for i in range(3)]
    inputs = jaxrnn.LinearAttentionInputs(
        x[0], x[1], x[2][..., :2], -(x[0][..., 0] ** 2)
    )
    resets = np.zeros((2, 9), bool)
    resets[0, reset] = True
    options = {"resets": resets, "return_states": returns_states, "dtype": float}
    run = functools.partial(jaxrnn.dynamic_rnn, cell.bind({}), inputs, **options)
    assert_near(run(), run(implementation="scan"), tolerance=1e-12)
