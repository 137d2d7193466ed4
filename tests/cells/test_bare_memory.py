"""Memories without projections, and the options of published layers."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, bound, differentiated, scanned

import jaxrnn
from jaxrnn import (
    DeltaInputs,
    DeltaMemoryCell,
    DPLRInputs,
    DPLRMemoryCell,
    LinearAttentionInputs,
    LinearAttentionMemoryCell,
    MLSTMCell,
    MLSTMInputs,
    MLSTMMemoryCell,
)
from jaxrnn.testing import check_cell

ROWS, TIME, HEADS, KEY, VALUE = 3, 11, 4, 3, 2
RNG = np.random.default_rng(0)
SHAPES = [(2, KEY), (2, KEY), (HEADS, VALUE), (HEADS,), (HEADS,)]
INPUTS = [RNG.normal(size=(ROWS, TIME, *shape)) for shape in SHAPES]
DELTA = DeltaInputs(*INPUTS[:3], -np.abs(INPUTS[3]), 1 / (1 + np.exp(-INPUTS[4])))
# Decays from almost 1 to almost 0, of which -inf is the edge.
G = -np.exp(RNG.uniform(-6, 4, size=(ROWS, TIME, HEADS, KEY)))
G[RNG.random(G.shape) < 0.05] = -np.inf
A, B = RNG.normal(size=(2, ROWS, TIME, HEADS, KEY))
by_keys = functools.partial(functools.partial, key_decay=True)
MEMORIES = {
    "linear": (
        LinearAttentionMemoryCell,
        LinearAttentionInputs(*INPUTS[:3], G[..., 0]),
    ),
    "linear_key_decay": (
        by_keys(LinearAttentionMemoryCell),
        LinearAttentionInputs(*INPUTS[:3], G),
    ),
    "delta": (DeltaMemoryCell, DELTA),
    "delta_key_decay": (by_keys(DeltaMemoryCell), DELTA._replace(g=G)),
    "dplr": (DPLRMemoryCell, DPLRInputs(*INPUTS[:3], A, B, G)),
    "mlstm": (MLSTMMemoryCell, MLSTMInputs(*INPUTS)),
}
LENGTHS = np.array([11, 0, 6])


def linear_step(q, k, v, g, s):
    s = np.exp(g).reshape(-1, 1) * s + np.outer(k, v)
    return q @ s / np.sqrt(KEY), s


def delta_step(q, k, v, g, beta, s):
    s = np.exp(g).reshape(-1, 1) * s
    s = s + beta * np.outer(k, v - k @ s)
    return q @ s / np.sqrt(KEY), s


def dplr_step(q, k, v, a, b, g, s):
    s = np.diag(np.exp(g)) @ s + np.outer(b, a @ s) + np.outer(k, v)
    return q @ s / np.sqrt(KEY), s


def mlstm_step(q, k, v, i, f, s):
    """The equations without the scale m, for small gates."""
    keep, k = 1 / (1 + np.exp(-f)), k / np.sqrt(KEY)
    c, n = keep * s[:, :-1], keep * s[:, -1]
    c, n = c + np.exp(i) * np.outer(k, v), n + np.exp(i) * k
    return q @ c / max(abs(q @ n), 1), np.c_[c, n]


@pytest.mark.parametrize("name", MEMORIES)
def test_equations_with_shared_keys(name):
    """Two heads of values share the keys; rows end, and a row has no steps."""
    make, inputs = MEMORIES[name]
    cell = make(HEADS, KEY, VALUE, num_key_heads=2, chunk_size=4).bind({})
    got, _ = jaxrnn.dynamic_rnn(cell, inputs, LENGTHS, dtype=float)
    step = globals()[name.removesuffix("_key_decay") + "_step"]
    want = np.zeros(got.shape)
    for row, head in np.ndindex(ROWS, HEADS):
        s = np.zeros((KEY, VALUE + (name == "mlstm")))
        for t in range(LENGTHS[row]):
            q, k = (x[row, t, head // 2] for x in inputs[:2])
            others = (x[row, t, head] for x in inputs[2:])
            want[row, t, head], s = step(q, k, *others, s)
    np.testing.assert_allclose(got, want, atol=3e-5 if name == "mlstm" else 1e-12)


@pytest.mark.parametrize("name", MEMORIES)
def test_gradients_with_shared_keys_are_those_of_repeated_keys(name):
    make, inputs = MEMORIES[name]

    def run(inputs, heads):
        cell = make(HEADS, KEY, VALUE, heads, chunk_size=4).bind({})
        repeated = [jnp.repeat(x, HEADS // x.shape[2], 2) for x in inputs[:2]]
        inputs = inputs if heads == 2 else type(inputs)(*repeated, *inputs[2:])
        return jaxrnn.dynamic_rnn(cell, inputs, LENGTHS, dtype=float)

    shared, repeated = (
        differentiated(functools.partial(run, heads=n), inputs) for n in (2, None)
    )
    assert_near(shared, repeated, tolerance=1e-12)


@pytest.mark.parametrize("name", MEMORIES)
def test_the_scale_multiplies_queries(name):
    make, inputs = MEMORIES[name]
    run = lambda inputs, **options: jaxrnn.dynamic_rnn(
        make(HEADS, KEY, VALUE, 2, chunk_size=4, **options).bind({}),
        inputs,
        dtype=float,
    )[0]
    # In an mLSTM, the normalizer reads the scaled keys too.
    scaled = {"k": 3 * inputs.k} if name == "mlstm" else {"q": 3 * inputs.q}
    got = run(inputs, scale=3 / np.sqrt(KEY))
    want = run(inputs._replace(**scaled))
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["linear_key_decay", "delta_key_decay", "dplr"])
def test_no_decay_overflows_in_float32(name):
    """Chunks equal single steps where `exp` of the sum of decays is beyond float32."""
    make, inputs = MEMORIES[name]
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    units = {n: unit(getattr(inputs, n)) for n in "kab" if n in inputs._fields}
    inputs = inputs._replace(**units, g=np.where(G < -1, -80.0, G))

    def run(cell, dtype):
        given = type(inputs)(*(jnp.asarray(x, dtype) for x in inputs))
        return jaxrnn.dynamic_rnn(cell.bind({}), given, dtype=dtype)

    cell = make(HEADS, KEY, VALUE, 2, chunk_size=16)
    got, want = run(cell, jnp.float32), run(scanned(cell), float)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, atol=3e-5)


def test_vectors_of_rwkv7_never_count_as_growth():
    """a is -k and b is k times a rate in (0, 1), in chunks of any size."""
    rng = np.random.default_rng(3)
    k = rng.normal(size=(1, 256, 1, 8))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    rate, g = rng.random(k.shape), -0.6 * rng.random(k.shape)
    inputs = DPLRInputs(k, k, k, -k, k * rate, g)
    cell = DPLRMemoryCell(1, 8, 8, chunk_size=64)
    got, want = (
        jaxrnn.dynamic_rnn(each.bind({}), inputs, dtype=float)[0]
        for each in (cell, scanned(cell))
    )
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_closed_gates_write_and_keep_nothing():
    """Logarithms may be -inf: all steps forget, and the last step does not write."""
    closed = np.arange(TIME)[None, :, None] == TIME - 1
    i = np.where(closed, -np.inf, INPUTS[3])
    f = np.broadcast_to(np.where(closed, np.inf, -np.inf), i.shape)
    cell = MLSTMMemoryCell(HEADS, KEY, VALUE, 2, chunk_size=4).bind({})
    inputs = MLSTMInputs(*INPUTS[:3], i, f)
    outputs, last = jaxrnn.dynamic_rnn(cell, inputs, dtype=float)
    assert np.isfinite(outputs).all()
    k, v = (x[:, -2] for x in INPUTS[1:3])
    want = np.einsum("bnk,bnv->bnkv", np.repeat(k, 2, 1) / np.sqrt(KEY), v)
    scale = np.exp(last.m - i[:, -2])[..., None, None]
    np.testing.assert_allclose(last.c * scale, want, rtol=1e-9)


def test_keys_that_make_the_memory_grow_spoil_no_other_span():
    """Their steps are NaN up to the next reset."""
    cell = DeltaMemoryCell(HEADS, KEY, VALUE, 2, chunk_size=8).bind({})
    resets = np.arange(TIME)[None] == np.array([[4], [6], [0]])
    run = lambda inputs: jaxrnn.dynamic_rnn(cell, inputs, resets=resets, dtype=float)[0]
    k = DELTA.k / np.linalg.norm(DELTA.k, axis=-1, keepdims=True)
    inputs = DELTA._replace(k=k)
    got = run(
        inputs._replace(k=np.where(np.arange(TIME)[:, None, None] == 2, 1e100 * k, k))
    )
    want = np.array(run(inputs))
    want[0, 2:4] = want[1, 2:6] = want[2, 2:] = np.nan
    np.testing.assert_allclose(got, want, rtol=1e-9)
    # The memory of each episode may grow.
    one, b = np.ones((1, 64, 1, 1)), np.where(np.arange(64) % 6 < 5, 1e20, 0.5)
    inputs = DeltaInputs(one, one, one, 0 * one[..., 0], b[None, :, None])
    again = {"resets": np.arange(64)[None] % 6 == 0, "dtype": float}
    plain = DeltaMemoryCell(1, 1, 1, chunk_size=32)
    got, want = (
        np.asarray(jaxrnn.dynamic_rnn(each.bind({}), inputs, **again)[0])
        for each in (plain, scanned(plain))
    )
    assert np.isfinite(want).all()
    np.testing.assert_allclose(got, want, rtol=1e-9)
    inputs = DELTA._replace(k=k)
    # A few keys may be long.
    long = inputs._replace(
        k=np.where(np.arange(TIME)[:, None, None] % 5 == 2, 9 * k, k)
    )
    steps = scanned(DeltaMemoryCell(HEADS, KEY, VALUE, 2)).bind({})
    want, _ = jaxrnn.dynamic_rnn(steps, long, resets=resets, dtype=float)
    np.testing.assert_allclose(run(long), want, rtol=1e-9)


def test_a_memory_that_grows_over_chunks_spoils_no_other_span():
    """Each step multiplies the memory by -3; it overflows 81 steps after step 0."""
    one = np.ones((1, 128, 1, 2), np.float32)
    zero = np.zeros((1, 128, 1), np.float32)
    inputs = DeltaInputs(one, one, one, zero, zero + 2)
    cell = DeltaMemoryCell(1, 2, 2, chunk_size=32)
    resets = np.arange(128)[None] == 90
    got, want = (
        jaxrnn.dynamic_rnn(each.bind({}), inputs, resets=resets, dtype=jnp.float32)[0]
        for each in (cell, scanned(cell))
    )
    assert not np.isfinite(want[0, 81:90]).any()
    for part in (slice(41), slice(90, 128)):
        np.testing.assert_allclose(got[:, part], want[:, part], rtol=2e-5)


def chosen_and_chunks(name):
    """Runs of a memory that chooses its loop, and of one that runs in chunks."""
    make, inputs = MEMORIES[name]
    options = {"resets": np.arange(TIME)[None] == [[3], [0], [5]], "dtype": float}
    runs = [
        lambda inputs, size=size: jaxrnn.dynamic_rnn(
            make(HEADS, KEY, VALUE, 2, chunk_size=size).bind({}),
            inputs,
            LENGTHS,
            return_states=True,
            **options,
        )
        for size in (None, 4)
    ]
    return runs, inputs


@pytest.mark.parametrize("name", [n for n in MEMORIES if n != "mlstm"])
def test_a_small_memory_is_scanned_only_without_derivatives(name):
    """With NaN in the padding."""
    (chosen, chunks), inputs = chosen_and_chunks(name)
    total = lambda inputs: jnp.sum(chosen(inputs)[0] ** 2)
    of_scan = f"length={TIME}"
    assert of_scan in str(jax.make_jaxpr(chosen)(inputs))
    assert of_scan not in str(jax.make_jaxpr(jax.grad(total))(inputs))
    padded = inputs._replace(v=np.array(inputs.v))
    padded.v[0, LENGTHS[0] :] = padded.v[2, LENGTHS[2] :] = np.nan
    assert_near(jax.jit(chosen)(padded), jax.jit(chunks)(padded), tolerance=1e-12)
    got, want = differentiated(chosen, padded), differentiated(chunks, padded)
    assert_near(got, want, tolerance=1e-12)


@pytest.mark.parametrize(
    ("sizes", "options", "rows", "is_scanned"),
    [
        ((2, 32, 32), {}, 64, True),
        ((2, 64, 64), {}, 8, False),
        ((2, 64, 64), {}, 1, True),
        ((2, 64, 64), {"key_decay": True}, 8, True),
        ((2, 128, 128), {"key_decay": True}, 8, False),
        ((2, 128, 128), {"key_decay": True}, 1, True),
        ((2, 32, 32), {"chunk_size": 32}, 64, False),
    ],
)
def test_explain_says_whether_a_call_is_scanned(sizes, options, rows, is_scanned):
    cell = DeltaMemoryCell(*sizes, **options)
    shape = lambda size: jax.ShapeDtypeStruct((rows, 40, *size), jnp.float32)
    inputs = DeltaInputs(*map(shape, cell.input_sizes))
    found = jaxrnn.explain(cell.bind({}), inputs, dtype=jnp.float32)
    reason = "a scan, which runs without derivatives, is slower with them"
    assert (found.loop, found.reason) == ("chunks", reason if is_scanned else "")


def test_options_of_xlstm():
    """Keys of their own size, capped gates, and a norm before the output gate."""
    rng = np.random.default_rng(1)
    plain = bound(MLSTMCell(8, 2, key_size=KEY))
    params = plain.params | {"norm_scale": rng.normal(size=8)}
    options = {"gate_soft_cap": 1.5, "norm_epsilon": 1e-6}
    cell = dataclasses.replace(plain.cell, **options).bind(params)
    x = rng.normal(size=(ROWS, TIME, 3))
    z = x @ np.asarray(params["kernel"]) + np.asarray(params["bias"])
    q, k, v, o, i, f = np.split(z, np.cumsum([6, 6, 8, 8, 2]), axis=-1)
    i, f = (1.5 * np.tanh(gate / 1.5) for gate in (i, f))
    heads = [y.reshape(ROWS, TIME, 2, -1) for y in (q, k, v)]
    memory = MLSTMMemoryCell(2, KEY, 4).bind({})
    h = jaxrnn.dynamic_rnn(memory, MLSTMInputs(*heads, i, f), dtype=float)[0]
    h = np.asarray(h)
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-6)
    want = h.reshape((*x.shape[:2], 8)) * params["norm_scale"] / (1 + np.exp(-o))
    got, _ = jaxrnn.dynamic_rnn(cell, x, dtype=float)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_old_names_of_inputs_say_the_new_ones():
    names = dict.fromkeys(("q", "k", "v"), 0)
    for old, text in {"log_a": "Use `g`.", "b": "Use `beta`."}.items():
        error = f"`{old}` is not an argument of `DeltaInputs`. {text}"
        with pytest.raises(TypeError, match=re.escape(error)):
            DeltaInputs(**names, **{old: 0})


def test_wrong_inputs_name_the_leaf():
    cell = DeltaMemoryCell(HEADS, KEY, VALUE, num_key_heads=2).bind({})
    step = DeltaInputs(*(x[:, 0] for x in DELTA))
    state = cell.zero_state(ROWS, float)
    wrong = {
        "`inputs` must be a `DeltaInputs` (q, k, v, g, beta), got (": step[:4],
        "`inputs` must be a `DeltaInputs` (q, k, v, g, beta), got MLSTM": MLSTMInputs(
            *step
        ),
        "`inputs.q` must be [batch, 2, 3] for DeltaMemoryCell": step._replace(q=step.v),
        "`inputs.beta` must be [batch, 4] for": step._replace(
            beta=step.beta[..., None]
        ),
        "`inputs.v` must have 3 rows, as `inputs.q` has": step._replace(v=step.v[:1]),
        "`inputs.g` must be floating-point": step._replace(g=step.beta > 0),
        "`inputs.k` must be real": step._replace(k=step.k + 1j),
    }
    for message, inputs in wrong.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            cell(inputs, state)
    with pytest.raises(TypeError, match=r"The cell has no parameters: call `bind"):
        cell.cell.bind(None)(step, state)
    with pytest.raises(
        ValueError, match=r"`num_key_heads` must divide `num_heads` \(4\)"
    ):
        DeltaMemoryCell(HEADS, KEY, VALUE, num_key_heads=3)


@pytest.mark.parametrize("per_gate", [False, True])
def test_a_layer_normalized_gru_is_dreamers(per_gate):
    """A loop in NumPy, with the operations of DreamerV2's `GRUCell` in its order."""
    rng = np.random.default_rng(1)
    units, depth = 4, 3
    kernel = rng.normal(size=(depth + units, 3 * units))
    gamma, beta = rng.normal(size=(2, 3 * units))
    cell = jaxrnn.LayerNormGRUCell(units, norm_per_gate=per_gate)
    x, h = rng.normal(size=(ROWS, TIME, depth)), rng.normal(size=(ROWS, units))
    params = {"kernel": kernel, "norm": {"gamma": gamma, "beta": beta}}
    got, last = jaxrnn.dynamic_rnn(cell.bind(params), x, LENGTHS, h)
    sigmoid = lambda y: 1 / (1 + np.exp(-y))
    for t in range(TIME):
        z = np.concatenate([x[:, t], h], axis=-1) @ kernel
        z = z.reshape(ROWS, 3 if per_gate else 1, -1)
        z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-3)
        r, c, u = np.split(z.reshape(ROWS, -1) * gamma + beta, 3, axis=-1)
        u = sigmoid(u - 1)
        alive = (t < LENGTHS)[:, None]
        h = np.where(alive, u * np.tanh(sigmoid(r) * c) + (1 - u) * h, h)
        np.testing.assert_allclose(got[:, t], np.where(alive, h, 0), atol=1e-13)
    np.testing.assert_allclose(last, h, atol=1e-13)


@pytest.mark.slow
def test_the_laws_of_a_memory_that_chooses_its_loop():
    cell = LinearAttentionMemoryCell(2, 3, 2)
    shape = lambda size: jax.ShapeDtypeStruct((4, *size), jnp.float32)
    check_cell(cell, LinearAttentionInputs(*map(shape, cell.input_sizes)))
