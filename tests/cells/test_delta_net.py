"""The delta rule's cells: against two packages, and a NumPy loop of the paper."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Around, assert_near, bound, scanned, with_prefix

import jaxrnn
from jaxrnn import DeltaNetCell, GatedDeltaNetCell

FILE = np.load(pathlib.Path(__file__).parents[1] / "golden" / "delta_rule.npz")
BATCH, TIME, DEPTH = 4, 10, 3
UNITS, HEADS, KEY = 6, 2, 4
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(BATCH, TIME, DEPTH))
STATE = RNG.normal(size=(BATCH, HEADS, KEY, UNITS // HEADS))
START = RNG.normal(size=STATE.shape)
LENGTHS = np.array([TIME, 0, 7, 1])
RESETS = np.arange(TIME) % 3 == np.arange(BATCH)[:, None]


def run(cell, xs, *args, **kwargs):
    return jaxrnn.dynamic_rnn(cell, xs, *args, dtype=xs.dtype, **kwargs)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def equation_10(cell, xs, states, lengths, resets, start):
    """`(outputs, states)` of the paper, whose states are transposed, row by row."""
    p = {name: np.asarray(leaf) for name, leaf in cell.params.items()}
    sizes = np.cumsum([HEADS * KEY, HEADS * KEY, UNITS, HEADS, HEADS])
    outputs = np.zeros((*xs.shape[:2], UNITS))
    finals = states.copy()
    for row, n in np.ndindex(len(xs), HEADS):
        s = states[row, n].T
        for t in range(lengths[row]):
            z = xs[row, t] @ p["kernel"] + p["bias"]
            parts = [y.reshape(HEADS, -1)[n] for y in np.split(z, sizes)]
            q, k, v = (y * sigmoid(y) for y in parts[:3])
            q, k = (y / np.sqrt(y @ y + 1e-6) for y in (q, k))
            b, a, g = parts[3:]
            b = sigmoid(b)
            alpha = np.exp(-np.exp(p["a_log"][n]) * np.logaddexp(a, 0))
            s = start[row, n].T if resets[row, t] else s
            s = s @ (alpha * (np.eye(KEY) - b * np.outer(k, k))) + b * np.outer(v, k)
            h = s @ q
            h = h / np.sqrt(np.mean(h**2) + 1e-5) * p["norm_scale"]
            outputs[row, t].reshape(HEADS, -1)[n] = h * g * sigmoid(g)
        finals[row, n] = s.T
    return outputs, finals


@pytest.mark.fast("chunks-gated_neg", "chunks-delta", "steps-gated_neg")
@pytest.mark.parametrize("case", ["gated_neg", "gated_zero", "delta", "delta_zero_neg"])
@pytest.mark.parametrize("form", ["chunks", "steps"])
def test_same_as_the_packages(case, form):
    make = GatedDeltaNetCell if "gated" in case else DeltaNetCell
    cell = make(6, 2, 4, allow_neg_eigval="neg" in case, chunk_size=4)
    cell = cell if form == "chunks" else scanned(cell)
    golden = with_prefix(f"{case}/", FILE)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradients(given):
        params = with_prefix("params/", given)
        made = run(cell.bind(params), given["x"], initial_state=given.get("state/0"))
        return sum(jnp.sum(leaf**2) for leaf in made), made

    want = with_prefix("grads/", golden)
    got, made = gradients({name: golden[name] for name in want})
    assert_near(made, (golden["outputs"], golden["final/0"]), tolerance=1e-14)
    assert_near(got, want, tolerance=1e-13)


def test_same_as_equation_10():
    """Also with lengths, resets to zeros and to a state, packed and as a stream."""
    cell = bound(GatedDeltaNetCell(UNITS, HEADS, KEY, chunk_size=4))
    never, zeros = np.zeros_like(RESETS), np.zeros_like(STATE)
    near = functools.partial(assert_near, tolerance=1e-13)
    for start in (None, START):
        got = run(cell, XS, LENGTHS, STATE, resets=RESETS, reset_state=start)
        start = zeros if start is None else start
        near(got, equation_10(cell, XS, STATE, LENGTHS, RESETS, start))
    packed = jaxrnn.pack_sequences(XS, LENGTHS)
    for state in (None, STATE):
        outputs, last = jaxrnn.packed_rnn(cell, packed, state, dtype=XS.dtype)
        state = zeros if state is None else state
        want = equation_10(cell, XS, state, LENGTHS, never, zeros)
        near((packed.unpack(outputs), last), want)
    outputs, last, states = run(cell, XS, initial_state=STATE, return_states=True)
    step = jax.jit(lambda x, state: cell(x, state))
    state = STATE
    for t in range(TIME):
        output, state = step(XS[:, t], state)
        near((output, state), (outputs[:, t], states[:, t]))
    near(last, state)


@pytest.mark.fast("chunks-4")
@pytest.mark.parametrize("size", [4, 16, None], ids=["chunks-4", "chunks-16", "steps"])
def test_nan_stays_where_no_later_step_reads_it(size):
    """In padding, before a reset, and in a state that step 0 resets."""
    cell = GatedDeltaNetCell(UNITS, HEADS, KEY, chunk_size=size or 1)
    cell = bound(cell if size else scanned(cell))
    resets = np.zeros((BATCH, TIME), bool)
    resets[[0, 2], [6, 0]] = True
    bad, bad_state = XS.copy(), STATE.copy()
    bad[0, 2] = bad[1] = bad[2, 5:] = bad[3, 1:] = bad_state[2] = np.nan
    both = jax.jit(lambda x, s: run(cell, x, LENGTHS, s, resets=resets))
    (got, got_last), (want, last) = both(bad, bad_state), both(XS, STATE)
    # Row 0 is reset at step 6; row 2 ends after step 6, with zeros beyond.
    want = want.at[0, 2:6].set(np.nan).at[2, 5:7].set(np.nan)
    last = last.at[2].set(np.nan)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(got_last, last, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("factor", [1, 2])
def test_a_value_changes_its_sign_only_if_b_may_be_2(factor):
    """With v = 0, b = 2 makes the memory count steps modulo 2; b = 1 clears it."""
    cell = DeltaNetCell(1, key_size=1, allow_neg_eigval=factor == 2, activation="relu")
    # Columns q, k, v and b: q and k are 1, v is 0, and the sigmoid of b is 1.
    params = {
        "kernel": jnp.zeros((1, 4)),
        "bias": jnp.array([1e4, 1e4, 0.0, 50.0]),
        "norm_scale": jnp.ones(1),
    }
    xs = jnp.zeros((1, 5, 1))
    got, _ = run(cell.bind(params), xs, initial_state=jnp.full((1, 1, 1, 1), 7.0))
    want = [-1, 1, -1, 1, -1] if factor == 2 else [0] * 5
    np.testing.assert_allclose(got[0, :, 0], want, atol=1e-6)


@pytest.mark.slow
def test_half_precision_loses_little_with_a_state_of_float32():
    exact = bound(GatedDeltaNetCell(8, 2))
    x = np.random.default_rng(1).normal(size=(2, 64, 3))
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), (exact, x))
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), half)
    want, _ = run(*rounded)
    got, last = run(*half, initial_state=exact.zero_state(2, jnp.float32))
    assert (got.dtype, last.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(got.astype(jnp.float64), want, rtol=0.01, atol=0.02)


@pytest.mark.slow
def test_a_short_convolution_of_the_inputs():
    cell = GatedDeltaNetCell(UNITS, HEADS, KEY, chunk_size=4)
    wrapped = bound(jaxrnn.TemporalConvWrapper(cell, DEPTH, 4))
    params = jax.tree.map(np.asarray, wrapped.params)
    padded = np.concatenate([np.zeros_like(XS[:, :3]), XS], axis=1)
    taps = [params["kernel"][j] * padded[:, j : j + TIME] for j in range(4)]
    inner = cell.bind(params["gated_delta_net_cell"])
    want, _ = run(inner, sum(taps) + params["bias"])
    assert_near(run(wrapped, XS)[0], want, tolerance=1e-13)


@pytest.mark.parametrize("make", [GatedDeltaNetCell, DeltaNetCell])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_heads": 4}, "`num_heads` must divide `num_units"),
        ({"key_size": 0}, "`key_size` must be at least 1"),
        ({"chunk_size": 0}, "`chunk_size` must be at least 1"),
    ],
)
def test_refusals(make, fields, message):
    with pytest.raises(ValueError, match=message):
        make(6, **fields)


class FromOnes(Around):
    """Hands whole sequences to a cell that would start from zeros."""

    def zero_state(self, batch_size, dtype):
        return jax.tree.map(jnp.ones_like, super().zero_state(batch_size, dtype))


def test_rows_restart_from_the_zero_state_of_a_cell_that_defines_it():
    cell = bound(FromOnes(DeltaNetCell(UNITS, HEADS, KEY, chunk_size=4)))
    ones = np.ones_like(STATE)
    got = run(cell, XS, resets=RESETS)
    want = run(cell, XS, initial_state=ones, resets=RESETS, reset_state=ones)
    assert_near(got, want, tolerance=1e-13)
    packed = jaxrnn.pack_sequences(XS, LENGTHS)
    got = jaxrnn.packed_rnn(cell, packed, dtype=XS.dtype)
    assert_near(got, jaxrnn.packed_rnn(cell, packed, ones), tolerance=1e-13)


def test_sizes_of_zero():
    for cell in (DeltaNetCell(0), jaxrnn.MLSTMCell(0)):
        assert run(bound(cell), XS)[0].shape == (BATCH, TIME, 0)
    assert run(bound(DeltaNetCell(4)), XS[:0])[0].shape == (0, TIME, 4)
