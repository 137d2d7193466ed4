"""Linear recurrent units: LRU against NumPy, RG-LRU against recurrentgemma."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, with_prefix

import jaxrnn
from jaxrnn import ComplexState, LRUCell, RGLRUCell
from jaxrnn._cells.lru import bounded_sqrt

FILE = np.load(pathlib.Path(__file__).parents[1] / "golden" / "rg_lru.npz")
HEADS = {"one_head": 1, "two_heads": 2, "reset": 2}


def lru(params, us, lengths, states):
    """Outputs and final states from the paper's equations, row by row."""
    p = {name: np.asarray(leaf) for name, leaf in params.items()}
    factor = np.exp(-np.exp(p["nu_log"]) + 1j * np.exp(p["theta_log"]))
    b = (p["B_re"] + 1j * p["B_im"]) * np.exp(p["gamma_log"])[:, None]
    c = p["C_re"] + 1j * p["C_im"]
    ys, lasts = np.zeros_like(us), []
    for row, (length, x) in enumerate(zip(lengths, states, strict=True)):
        for t in range(length):
            x = factor * x + b @ us[row, t]
            ys[row, t] = (c @ x).real + p["D"] * us[row, t]
        lasts.append(x)
    return ys, np.stack(lasts)


def test_an_lru_is_the_papers_equations():
    rng = np.random.default_rng(1)
    us, lengths = rng.normal(size=(3, 7, 3)), [7, 0, 3]
    cell, state = bound(LRUCell(3, 4), scale=0.5), rng.normal(size=(2, 3, 4))
    got, last = jaxrnn.dynamic_rnn(cell, us, lengths, ComplexState(*state))
    want, want_last = lru(cell.params, us, lengths, state[0] + 1j * state[1])
    near = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14)
    near(got, want)
    near(np.asarray(last.real) + 1j * np.asarray(last.imag), want_last)


def nested(arrays):
    """The parameters from a state dict with recurrentgemma's names."""
    params = {}
    for name, leaf in arrays.items():
        *path, last = name.split(".")
        at = functools.reduce(lambda at, key: at.setdefault(key, {}), path, params)
        at[last] = leaf
    return params


def load(case):
    """A cell bound to the weights of a case, and the arrays of the case."""
    arrays = with_prefix(f"{case}/", FILE)
    cell = RGLRUCell(4, num_heads=HEADS[case])
    return cell.bind(nested(with_prefix("weights/", arrays))), arrays


@pytest.mark.parametrize("case", ["one_head", "two_heads"])
def test_numbers_and_gradients_of_recurrentgemma(case):
    cell, arrays = load(case)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1, 2), has_aux=True)
    def gradients(cell, x, h0):
        outputs, h = jaxrnn.dynamic_rnn(cell, x, None, h0)
        return jnp.sum(outputs**2) + jnp.sum(h**2), (outputs, h)

    (of_cell, of_x, of_h), results = gradients(cell, arrays["x"], arrays["h0"])
    near = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    near(results[0], arrays["outputs"])
    near(results[1], arrays["h"])
    grads = with_prefix("grads/", arrays)
    near(of_x, grads.pop("x"))
    near(of_h, grads.pop("h0"))
    jax.tree.map(near, of_cell.params, nested(grads))


def test_only_the_first_step_of_recurrentgemma_differs():
    """The package does not scale the first input; later steps are equal."""
    cell, arrays = load("reset")
    x, want = arrays["x"], arrays["outputs"]
    gate = cell.params["input_gate"]
    blocks = np.einsum("bhi,hij->bhj", x[:, 0].reshape(2, 2, 2), gate["w"]) + gate["b"]
    first = x[:, 0] / (1 + np.exp(-blocks.reshape(2, 4)))
    np.testing.assert_allclose(want[:, 0], first, rtol=1e-12)
    outputs, _ = jaxrnn.dynamic_rnn(cell, x[:, 1:], None, first)
    np.testing.assert_allclose(outputs, want[:, 1:], rtol=1e-9, atol=1e-12)


def params_in_float64(cell, depth, dtype):
    params = cell.init(jax.random.key(0), jnp.ones((1, depth), dtype))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def check_ring(radius, low, high, dtype):
    """Assert that eigenvalues are uniform in the ring's area, up to rounding."""
    rounding = 8 * float(jnp.finfo(dtype).eps)
    assert np.all((radius > low - rounding) & (radius < high + rounding))
    quarter = np.sqrt(low**2 + (high**2 - low**2) / 4)
    assert abs(np.mean(radius < quarter) - 0.25) < 0.04


@pytest.mark.fast("float32")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_initial_values_of_an_lru(dtype):
    """Gamma sets the variance of the state to 1."""
    cell = LRUCell(8, 2000, min_radius=0.8, max_radius=0.95, max_phase=1.0)
    p = params_in_float64(cell, 8, dtype)
    radius, phase = np.exp(-np.exp(p["nu_log"])), np.exp(p["theta_log"])
    check_ring(radius, 0.8, 0.95, dtype)
    rounding = 8 * float(jnp.finfo(dtype).eps)
    assert np.all((phase >= 0) & (phase < 1 + rounding))
    assert abs(np.mean(phase < 0.25) - 0.25) < 0.04
    scale = np.exp(2 * p["gamma_log"]) / (1 - radius**2)
    np.testing.assert_allclose(scale, 1, rtol=4 * rounding)
    np.testing.assert_allclose(p["B_im"].std(), 1 / 4, rtol=0.03)
    np.testing.assert_allclose(p["C_re"].std(), 1 / np.sqrt(2000), rtol=0.03)


@pytest.mark.fast("bfloat16")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_initial_values_of_an_rg_lru(dtype):
    """The ring is that of `a` at a gate of 1/8."""
    p = params_in_float64(RGLRUCell(2000, num_heads=20), 2000, dtype)
    check_ring(np.exp(-np.logaddexp(0, p["a_param"])), 0.9, 0.999, dtype)
    for gate in ("input_gate", "a_gate"):
        np.testing.assert_allclose(p[gate]["w"].std(), 0.1, rtol=0.02)
        assert not np.any(p[gate]["b"])
    assert not np.array_equal(p["input_gate"]["w"], p["a_gate"]["w"])


EXTREME = {
    "inner": LRUCell(4, 4, min_radius=0.0, max_radius=0.0, max_phase=0.0),
    "outer": LRUCell(4, 4, min_radius=1.0, max_radius=1.0, max_phase=0.0),
    "no_decay": RGLRUCell(4, min_radius=1.0, max_radius=1.0),
}


@pytest.mark.fast("inner-float32", "no_decay-float32")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", EXTREME)
def test_extreme_radii_have_finite_gradients(name, dtype):
    cell, x = EXTREME[name], jnp.ones((2, 5, 4), dtype)
    params = cell.init(jax.random.key(0), x[:, 0])
    if name == "no_decay":
        params["a_gate"]["b"] -= jnp.asarray([[0, 50, 100, 1000]], dtype)
    run = lambda params: jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)[0]
    gradients = jax.jit(jax.grad(lambda params: jnp.sum(run(params) ** 2)))(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


def test_the_square_root_and_its_derivatives_are_finite():
    x = np.append(10.0 ** np.arange(-40, 1), 0)
    np.testing.assert_allclose(bounded_sqrt(jnp.asarray(x)), np.sqrt(x), 0, 1e-16)
    x = jnp.asarray([0.0, 1e-30, 1e-13, 1e-11, 0.5, 1.0], jnp.float32)
    np.testing.assert_allclose(bounded_sqrt(x)[3:], np.sqrt(x[3:]), rtol=1e-6)
    slope = jax.vmap(jax.grad(bounded_sqrt))
    np.testing.assert_allclose(slope(x)[3:], 0.5 / np.sqrt(x[3:]), rtol=1e-6)
    assert np.all(np.abs(slope(x)) <= 1.01 / np.finfo("float32").eps)
    assert np.all(np.isfinite(jax.vmap(jax.grad(jax.grad(bounded_sqrt)))(x)))


@pytest.mark.parametrize(
    ("of", "options", "error", "message"),
    [
        (LRUCell, {"num_states": -1}, ValueError, "`num_states` must be at least 0"),
        (LRUCell, {"num_states": 2.5}, TypeError, "`num_states` must be an integer"),
        (LRUCell, {"max_radius": 1.1}, ValueError, "`max_radius` must be in .0, 1."),
        (LRUCell, {"max_radius": 0.5, "min_radius": 0.9}, ValueError, "at most `max_"),
        (LRUCell, {"max_phase": -1.0}, ValueError, "`max_phase` must be in"),
        (
            RGLRUCell,
            {"num_heads": 3},
            ValueError,
            r"must divide `num_units` \(4\), got 3",
        ),
        (RGLRUCell, {"num_heads": 0}, ValueError, "`num_heads` must be at least 1"),
        (RGLRUCell, {"max_radius": 2}, ValueError, "`max_radius` must be in"),
        (RGLRUCell, {"kernel_initializer": 1}, TypeError, "`kernel_initializer` must "),
    ],
)
def test_refusals(of, options, error, message):
    with pytest.raises(error, match=message):
        of(4, **options)


@pytest.mark.parametrize("of", [LRUCell, RGLRUCell])
def test_inputs_must_have_the_size_of_outputs(of):
    message = r"must have depth `num_units` \(4\), got 5.*InputProjectionWrapper"
    with pytest.raises(ValueError, match=message):
        of(4).init(jax.random.key(0), np.ones((1, 5)))
    with pytest.raises(ValueError, match=message):
        jaxrnn.dynamic_rnn(bound(of(4), 4), np.ones((1, 2, 5)), dtype=jnp.float64)
