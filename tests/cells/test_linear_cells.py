"""Linear recurrence cells, against loops and the papers' parallel forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, drawn

import jaxrnn
from jaxrnn._cells import linear_recurrence as recurrence
from jaxrnn._cells.linear_recurrence import by_loop, by_tree

BATCH, TIME, DEPTH, UNITS = 3, 21, 4, 5
ZEROS = jax.nn.initializers.zeros


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.logaddexp(x, 0)


def positive(x):
    return np.where(x >= 0, x + 0.5, sigmoid(x))


def data(cell, depth=DEPTH, seed=0):
    """`(params, xs, state)`, normally distributed, in float64."""
    rng = np.random.default_rng(seed)
    normal = lambda x: rng.normal(size=x.shape)
    shapes = drawn(cell, jnp.ones((BATCH, depth)))
    state = jax.tree.map(normal, cell.zero_state(BATCH, jnp.float64))
    return jax.tree.map(normal, shapes), rng.normal(size=(BATCH, TIME, depth)), state


def run(cell, params, xs, state, **kwargs):
    bound = cell.bind(jax.tree.map(jnp.asarray, params))
    return jaxrnn.dynamic_rnn(bound, xs, initial_state=state, **kwargs)[0]


def blocks(params, xs, count):
    return np.split(xs @ params["kernel"] + params["bias"], count, axis=-1)


def in_log_space(log_a, log_b, h):
    """The papers' parallel form in log space, for positive numbers."""
    start = np.zeros_like(log_a[:, :1])
    total = np.cumsum(np.concatenate([start, log_a], 1), axis=1)
    terms = np.concatenate([np.log(h)[:, None], log_b], 1) - total
    return np.exp(total + np.logaddexp.accumulate(terms, axis=1))[:, 1:]


@pytest.mark.parametrize("of", [jaxrnn.MinGRUCell, jaxrnn.MinLSTMCell])
def test_min_cells_are_the_papers_parallel_form(of):
    """Appendix B.2, "parallel_forward" in log space."""
    cell = of(UNITS)
    params, xs, state = data(cell)
    if of is jaxrnn.MinGRUCell:
        z, c = blocks(params, xs, 2)
    else:
        f, i, c = blocks(params, xs, 3)
        z = softplus(-f) - softplus(-i)
    h = positive(state)
    want = in_log_space(-softplus(z), -softplus(-z) + np.log(positive(c)), h)
    np.testing.assert_allclose(run(cell, params, xs, h), want, rtol=1e-9)


def test_min_lstm_with_both_gates_closed():
    """f / (f + i) stays exact if both gates underflow."""
    cell = jaxrnn.MinLSTMCell(1, activation="linear")
    bias = jnp.asarray([-900.0, -901.0, 0.0], jnp.float32)
    params = {"kernel": jnp.zeros((1, 3), jnp.float32), "bias": bias}
    one = jnp.ones((1, 1), jnp.float32)
    _, h = cell.apply(params, one, one)
    np.testing.assert_allclose(h, sigmoid(1.0), rtol=1e-4)


@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
def test_qrnn_is_a_convolution_and_a_pooling(pooling):
    """Section 2 of the paper, with a convolution wrapper of width 3."""
    width = 3
    cell = jaxrnn.QRNNCell(UNITS, pooling)
    wrapped = jaxrnn.PastInputsWrapper(cell, DEPTH, width)
    params, xs, state = data(wrapped)
    padded = np.concatenate([state.past_inputs, xs], 1)
    windows = [padded[:, j : j + TIME] for j in range(width)]
    z, f, *more = blocks(params, np.concatenate(windows, -1), len(pooling) + 1)
    o, i = [sigmoid(x) for x in more] + [np.ones_like(z)] * (2 - len(more))
    f, c, want = sigmoid(f), state.cell_state, []
    i = i if pooling == "ifo" else 1 - f
    for t in range(TIME):
        c = f[:, t] * c + i[:, t] * np.tanh(z[:, t])
        want.append(o[:, t] * c)
    got = run(wrapped, params, xs, state)
    np.testing.assert_allclose(got, np.stack(want, 1), rtol=1e-9)


@pytest.mark.fast("tree")
@pytest.mark.parametrize("form", [by_loop, by_tree], ids=["loop", "tree"])
def test_blocks_and_forms_give_what_a_scan_gives(form, monkeypatch):
    """21 steps in blocks of 8, with lengths, NaN padding and packed rows."""
    monkeypatch.setattr(recurrence, "run_steps", form)
    monkeypatch.setattr(recurrence, "steps_in_block", lambda *_: 8)
    cell = jaxrnn.QRNNCell(UNITS)
    scanned = jaxrnn.FunctionCell(cell.apply, UNITS, UNITS, cell.init)
    params, xs, state = jax.tree.map(jnp.asarray, data(cell))
    lengths = jnp.asarray([TIME, 0, 13])
    packed = jaxrnn.pack_sequences(xs, lengths)
    dead = jnp.arange(TIME)[None, :, None] >= lengths[:, None, None]
    xs = jnp.where(dead, jnp.nan, xs)

    def everything(cell, params, xs, state):
        outputs, last = jaxrnn.dynamic_rnn(cell.bind(params), xs, lengths, state)
        of_packs, ends = jaxrnn.packed_rnn(cell.bind(params), packed, state)
        results = outputs, last, packed.unpack(of_packs), ends
        return sum(jnp.sum(jnp.sin(x)) for x in results), results

    got, want = (
        jax.jit(jax.value_and_grad(everything, (1, 2, 3), True), static_argnums=0)(
            c, params, xs, state
        )
        for c in (cell, scanned)
    )
    close = lambda g, w: np.testing.assert_allclose(g, w, 1e-9, 1e-12)
    jax.tree.map(close, got, want)


def test_no_rows():
    """Run 64 steps, so that the tree is traced too."""
    cell, xs = jaxrnn.MinGRUCell(4), jnp.ones((0, 64, 4))
    params = drawn(cell, xs[:, 0])
    outputs, last = jaxrnn.dynamic_rnn(cell.bind(params), xs, dtype=xs.dtype)
    assert (outputs.shape, last.shape) == ((0, 64, 4), (0, 4))


@pytest.mark.fast("cell0")
@pytest.mark.parametrize("cell", [jaxrnn.LRUCell(DEPTH), jaxrnn.MLSTMCell(4)])
def test_a_plain_tuple_passes_for_a_state(cell):
    """As for an LSTM, whole sequences return it, but one step returns a named tuple."""
    params, xs, state = jax.tree.map(jnp.asarray, data(cell))
    bound, plain = cell.bind(params), tuple(state)
    assert isinstance(bound(xs[:, 0], plain)[1], type(state))
    got, want = (jaxrnn.dynamic_rnn(bound, xs, initial_state=s) for s in (plain, state))
    assert_same(got, (want[0], tuple(want[1])))


@dataclasses.dataclass(frozen=True, eq=False)
class Custom(jaxrnn.LinearRecurrenceCell):
    """A recurrence with given coefficients."""

    result: tuple
    state_size = output_size = 2

    def param_specs(self, depth):
        return {"w": jaxrnn.ParamSpec((depth,), ZEROS)}

    def coefficients(self, params, inputs):
        return self.result


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
    cell, xs = Turning(), data(jaxrnn.MinGRUCell(2), 2)[1]
    want = np.zeros((BATCH, 2), complex)
    for t in range(TIME - 2):
        u = xs[:, t] / np.linalg.norm(xs[:, t], axis=-1, keepdims=True)
        want = (0.5 + 0.5j) * want + u - 1j * u

    def loss(w):
        outputs, last = jaxrnn.dynamic_rnn(
            cell.bind({"w": w}), xs, [TIME - 2, 1, 2], dtype=jnp.float64
        )
        return jnp.sum(outputs.real), (outputs, last)

    (_, (outputs, last)), slope = jax.value_and_grad(loss, has_aux=True)(jnp.zeros(2))
    np.testing.assert_allclose(last.real[0], want.real[0], rtol=1e-9)
    np.testing.assert_allclose(outputs.imag[0, TIME - 3], want.imag[0], rtol=1e-9)
    assert jnp.all(jnp.isfinite(slope))


def test_rows_may_be_symbolic():
    cell = jaxrnn.LRUCell(3)
    params, xs, _ = data(cell, 3)
    bound = cell.bind(jax.tree.map(jnp.asarray, params))
    run = jax.jit(lambda x: jaxrnn.dynamic_rnn(bound, x, dtype=x.dtype)[0])
    shape = jax.export.symbolic_shape(f"b,{TIME},3")
    exported = jax.export.export(run)(jax.ShapeDtypeStruct(shape, xs.dtype))
    np.testing.assert_allclose(exported.call(xs), run(xs), rtol=1e-12)


@pytest.mark.fast("cell0")
@pytest.mark.parametrize("cell", [jaxrnn.MinGRUCell(2), jaxrnn.MLSTMCell(4, 2)])
def test_a_second_gradient_outside_of_jit_compiles_nothing(cell, caplog):
    params, _, _ = data(cell, 3)
    xs, params = jnp.ones((2, 70, 3)), jax.tree.map(jnp.asarray, params)
    loss = lambda p: jnp.sum(jaxrnn.dynamic_rnn(cell.bind(p), xs, dtype=xs.dtype)[0])
    jax.grad(loss)(params)
    with jax.log_compiles():
        jax.grad(loss)(params)
    assert not [m for m in caplog.messages if "Compiling" in m]


@pytest.mark.parametrize(("platform", "size"), [("cpu", 512), ("tpu", 1024)])
def test_the_platform_of_the_mesh_decides_the_size_of_blocks(
    platform, size, monkeypatch
):
    monkeypatch.setattr(recurrence, "platform_of", lambda _: platform)
    cell, xs = jaxrnn.MinGRUCell(128), jnp.ones((4 * size, 8, 16), jnp.float32)
    bound = cell.bind(drawn(cell, xs[0]))
    run = lambda xs: jaxrnn.dynamic_rnn(bound, xs, time_major=True, dtype=xs.dtype)
    text = jax.jit(run).lower(xs).as_text()
    assert f"tensor<4x{size}x8x16xf32>" in text


def step_of(*result):
    Custom(result).apply({"w": jnp.zeros(2)}, jnp.ones((3, 2)), jnp.ones((3, 2)))


def step_from(dtype):
    cell = jaxrnn.MinGRUCell(2)
    params, xs, state = data(cell)
    cell.apply(params, xs[:, 0], jnp.asarray(state, dtype))


REFUSALS = [
    (lambda: jaxrnn.QRNNCell(3, "of"), "`pooling` must be one of f, fo, ifo"),
    (lambda: jaxrnn.MinGRUCell(-1), "`num_units`"),
    (lambda: jaxrnn.MinLSTMCell(3, "gauss"), "`activation` must be one of"),
    (lambda: step_of(0.5, 0.5), r"not enough values to unpack \(expected 3"),
    (
        lambda: step_of((0.5, 0.5), 0.5, None),
        r"`a` must have the structure \*, got \(\*, \*\)",
    ),
    (
        lambda: step_of(jnp.ones((1, 3)), 0.5, None),
        "Incompatible types for broadcasting",
    ),
    (
        lambda: step_of(jnp.ones((1, 2), complex), 0.5, None),
        "`a` must hold real arrays, got complex128",
    ),
    (lambda: step_from(complex), "`state` must have dtype float64 or a wider one"),
]


@pytest.mark.parametrize(("make", "message"), REFUSALS)
def test_refusals(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
