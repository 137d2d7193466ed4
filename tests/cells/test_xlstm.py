"""The xLSTM cells against the authors' package, recorded in `golden/xlstm.npz`."""

import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, bound, differentiated, drawn, with_prefix

import jaxrnn
from jaxrnn import MLSTMCell, MLSTMState, SLSTMCell, SLSTMState, testing
from jaxrnn._cells import mlstm
from jaxrnn.testing._oracle import weighted_sum

FILE = np.load(pathlib.Path(__file__).parents[1] / "golden" / "xlstm.npz")
CASES = {
    "mlstm": (MLSTMCell(6, 2), MLSTMState),
    "mlstm_zero": (MLSTMCell(6, 2), MLSTMState),
    "slstm": (SLSTMCell(6, 2), SLSTMState),
    "slstm_zero": (SLSTMCell(6, 2), SLSTMState),
}


@pytest.fixture(params=[0, 4], ids=["steps", "chunks"])
def chunks(request, monkeypatch):
    """Single steps, and chunks of 4, the last of which is not full."""
    set_chunks(monkeypatch, request.param)


def set_chunks(monkeypatch, size):
    # Programs are cached by cell and shapes.
    jax.clear_caches()
    monkeypatch.setattr(mlstm, "chunk_size", lambda time: size)
    if not size:  # Then the driver scans the cell.
        steps_alone = jaxrnn.RNNCell.apply_sequence
        monkeypatch.setattr(MLSTMCell, "apply_sequence", steps_alone)


@pytest.mark.fast("chunks-mlstm", "steps-mlstm", "steps-slstm")
@pytest.mark.parametrize("case", CASES)
def test_same_as_the_package(case, chunks):
    cell, make = CASES[case]
    golden = with_prefix(f"{case}/", FILE)
    given = {
        "params": with_prefix("params/", golden),
        "x": golden["x"],
        "state": make(*with_prefix("state/", golden).values())
        if "state/0" in golden
        else None,
    }

    @jax.jit
    @jax.grad
    def gradients(given):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(run(given)))

    def run(given):
        return jaxrnn.dynamic_rnn(
            cell.bind(given["params"]),
            given["x"],
            initial_state=given["state"],
            dtype=jnp.float64,
        )

    outputs, final = run(given)
    want = make(*with_prefix("final/", golden).values())
    assert_near((outputs, final), (golden["outputs"], want), tolerance=1e-13)
    got = gradients(given)
    flat = {f"params/{name}": leaf for name, leaf in got["params"].items()}
    flat |= {f"state/{k}": leaf for k, leaf in enumerate(got["state"] or ())}
    flat["x"] = got["x"]
    want = with_prefix("grads/", golden)
    assert flat.keys() == want.keys()
    assert_near(flat, want, tolerance=1e-13)


@pytest.mark.parametrize("form", ["parallel", "chunkwise"])
def test_the_other_forms_of_the_package_agree(form):
    # The small number in the denominator has another scale in the package.
    want = FILE[f"mlstm_zero/{form}"]
    np.testing.assert_allclose(FILE["mlstm_zero/outputs"], want, atol=1e-5)


def test_the_biases_start_as_in_the_package():
    x = jax.ShapeDtypeStruct((1, 3), jnp.float32)
    bias = MLSTMCell(6, 2).init(jax.random.key(0), x)["bias"]
    np.testing.assert_allclose(bias[-2:], FILE["init/mlstm_f"])
    assert not bias[:-4].any()
    assert bias[-4:-2].all()
    bias = SLSTMCell(6, 2).init(jax.random.key(0), x)["bias"]
    np.testing.assert_allclose(bias, FILE["init/slstm"], rtol=1e-6)


LAWS = {law.__name__: law for law in testing.LAWS}


@pytest.mark.slow
@pytest.mark.parametrize("law", ["maps_over_an_axis", "differentiates_twice"])
def test_chunks_keep_the_laws(law, monkeypatch):
    set_chunks(monkeypatch, 2)  # The sequence has 3 steps.
    step = jax.ShapeDtypeStruct((4, 3), jnp.float64)
    LAWS[law](testing.make_setup(MLSTMCell(4, 2), step, jnp.float64))


@pytest.mark.slow
def test_chunks_give_what_single_steps_give(monkeypatch):
    rng, cell = np.random.default_rng(0), bound(MLSTMCell(6, 2))
    x = rng.normal(size=(11, 5, 3))
    lengths = np.array([11, 0, 5, 8, 1])
    x[np.arange(11)[:, None] >= lengths] = np.nan
    state = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape), cell.zero_state(5, jnp.float64)
    )

    def run(cell, x, state):
        return jaxrnn.dynamic_rnn(cell, x, lengths, state, time_major=True)

    set_chunks(monkeypatch, 4)
    got = differentiated(run, cell, x, state)
    set_chunks(monkeypatch, 0)
    assert_near(got, differentiated(run, cell, x, state), tolerance=1e-12)


@pytest.mark.slow
def test_all_gates_give_finite_results_in_float32(chunks):
    """Gates from closed to values far beyond the range of exp."""
    cell, x = MLSTMCell(2), jnp.linspace(-50, 50, 10, dtype=jnp.float32)
    params = cell.init(jax.random.key(0), x[:, None])
    params["kernel"] = params["kernel"].at[:, -2:].set(1)

    def loss(params, gates):
        params = params | {"bias": params["bias"].at[-2:].set(gates)}
        run = jaxrnn.dynamic_rnn(cell.bind(params), x[None, :, None], dtype=x.dtype)
        return weighted_sum(run)

    gates = jnp.asarray([[-300, -300], [300, -300], [300, 300], [-300, 300]], x.dtype)
    gradients = jax.vmap(jax.value_and_grad(loss, (0, 1)), (None, 0))
    chex.assert_tree_all_finite(jax.jit(gradients)(params, gates))


def one_head_by_its_equations(params, x):
    """The outputs of an `MLSTMCell` with one head, `[time, units]`, in float64."""
    z = x @ np.asarray(params["kernel"], np.float64)
    z, units = z + np.asarray(params["bias"], np.float64), z.shape[1] // 4
    sigmoid = lambda x: np.exp(-np.logaddexp(0, -x))
    c, n, outputs = np.zeros((units, units)), np.zeros(units), []
    for step in z:
        q, k, v, o = np.split(step[:-2], 4)
        (i, f), k = step[-2:], k / units**0.5
        c = sigmoid(f) * c + np.exp(i) * np.outer(k, v)
        n = sigmoid(f) * n + np.exp(i) * k
        outputs.append(sigmoid(o) * (q @ c) / max(abs(q @ n), 1))
    return np.stack(outputs)


@pytest.mark.fast("-inf")
@pytest.mark.parametrize("gate", [-100, -1e6, -np.inf])
def test_shut_forget_gates(gate):
    shut = lambda p: p | {"bias": p["bias"].at[-1].set(gate)}
    check_gates(shut, np.random.default_rng(0).normal(size=(100, 3)))


@pytest.mark.fast("-1000000.0")
@pytest.mark.parametrize("gate", [-100, -1e6, -1e38])  # -1e38 makes a sum infinite.
def test_forget_gates_that_are_shut_at_some_steps(gate):
    x = np.random.default_rng(0).normal(size=(100, 3))
    x[:, 0] = np.arange(100) % 7 == 0
    check_gates(lambda p: p | {"kernel": p["kernel"].at[0, -1].set(gate)}, x)


def check_gates(change, x):
    """Assert that chunks have small rounding errors and finite gradients."""
    cell = MLSTMCell(4)
    params = change(drawn(cell, jax.ShapeDtypeStruct((1, 3), jnp.float32)))
    run = lambda params, x: jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)[0]
    got, gradients = differentiated(run, params, jnp.asarray(x[None], jnp.float32))
    np.testing.assert_allclose(got[0], one_head_by_its_equations(params, x), atol=5e-4)
    chex.assert_tree_all_finite(gradients)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "size"), [(MLSTMCell(8, 2), 0), (MLSTMCell(8, 2), 4), (SLSTMCell(8, 2), 0)]
)
def test_half_precision_loses_little_with_a_state_of_float32(cell, size, monkeypatch):
    set_chunks(monkeypatch, size)
    exact = bound(cell)
    x = np.random.default_rng(1).normal(size=(2, 64, 3))
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), (exact, x))
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), half)
    want, _ = jaxrnn.dynamic_rnn(*rounded, dtype=jnp.float64)
    state = cell.zero_state(2, jnp.float32)
    if isinstance(cell, SLSTMCell):
        state = state._replace(h=state.h.astype(jnp.bfloat16))
    got, final = jaxrnn.dynamic_rnn(*half, initial_state=state, dtype=jnp.bfloat16)
    assert (got.dtype, final.c.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(got.astype(jnp.float64), want, rtol=0.01, atol=0.02)


def test_packed_sequences_run_step_by_step(caplog):
    cell = bound(MLSTMCell(4, 2))
    rng = np.random.default_rng(0)
    packed = jaxrnn.pack_sequences(rng.normal(size=(3, 4, 3)), [3, 2, 4])
    with caplog.at_level("DEBUG", "jaxrnn"):
        jaxrnn.packed_rnn(cell, packed, dtype=jnp.float64)
    assert "rows restart within a chunk" in caplog.text


@pytest.mark.parametrize("make", [MLSTMCell, SLSTMCell])
def test_profiles_name_the_step(make):
    run = lambda cell, x: jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)
    lowered = jax.jit(run).lower(bound(make(4, name="memory")), jnp.ones((2, 5, 3)))
    assert "memory/" in lowered.as_text(debug_info=True)


@pytest.mark.parametrize("cell", [MLSTMCell, SLSTMCell])
def test_refusals(cell):
    name = cell.__name__
    with pytest.raises(ValueError, match=f"{name}: `num_heads` must divide `num_units"):
        cell(6, 4)
    with pytest.raises(ValueError, match=f"{name}: `num_heads` must be at least 1"):
        cell(6, 0)
    with pytest.raises(TypeError, match=f"{name}: `num_heads` must be an integer"):
        cell(6, 2.0)
    made, x = cell(4, 2), jnp.ones((1, 3), jnp.float32)
    params, state = made.init(jax.random.key(0), x), made.zero_state(1, jnp.bfloat16)
    with pytest.raises(TypeError, match=r"state.* must .*dtype"):
        made.apply(params, x, state)
