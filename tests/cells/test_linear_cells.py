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
from helpers import assert_near, assert_same, bound, differentiated

import jaxrnn
from jaxrnn import ComplexState, LRUCell, RGLRUCell
from jaxrnn._cells.linear.element import plus, times
from jaxrnn._cells.linear.lru import bounded_sqrt
from jaxrnn._loops.linear import chunks as linear_chunks, recurrence
from jaxrnn._loops.linear.recurrence import by_loop, by_tree, linear_recurrence
from jaxrnn.testing._oracle import weighted_sum

BATCH, TIME, DEPTH, UNITS = 3, 21, 4, 5
ZEROS = jax.nn.initializers.zeros
FORMS = {"loop": by_loop, "tree": by_tree}


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    """Force each form, for every platform and number of steps."""
    monkeypatch.setattr(recurrence, "linear_recurrence", FORMS[request.param])


def given(kind, time):
    """`(a, x, h)`, normally distributed, real or complex, time-major."""
    rng = np.random.default_rng(time)

    def normal(*shape):
        parts = jnp.asarray(rng.normal(size=(2, *shape)))
        return parts[0] if kind == "real" else ComplexState(*parts)

    a, x = normal(time, BATCH, UNITS), normal(time, BATCH, UNITS)
    return jax.tree.map(lambda a: 0.7 * jnp.tanh(a), a), x, normal(BATCH, UNITS)


def by_scan(a, x, h, resets):
    """The recurrence as a scan."""

    def step(h, at):
        a, x, reset = at
        before = jax.tree.map(lambda v: jnp.where(reset[:, None], 0.0, v), h)
        h = plus(times(a, before), x)
        return h, h

    last, hs = jax.lax.scan(step, h, (a, x, resets))
    return hs, last


# Every two levels occur.
RECURRENCES = [(1, True, "real"), (7, False, "real"), (16, False, "real")]
RECURRENCES += [(1, False, "complex"), (7, True, "complex"), (16, True, "complex")]


@pytest.mark.fast("tree-16-True-complex")
@pytest.mark.usefixtures("form")
@pytest.mark.parametrize(("time", "has_resets", "kind"), RECURRENCES)
def test_values_and_derivatives_of_both_orders(kind, time, has_resets):
    args = given(kind, time)
    resets = np.random.default_rng(0).random((time, BATCH)) < 0.3 * has_resets
    direction = jax.tree.map(lambda leaf: jnp.cos(3 * leaf), args)

    def by_form(a, x, h):
        return recurrence.linear_recurrence((a, resets if has_resets else None), x, h)

    def derivatives(run):
        sines = lambda *args: weighted_sum(jax.tree.map(jnp.sin, run(*args)))
        slope = lambda *args: jax.jvp(sines, args, direction)[1]
        return differentiated(run, *args), jax.jit(jax.grad(slope, (0, 1, 2)))(*args)

    want = derivatives(functools.partial(by_scan, resets=resets))
    assert_near(derivatives(by_form), want, tolerance=1e-12)


@pytest.mark.fast("tree")
@pytest.mark.usefixtures("form")
def test_what_stood_before_a_reset_does_not_matter():
    """Even NaN before a reset does not reach later states or gradients."""
    a, x, h = given("real", 12)
    resets = jnp.zeros((12, BATCH), bool).at[5].set(True)

    def after(x):
        return recurrence.linear_recurrence((a, resets), x, h)[0][5:]

    want, (want_slope,) = differentiated(after, x)
    got, (got_slope,) = differentiated(after, x.at[:5].set(jnp.nan))
    assert_same((got, got_slope[5:]), (want, want_slope[5:]))


@pytest.mark.fast("tree")
@pytest.mark.usefixtures("form")
def test_many_steps_of_strong_decay_are_finite():
    """Products of factors underflow, so nothing may divide by them."""
    a, h = jnp.full((3000, 1, 1), 1e-3, jnp.float32), jnp.ones((1, 1), jnp.float32)
    run = lambda a: recurrence.linear_recurrence((a, None), jnp.ones_like(a), h)[0]
    value, slope = jax.jit(jax.value_and_grad(lambda a: jnp.sum(run(a))))(a)
    np.testing.assert_allclose(value, 3000 / (1 - 1e-3), rtol=1e-5)
    assert jnp.all(jnp.isfinite(slope))


@pytest.mark.parametrize("shape", [(70, 0, 3), (70, 2, 0)], ids=["rows", "units"])
def test_a_tree_of_nothing(shape):
    a, h = jnp.zeros(shape), jnp.zeros(shape[1:])
    hs, last = jax.eval_shape(lambda a, h: by_tree((a, None), a, h), a, h)
    assert (hs.shape, last.shape) == (shape, shape[1:])


@pytest.mark.parametrize(("platform", "loops"), [("cpu", 1), ("cuda", 0), ("tpu", 0)])
@pytest.mark.parametrize("time", [63, 64])
def test_the_platform_chooses_the_form(platform, loops, time):
    """Only CPUs run a loop over many steps; all platforms loop over few steps."""
    run = jax.jit(lambda a, x, h: linear_recurrence((a, None), x, h))
    lowered = run.trace(*given("real", time)).lower(lowering_platforms=(platform,))
    assert lowered.as_text().count("stablehlo.while") == (loops if time > 63 else 1)


# Cells.


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def data(cell):
    """`(params, xs, state)` as NumPy arrays in float64."""
    return jax.device_get(native_cases.data(cell, BATCH, np.float64, TIME, DEPTH))


def run(cell, params, xs, state):
    return jaxrnn.dynamic_rnn(cell.bind(params), xs, initial_state=state)[0]


def test_min_lstm_with_both_gates_closed():
    """f / (f + i) stays exact if both gates underflow."""
    cell, bias = jaxrnn.MinLSTMCell(1, activation="linear"), [-900.0, -901.0, 0.0]
    params = {"kernel": jnp.zeros((1, 3)), "bias": jnp.asarray(bias)}
    params, one = jax.tree.map(jnp.float32, (params, jnp.ones((1, 1))))
    _, h = cell.apply(params, one, one)
    np.testing.assert_allclose(h, sigmoid(1.0), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("form")
def test_blocks_and_forms_give_what_a_scan_gives(monkeypatch):
    """21 steps in chunks of 8, with lengths and NaN padding."""
    monkeypatch.setattr(linear_chunks, "steps_in_chunk", lambda *_: 8)
    cell = jaxrnn.QRNNCell(UNITS)
    params, xs, state = data(cell)
    lengths = np.asarray([TIME, 0, 13])
    xs = jnp.where((np.arange(TIME) >= lengths[:, None])[..., None], jnp.nan, xs)

    def results(params, xs, state, **options):
        return jaxrnn.dynamic_rnn(cell.bind(params), xs, lengths, state, **options)

    scan = functools.partial(results, implementation="scan")
    got, want = (differentiated(run, params, xs, state) for run in (results, scan))
    assert_near(got, want, tolerance=1e-11)


@pytest.mark.parametrize("rows", [1, 2])
def test_vmap_over_rows_that_share_the_factors(rows):
    """Derivatives of both orders, against separate runs."""
    cell = LRUCell(DEPTH)
    params, xs, state = data(cell)
    xs = jnp.concatenate([xs, 2 * xs[:1]])
    state = jax.tree.map(lambda h: jnp.concatenate([h, h[:1] / 2]), state)
    resets = np.random.default_rng(0).random(xs.shape[:2]) < 0.2

    def loss(params, xs, state, resets):
        run = jaxrnn.dynamic_rnn(cell.bind(params), xs, None, state, resets=resets)
        return weighted_sum(jax.tree.map(jnp.sin, run))

    def total(map_rows, params, *given):
        of_rows = lambda x: x.reshape(-1, rows, *x.shape[1:])
        given = jax.tree.map(of_rows, (*given, resets))
        return jnp.sum(map_rows(lambda given: loss(params, *given))(given))

    def derivatives(map_rows):
        of = functools.partial(total, map_rows)
        slope = lambda *args: jax.jvp(of, args, args)[1]
        return differentiated(slope, params, xs, state)

    separate = lambda fn: functools.partial(jax.lax.map, fn)
    assert_near(derivatives(jax.vmap), derivatives(separate), tolerance=1e-11)


@pytest.mark.fast("cell0")
@pytest.mark.parametrize("cell", [LRUCell(DEPTH), jaxrnn.MLSTMCell(4)])
def test_a_plain_tuple_passes_for_a_state(cell):
    """As for an LSTM, whole sequences return it, but one step returns a named tuple."""
    params, xs, state = data(cell)
    cell, plain = cell.bind(params), tuple(state)
    assert isinstance(cell(xs[:, 0], plain)[1], type(state))
    got, want = (jaxrnn.dynamic_rnn(cell, xs, initial_state=s) for s in (plain, state))
    assert_same(got, (want[0], tuple(want[1])))


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


def test_rows_may_be_symbolic():
    cell, xs = bound(LRUCell(3), scale=0.5), jnp.ones((BATCH, TIME, 3))
    run = jax.jit(lambda x: jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)[0])
    shape = jax.export.symbolic_shape(f"b,{TIME},3")
    exported = jax.export.export(run)(jax.ShapeDtypeStruct(shape, xs.dtype))
    np.testing.assert_allclose(exported.call(xs), run(xs), rtol=1e-12)


@pytest.mark.parametrize(("platform", "size"), [("cpu", 512), ("tpu", 1024)])
def test_the_platform_decides_the_size_of_blocks(platform, size, monkeypatch):
    monkeypatch.setattr(linear_chunks, "platform_of", lambda _: platform)
    cell, xs = bound(jaxrnn.MinGRUCell(128), 16, "float32"), np.ones((4 * size, 8, 16))
    run = lambda xs: jaxrnn.dynamic_rnn(cell, xs, time_major=True, dtype=xs.dtype)
    text = jax.jit(run).lower(np.float32(xs)).as_text()
    assert f"tensor<4x{size}x8x16xf32>" in text


def test_chunks_hold_the_rows_that_vmap_maps(monkeypatch):
    """Twice 4 rows take chunks as small as 8 rows do, and 1 row takes larger ones."""
    sizes, of = [], linear_chunks.steps_in_chunk
    spy = lambda *args: sizes.append(of(*args)) or sizes[-1]
    monkeypatch.setattr(linear_chunks, "steps_in_chunk", spy)
    cell, xs = Turning().bind({"w": jnp.ones(2, "f4")}), jnp.ones((2, 4, 9, 2), "f4")
    run = jax.grad(lambda x: weighted_sum(jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)))
    jax.eval_shape(run, xs.reshape(8, 9, 2))
    jax.eval_shape(jax.vmap(jax.vmap(lambda x: run(x[None]))), xs)
    jax.eval_shape(lambda x: run(x[None]), xs[0, 0])
    assert sizes == [2**14, 2**14, 2**16]


# Linear recurrent units: LRU against NumPy, RG-LRU against recurrentgemma.

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "rg_lru.npz")
nested = functools.partial(flax.traverse_util.unflatten_dict, sep=".")
HEADS = {"one_head": 1, "two_heads": 2, "reset": 2}


def load(case):
    """A cell bound to the weights of a case, and the arrays of the case."""
    arrays = helpers.with_prefix(f"{case}/", GOLDEN)
    cell = RGLRUCell(4, num_heads=HEADS[case])
    return cell.bind(nested(helpers.with_prefix("weights/", arrays))), arrays


@pytest.mark.parametrize("case", ["one_head", "two_heads"])
def test_numbers_and_gradients_of_recurrentgemma(case):
    cell, arrays = load(case)
    run = lambda params, x, h: jaxrnn.dynamic_rnn(cell.cell.bind(params), x, None, h)
    got = helpers.squared(run, cell.params, arrays["x"], arrays["h0"])
    grads = helpers.with_prefix("grads/", arrays)
    of_x, of_h = grads.pop("x"), grads.pop("h0")
    want = (arrays["outputs"], arrays["h"]), (nested(grads), of_x, of_h)
    assert_near(got, want, tolerance=1e-12)


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
    for strategy in (False, jaxrnn.memory.Recompute(2)):
        options = {"dtype": x.dtype, "swap_memory": strategy}
        near(jaxrnn.dynamic_rnn(cell, late, **options)[0][:, 3:], want)
    near(cell(x[:, 0], jnp.zeros((rows, units)))[0], want[:, 0])


class FromZeros(jaxrnn.LinearRecurrenceCell):
    """An average whose first step differs, with a factor that all rows share."""

    state_size = output_size = 2

    def param_specs(self, depth):
        return {}

    def coefficients(self, params, inputs):
        return jnp.full((1, 2), 0.5), 0.5 * inputs, inputs

    @property
    def term_from_zeros(self):
        return lambda rest: rest / jnp.sum(rest, axis=1, keepdims=True)


def test_a_term_from_zeros_is_of_one_step():
    x = np.random.default_rng(0).uniform(0.5, 1, (3, 5, 2))
    run = functools.partial(jaxrnn.dynamic_rnn, FromZeros().bind({}), x, dtype=x.dtype)
    got, want = run(), run(implementation="scan")
    assert_near(got, want, tolerance=1e-14)
    np.testing.assert_allclose(got[0][:, 0].sum(-1), 1)


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


class Sum(jaxrnn.LinearRecurrenceCell):
    """Adds its inputs to its state."""

    state_size = output_size = 1

    def param_specs(self, depth):
        return {}

    def coefficients(self, params, inputs):
        return jnp.ones_like(inputs), inputs, None


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
