"""The xLSTM cells against the authors' package, recorded in `golden/xlstm.npz`."""

import functools
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, bound, differentiated, drawn, scanned, with_prefix

import jaxrnn
from jaxrnn import MLSTMCell, MLSTMState, SLSTMCell, SLSTMState
from jaxrnn.testing._oracle import weighted_sum

FILE = np.load(pathlib.Path(__file__).parents[1] / "golden" / "xlstm.npz")
MLSTM, SLSTM = MLSTMCell(6, 2, chunk_size=4), SLSTMCell(6, 2)


FORMS = {"steps": scanned, "chunks": lambda cell: cell}


@pytest.mark.fast("chunks-mlstm", "steps-mlstm", "steps-slstm")
@pytest.mark.parametrize("case", ["mlstm", "mlstm_zero", "slstm", "slstm_zero"])
@pytest.mark.parametrize("form", FORMS)
def test_same_as_the_package(case, form):
    cell, make = (MLSTM, MLSTMState) if case[0] == "m" else (SLSTM, SLSTMState)
    cell = FORMS[form](cell)
    golden = with_prefix(f"{case}/", FILE)
    state = with_prefix("state/", golden).values()

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradients(given):
        made = jaxrnn.dynamic_rnn(
            cell.bind(given["params"]),
            given["x"],
            initial_state=given["state"],
            dtype=jnp.float64,
        )
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(made)), made

    got, made = gradients(
        {
            "params": with_prefix("params/", golden),
            "x": golden["x"],
            "state": make(*state) if state else None,
        }
    )
    want = golden["outputs"], make(*with_prefix("final/", golden).values())
    assert_near(made, want, tolerance=1e-13)
    flat = {f"params/{name}": leaf for name, leaf in got["params"].items()}
    flat |= {f"state/{k}": leaf for k, leaf in enumerate(got["state"] or ())}
    flat["x"] = got["x"]
    want = with_prefix("grads/", golden)
    assert flat.keys() == want.keys()
    assert_near(flat, want, tolerance=1e-13)


def test_the_biases_start_as_in_the_package():
    x = jax.ShapeDtypeStruct((1, 3), jnp.float32)
    bias = MLSTM.init(jax.random.key(0), x)["bias"]
    np.testing.assert_allclose(bias[-2:], FILE["init/mlstm_f"])
    assert not bias[:-4].any()
    assert bias[-4:-2].all()
    bias = SLSTM.init(jax.random.key(0), x)["bias"]
    np.testing.assert_allclose(bias, FILE["init/slstm"], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_all_gates_give_finite_results_in_float32(form):
    """Gates from closed to values far beyond the range of exp."""
    cell = FORMS[form](MLSTMCell(2, chunk_size=4))
    x = jnp.linspace(-50, 50, 10, dtype=jnp.float32)
    params = cell.init(jax.random.key(0), x[:, None])
    params["kernel"] = params["kernel"].at[:, -2:].set(1)

    def loss(params, gates):
        params = params | {"bias": params["bias"].at[-2:].set(gates)}
        run = jaxrnn.dynamic_rnn(cell.bind(params), x[None, :, None], dtype=x.dtype)
        return weighted_sum(run)

    gates = jnp.asarray([[-300, -300], [300, -300], [300, 300], [-300, 300]], x.dtype)
    gradients = jax.vmap(jax.value_and_grad(loss, (0, 1)), (None, 0))
    chex.assert_tree_all_finite(jax.jit(gradients)(params, gates))


EVERY_STEP, SOME_STEPS = ("bias", -1), ("kernel", (0, -1))


@pytest.mark.fast("-1000000.0-place1")
@pytest.mark.parametrize(
    ("gate", "place"),
    [
        *((gate, EVERY_STEP) for gate in (-100, -1e6, -np.inf)),
        # -1e38 makes a sum infinite.
        *((gate, SOME_STEPS) for gate in (-100, -1e6, -1e38)),
    ],
)
def test_shut_forget_gates(gate, place):
    """Chunks have finite gradients, and almost what single steps give in float64."""
    x = np.random.default_rng(0).normal(size=(100, 3))
    x[:, 0] = np.arange(100) % 7 == 0
    cell, (name, index) = MLSTMCell(4), place
    params = drawn(cell, jax.ShapeDtypeStruct((1, 3), jnp.float32))
    params[name] = params[name].at[index].set(gate)

    def run(params, x, cell=cell):
        return jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)[0]

    got, gradients = differentiated(run, params, jnp.asarray(x[None], jnp.float32))
    chex.assert_tree_all_finite(gradients)
    exact = jax.tree.map(lambda p: p.astype(np.float64), params)
    want = run(exact, x[None], scanned(cell))
    np.testing.assert_allclose(got, want, atol=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell", [scanned(MLSTMCell(8, 2)), MLSTMCell(8, 2, chunk_size=4), SLSTMCell(8, 2)]
)
def test_half_precision_loses_little_with_a_state_of_float32(cell):
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


@pytest.mark.parametrize("make", [MLSTMCell, SLSTMCell])
def test_profiles_name_the_step(make):
    run = lambda cell, x: jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)
    lowered = jax.jit(run).lower(bound(make(4, name="memory")), jnp.ones((2, 5, 3)))
    assert "memory/" in lowered.as_text(debug_info=True)


@pytest.mark.parametrize("cell", [MLSTMCell, SLSTMCell])
def test_refusals(cell):
    for heads, error, message in (
        (4, ValueError, "divide `num_units"),
        (0, ValueError, "be at least 1"),
        (2.0, TypeError, "be an integer"),
    ):
        with pytest.raises(error, match=f"`num_heads` must {message}"):
            cell(6, heads)
    made, x = cell(4, 2), jnp.ones((1, 3), jnp.float32)
    params, state = made.init(jax.random.key(0), x), made.zero_state(1, jnp.bfloat16)
    with pytest.raises(TypeError, match=r"state.* must .*dtype"):
        made.apply(params, x, state)


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_memory_without_steps_has_finite_gradients(form):
    """The scale of an empty memory may be -inf; rows without steps keep it."""
    cell = jaxrnn.MLSTMCell(4, 2, chunk_size=2)
    x = np.random.default_rng(0).normal(size=(3, 5, 3))
    start = jax.tree.map(jnp.ones_like, cell.zero_state(3, x.dtype))
    start = start._replace(m=jnp.full_like(start.m, -jnp.inf))
    made = bound(cell)
    form = FORMS[form](cell)

    @functools.partial(jax.grad, has_aux=True, argnums=(0, 1, 2))
    def gradients(params, x, state, **options):
        made = jaxrnn.dynamic_rnn(form.bind(params), x, initial_state=state, **options)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(made[0])), made

    lengths = {"sequence_length": [0, 3, 5]}
    late = {"mask": np.arange(5) % np.array([[6], [4], [2]]) == 3}
    for options in (lengths, late):
        got, (outputs, last) = gradients(made.params, x, start, **options)
        chex.assert_tree_all_finite((got, outputs, last._replace(m=outputs)))
    _, (_, last) = gradients(made.params, x, start, **lengths)
    chex.assert_trees_all_equal(*jax.tree.map(lambda x: x[0], (last, start)))


def test_a_memory_that_overflowed_ends_at_a_reset():
    """In an earlier chunk; gradients after the reset are those of a scan."""
    cell = jaxrnn.MLSTMCell(4, 2, chunk_size=4)
    x = np.random.default_rng(0).normal(size=(2, 12, 3)).astype(np.float32)
    x[:, 1:3] = 1e20  # The products k v overflow, the products with the kernel do not.
    resets = np.tile(np.arange(12) == 6, (2, 1))

    def loss(x, cell):
        options = {"dtype": x.dtype, "resets": resets}
        return jnp.sum(jaxrnn.dynamic_rnn(cell, x, **options)[0][:, 6:] ** 2)

    got, want = (
        jax.grad(loss)(x, bound(form, dtype="float32"))[:, 6:]
        for form in (cell, scanned(cell))
    )
    assert jnp.isfinite(got).all()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
