"""Linear recurrences: each form against a scan, and cells against loops and papers."""

import dataclasses
import functools
import pathlib

import flax.traverse_util
import helpers
import jax
import jax.numpy as jnp
import native_cases
import numpy as np
import pytest
from helpers import assert_near, assert_same, differentiated, draw

import jaxrnn
from jaxrnn import LRUCell, RGLRUCell
from jaxrnn._loops.linear import chunks as linear_chunks, recurrence
from jaxrnn._loops.linear.recurrence import by_loop, by_tree
from jaxrnn.testing._oracle import weighted_sum

BATCH, TIME, DEPTH, UNITS = 3, 21, 4, 5
ZEROS = jax.nn.initializers.zeros
FORMS = {"loop": by_loop, "tree": by_tree}


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    """Force each form, for every platform and number of steps."""
    monkeypatch.setattr(recurrence, "linear_recurrence", FORMS[request.param])


@pytest.mark.fast("tree")
@pytest.mark.usefixtures("form")
def test_many_steps_of_strong_decay_are_finite():
    """Products of factors underflow, so nothing may divide by them."""
    a, h = np.full((100, 1, 1), 1e-3, np.float32), np.ones((1, 1), np.float32)
    run = lambda a: recurrence.linear_recurrence((a, None), jnp.ones_like(a), h)[0]
    value, slope = jax.jit(jax.value_and_grad(lambda a: jnp.sum(run(a))))(a)
    np.testing.assert_allclose(value, 100 / (1 - 1e-3), rtol=1e-5)
    assert jnp.all(jnp.isfinite(slope))


@pytest.mark.parametrize(("platform", "loops"), [("cpu", 1), ("cuda", 0), ("tpu", 0)])
@pytest.mark.parametrize("time", [63, 64])
def test_the_platform_chooses_the_form(platform, loops, time):
    """Only CPUs run a loop over many steps; all platforms loop over few steps."""
    run = jax.jit(lambda a: recurrence.linear_recurrence((a, None), a, a[0]))
    lowered = run.trace(jnp.ones((time, 2, 3))).lower(lowering_platforms=(platform,))
    assert lowered.as_text().count("stablehlo.while") == (loops if time > 63 else 1)


# Cells.


def data(cell):
    """`(params, xs, state)` as NumPy arrays in float64."""
    return jax.device_get(native_cases.data(cell, BATCH, np.float64, TIME, DEPTH))


LENGTHS = np.array([TIME, 0, 13])
RESETS = np.random.default_rng(0).random((BATCH, TIME)) < 0.2


@pytest.mark.fast("tree-real-first")
@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize(
    "cell", [jaxrnn.QRNNCell(UNITS), LRUCell(DEPTH)], ids=["real", "complex"]
)
def test_values_and_derivatives_of_both_orders(cell, order, monkeypatch):
    """Against a scan: 21 steps in chunks of 8, with lengths and resets."""
    monkeypatch.setattr(linear_chunks, "steps_in_chunk", lambda *_: 8)
    params, xs, state = data(cell)

    def derivatives(implementation):
        def total(params, xs, state):
            options = {"resets": RESETS, "implementation": implementation}
            bound = cell.bind(params)
            made = jaxrnn.dynamic_rnn(bound, xs, LENGTHS, state, **options)
            return weighted_sum(jax.tree.map(jnp.sin, made))

        # The tangent's value, and the gradient of the tangent.
        slope = lambda *args: jax.jvp(total, args, args)
        run = total if order == "first" else slope
        return differentiated(run, params, xs, state)

    assert_near(derivatives(None), derivatives("scan"), tolerance=1e-11)


@pytest.mark.fast("tree")
@pytest.mark.usefixtures("form")
def test_nan_in_padding_and_before_a_reset_stays_there(monkeypatch):
    """It reaches no later state and no gradient."""
    monkeypatch.setattr(linear_chunks, "steps_in_chunk", lambda *_: 8)
    cell = jaxrnn.QRNNCell(UNITS)
    params, xs, state = data(cell)
    resets = np.arange(TIME) == np.array([[10], [0], [10]])
    is_read = (np.arange(TIME) < LENGTHS[:, None])[..., None]
    is_read = is_read & ((np.arange(TIME) >= 10) | (np.arange(TIME) == 0))[:, None]

    def run(xs):
        bound = cell.bind(params)
        outputs, last = jaxrnn.dynamic_rnn(bound, xs, LENGTHS, state, resets=resets)
        return outputs[:, 10:], last

    got, (slope,) = differentiated(run, np.where(is_read, xs, np.nan))
    want, (want_slope,) = differentiated(run, xs)

    assert_same((got, slope[:, 10:]), (want, want_slope[:, 10:]))


def test_min_lstm_with_both_gates_closed():
    """f / (f + i) stays exact if both gates underflow."""
    cell, bias = jaxrnn.MinLSTMCell(1, activation="linear"), [-900.0, -901.0, 0.0]
    params = {"kernel": jnp.zeros((1, 3)), "bias": jnp.asarray(bias)}
    params, one = jax.tree.map(jnp.float32, (params, jnp.ones((1, 1))))
    _, h = cell.apply(params, one, one)
    np.testing.assert_allclose(h, 1 / (1 + np.exp(-1.0)), rtol=1e-4)


@dataclasses.dataclass(frozen=True, eq=False)
class Turning(jaxrnn.LinearRecurrenceCell):
    """A recurrence with a complex state, which is the output; inputs are directions."""

    state_size = output_size = jaxrnn.ComplexState(2, 2)

    def param_specs(self, depth):
        return {"w": jaxrnn.ParamSpec((depth,), ZEROS)}

    def coefficients(self, params, inputs):
        u = inputs + params["w"][None, :]
        u = u / jnp.linalg.norm(u, axis=-1, keepdims=True)  # It has no derivative at 0.
        half = jnp.full((1, 2), 0.5, u.dtype)
        return jaxrnn.ComplexState(half, half), jaxrnn.ComplexState(u, -u), None


def test_a_complex_output_and_a_step_without_derivative_at_zero():
    """Padding is replaced by the row's first step, not by zeros, as in a scan."""
    cell, xs = Turning(), np.random.default_rng(0).normal(size=(BATCH, TIME, 2))
    want = np.zeros((BATCH, 2), complex)
    for t in range(TIME - 2):
        u = xs[:, t] / np.linalg.norm(xs[:, t], axis=-1, keepdims=True)
        want = (0.5 + 0.5j) * want + u - 1j * u

    lengths, options = [TIME - 2, 1, 2], {"dtype": jnp.float64}
    run = lambda w: jaxrnn.dynamic_rnn(cell.bind({"w": w}), xs, lengths, **options)
    (outputs, last), (slope,) = differentiated(run, jnp.zeros(2))
    np.testing.assert_allclose(last.real[0], want.real[0], rtol=1e-9)
    np.testing.assert_allclose(outputs.imag[0, TIME - 3], want.imag[0], rtol=1e-9)
    assert jnp.all(jnp.isfinite(slope))


# Linear recurrent units: LRU against NumPy, RG-LRU against recurrentgemma.

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "rg_lru.npz")
nested = functools.partial(flax.traverse_util.unflatten_dict, sep=".")


def load(case):
    """A cell bound to the weights of a case, and the arrays of the case."""
    arrays = helpers.with_prefix(f"{case}/", GOLDEN)
    cell = RGLRUCell(4, num_heads=2)
    return cell.bind(nested(helpers.with_prefix("weights/", arrays))), arrays


@pytest.mark.parametrize("case", ["two_heads"])
def test_numbers_and_gradients_of_recurrentgemma(case):
    cell, arrays = load(case)
    run = lambda params, x, h: jaxrnn.dynamic_rnn(cell.cell.bind(params), x, None, h)
    got = helpers.squared(run, cell.params, arrays["x"], arrays["h0"])
    grads = helpers.with_prefix("grads/", arrays)
    of_x, of_h = grads.pop("x"), grads.pop("h0")
    want = (arrays["outputs"], arrays["h"]), (nested(grads), of_x, of_h)
    assert_near(got, want, tolerance=1e-12)


@pytest.mark.slow
def test_documents_start_as_in_recurrentgemma():
    """From zeros, at resets, and after steps of zeros in any part."""
    cell, arrays = load("reset")
    x, want = arrays["x"], arrays["outputs"]
    rows, time, units = x.shape
    cell = dataclasses.replace(cell.cell, scale_first_step=False).bind(cell.params)
    near = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    joined, start = x.reshape(1, rows * time, units), np.full((1, units), 7.0)
    resets = np.arange(rows * time)[None] % time == 0
    outputs, _ = jaxrnn.dynamic_rnn(cell, joined, None, start, resets=resets)
    near(outputs[0], np.vstack(want))
    late = np.concatenate([np.zeros((rows, 3, units)), x], axis=1)
    options = {"dtype": x.dtype, "swap_memory": jaxrnn.memory.Recompute(2)}
    near(jaxrnn.dynamic_rnn(cell, late, **options)[0][:, 3:], want)
    near(cell(x[:, 0], jnp.zeros((rows, units)))[0], want[:, 0])


def params_in_float64(cell, depth, dtype):
    """New parameters of a dtype, as NumPy arrays in float64."""
    x = jax.ShapeDtypeStruct((1, depth), dtype)
    params = jax.jit(lambda key: cell.init(key, x))(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def check_ring(radius, low, high, dtype):
    """Assert that eigenvalues are uniform in the ring's area, up to rounding."""
    rounding = 8 * float(jnp.finfo(dtype).eps)
    assert np.all((radius > low - rounding) & (radius < high + rounding))
    quarter = np.sqrt(low**2 + (high**2 - low**2) / 4)
    assert abs(np.mean(radius < quarter) - 0.25) < 0.04


def test_initial_values_of_an_lru():
    """Gamma sets the variance of the state to 1."""
    cell = LRUCell(8, 2000, min_radius=0.8, max_radius=0.95, max_phase=1.0)
    p = params_in_float64(cell, 8, "float32")
    radius, phase = np.exp(-np.exp(p["nu_log"])), np.exp(p["theta_log"])
    check_ring(radius, 0.8, 0.95, "float32")
    assert np.all((phase >= 0) & (phase < 1 + 1e-6))
    assert abs(np.mean(phase < 0.25) - 0.25) < 0.04
    scale = np.exp(2 * p["gamma_log"]) / (1 - radius**2)
    np.testing.assert_allclose(scale, 1, rtol=4e-6)
    np.testing.assert_allclose(p["B_im"].std(), 1 / 4, rtol=0.03)
    np.testing.assert_allclose(p["C_re"].std(), 1 / np.sqrt(2000), rtol=0.03)


def test_initial_values_of_an_rg_lru():
    """The ring is that of `a` at a gate of 1/8."""
    p = params_in_float64(RGLRUCell(2000, num_heads=20), 2000, "bfloat16")
    check_ring(np.exp(-np.logaddexp(0, p["a_param"])), 0.9, 0.999, "bfloat16")
    for gate in ("input_gate", "a_gate"):
        np.testing.assert_allclose(p[gate]["w"].std(), 0.1, rtol=0.02)
        assert not np.any(p[gate]["b"])
    assert not np.array_equal(p["input_gate"]["w"], p["a_gate"]["w"])


EXTREME = {
    "outer": LRUCell(4, 4, min_radius=1.0, max_radius=1.0, max_phase=0.0),
    "no_decay": RGLRUCell(4, min_radius=1.0, max_radius=1.0),
}


@pytest.mark.fast("no_decay")
@pytest.mark.parametrize("name", EXTREME)
def test_extreme_radii_have_finite_gradients(name):
    cell, x = EXTREME[name], np.ones((2, 5, 4), np.float32)
    params = cell.init(jax.random.key(0), x[:, 0])
    if name == "no_decay":
        params["a_gate"]["b"] -= np.asarray([[0, 50, 100, 1000]], x.dtype)
    run = lambda params: jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)[0]
    gradients = jax.jit(jax.grad(lambda params: jnp.sum(run(params) ** 2)))(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


class Sum(jaxrnn.LinearRecurrenceCell):
    """Adds its inputs to its state."""

    state_size = output_size = 1

    def param_specs(self, depth):
        return {}

    def coefficients(self, params, inputs):
        return jnp.ones_like(inputs), inputs, None


@pytest.mark.slow
def test_the_gradient_of_a_narrow_reset_state_is_summed_in_float32(monkeypatch):
    """Each chunk adds 1; in bfloat16, the sum would end at 256."""
    monkeypatch.setattr(linear_chunks, "steps_in_chunk", lambda *_: 2)
    x = jnp.zeros((1, 600, 1), jnp.bfloat16)
    resets = jnp.ones((1, 600), bool)

    def loss(state):
        run = {"dtype": x.dtype, "resets": resets, "reset_state": state}
        outputs, _ = jaxrnn.dynamic_rnn(Sum().bind({}), x, **run)
        return jnp.sum(outputs, dtype=jnp.float32)

    assert jax.grad(loss)(jnp.zeros((1, 1), jnp.bfloat16)).item() == 600


# The scan of S6, whose values `test_against_numpy.py` compares.


def test_gradients_of_s6_are_those_of_single_steps():
    """Over several chunks of the loop, whose states fill a cache."""
    cell = jaxrnn.S6MemoryCell(64, 16)
    inputs = jaxrnn.S6Inputs(*(draw(4, 150, *n) / 3 for n in cell.input_sizes))
    inputs = inputs._replace(dt=np.exp(inputs.dt - 2))
    params = {"A_log": draw(64, 16) / 3, "D": draw(64)}

    def run(params, inputs, **options):
        return jaxrnn.dynamic_rnn(cell.bind(params), inputs, dtype="f8", **options)

    scan = functools.partial(run, implementation="scan")
    got, want = (differentiated(each, params, inputs) for each in (run, scan))
    assert_near(got, want, tolerance=1e-12)


def test_initial_values_of_s6_are_the_authors():
    cell = jaxrnn.S6MemoryCell(4, 2)
    step = jax.tree.map(lambda size: np.ones((3, *size)), cell.input_sizes)
    params = cell.init(jax.random.key(0), step)
    assert_near(params["A_log"], np.log([[1.0, 2.0]] * 4), tolerance=1e-15)
    assert_near(params["D"], np.ones(4), tolerance=0)
