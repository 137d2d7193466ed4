"""The linear recurrent unit against a NumPy loop with complex numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

import jaxrnn
from jaxrnn import ComplexState, LRUCell
from jaxrnn._loops import linear_recurrence as recurrence

CELL = LRUCell(3, num_states=4)
LENGTHS = [7, 0, 3]


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


def as_complex(state):
    return np.asarray(state.real) + 1j * np.asarray(state.imag)


@pytest.mark.parametrize("form", [recurrence.by_loop, recurrence.by_tree])
def test_same_as_the_papers_equations(form, monkeypatch):
    monkeypatch.setattr(recurrence, "run_steps", form)
    rng = np.random.default_rng(1)
    us = rng.normal(size=(3, 7, 3))
    cell = CELL.bind(CELL.init(jax.random.key(0), us[:, 0]))
    state = ComplexState(*rng.normal(size=(2, 3, 4)))
    got, last = jaxrnn.dynamic_rnn(cell, us, LENGTHS, state)
    want, want_last = lru(cell.params, us, LENGTHS, as_complex(state))
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(as_complex(last), want_last, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_initial_values(dtype):
    """The eigenvalues are on the ring up to rounding; gamma sets the variance to 1."""
    cell = LRUCell(8, 2000, min_radius=0.8, max_radius=0.95, max_phase=1.0)
    params = cell.init(jax.random.key(0), jnp.ones((1, 8), dtype))
    assert {str(leaf.dtype) for leaf in params.values()} == {dtype}
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    radius, phase = np.exp(-np.exp(p["nu_log"])), np.exp(p["theta_log"])
    rounding = 8 * float(jnp.finfo(dtype).eps)
    assert np.all((radius > 0.8 - rounding) & (radius < 0.95 + rounding))
    assert np.all((phase >= 0) & (phase < 1 + rounding))
    # A quarter of the ring's area, or of the phases, has a quarter of the values.
    quarter = np.sqrt(0.8**2 + (0.95**2 - 0.8**2) / 4)
    assert abs(np.mean(radius < quarter) - 0.25) < 0.04
    assert abs(np.mean(phase < 0.25) - 0.25) < 0.04
    scale = np.exp(2 * p["gamma_log"]) / (1 - radius**2)
    np.testing.assert_allclose(scale, 1, rtol=4 * rounding)
    np.testing.assert_allclose(p["B_im"].std(), 1 / 4, rtol=0.03)
    np.testing.assert_allclose(p["C_re"].std(), 1 / np.sqrt(2000), rtol=0.03)


@pytest.mark.parametrize("radius", [0.0, 1.0])
def test_extreme_radii_have_finite_gradients(radius):
    cell = LRUCell(3, 4, min_radius=radius, max_radius=radius, max_phase=0.0)
    x = jnp.ones((2, 5, 3), jnp.float32)
    params = cell.init(jax.random.key(0), x[:, 0])
    run = lambda params: jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)[0]
    gradients = jax.grad(lambda params: jnp.sum(run(params) ** 2))(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in gradients.values())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_states": -1}, ValueError, "`num_states` must be at least 0"),
        ({"num_states": 2.5}, TypeError, "`num_states` must be an integer"),
        ({"max_radius": 1.1}, ValueError, "`max_radius` must be in .0, 1."),
        (
            {"min_radius": 0.9, "max_radius": 0.5},
            ValueError,
            "at most `max_radius`",
        ),
        ({"max_phase": -1.0}, ValueError, "`max_phase` must be in"),
    ],
)
def test_refusals(options, error, message):
    with pytest.raises(error, match=message):
        LRUCell(3, **options)


def test_inputs_must_have_the_size_of_outputs():
    message = r"must have depth `num_units` \(3\), got 5.*InputProjectionWrapper"
    with pytest.raises(ValueError, match=message):
        CELL.init(jax.random.key(0), np.ones((1, 5)))
    with pytest.raises(ValueError, match=message):
        jaxrnn.dynamic_rnn(bound(CELL), np.ones((1, 2, 5)), dtype=jnp.float64)


def test_a_state_in_float32_under_bfloat16():
    """Outputs have the dtype of the inputs, and the state keeps its dtype."""
    half = jnp.bfloat16
    cell, x = bound(CELL, dtype=half), jnp.ones((2, 5, 3), half)
    state = CELL.zero_state(2, jnp.float32)
    outputs, last = jaxrnn.dynamic_rnn(cell, x, None, state, half)
    assert outputs.dtype == half
    assert last.real.dtype == last.imag.dtype == jnp.float32
