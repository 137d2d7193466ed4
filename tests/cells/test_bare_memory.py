"""Memories without projections: extreme numbers, and the choice of the loop."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, differentiated, drawn, largest_error

import jaxrnn
from jaxrnn import (
    DeltaInputs,
    DeltaMemoryCell,
    DPLRInputs,
    DPLRMemoryCell,
    LinearAttentionInputs,
    LinearAttentionMemoryCell,
    MLSTMInputs,
    MLSTMMemoryCell,
    RWKV6MemoryCell,
)
from jaxrnn.testing import check_cell

F32 = jnp.float32

ROWS, TIME, HEADS, KEY, VALUE = 3, 11, 4, 3, 2
RNG = np.random.default_rng(0)
SHAPES = [(2, KEY), (2, KEY), (HEADS, VALUE), (HEADS,), (HEADS,)]
INPUTS = [RNG.normal(size=(ROWS, TIME, *shape)) for shape in SHAPES]
DELTA = DeltaInputs(*INPUTS[:3], -np.abs(INPUTS[3]), 1 / (1 + np.exp(-INPUTS[4])))
# Decays from almost 1 to almost 0, of which -inf is the edge.
G = -np.exp(RNG.uniform(-6, 4, size=(ROWS, TIME, HEADS, KEY)))
G[RNG.random(G.shape) < 0.05] = -np.inf
A, B = RNG.normal(size=(2, ROWS, TIME, HEADS, KEY))
SIZES = HEADS, KEY, VALUE, 2  # Two heads share the keys.
WITH_KEY_DECAYS = {
    "linear": (
        LinearAttentionMemoryCell(*SIZES, key_decay=True, chunk_size=16),
        LinearAttentionInputs(*INPUTS[:3], G),
    ),
    "delta": (
        DeltaMemoryCell(*SIZES, key_decay=True, chunk_size=16),
        DELTA._replace(g=G),
    ),
    "dplr": (
        DPLRMemoryCell(*SIZES, chunk_size=16),
        DPLRInputs(*INPUTS[:3], A, B, G),
    ),
    "rwkv6": (
        RWKV6MemoryCell(*SIZES, chunk_size=16),
        LinearAttentionInputs(*INPUTS[:3], G),
    ),
}
LENGTHS = np.array([11, 0, 6])


def bound(cell, inputs):
    """The cell with random parameters, if it has any."""
    return cell.bind(drawn(cell, jax.tree.map(lambda x: x[:, 0], inputs)))


@pytest.mark.fast("dplr")
@pytest.mark.parametrize("name", WITH_KEY_DECAYS)
def test_no_decay_overflows_in_float32(name):
    """Chunks equal single steps where `exp` of the sum of decays is beyond float32."""
    cell, inputs = WITH_KEY_DECAYS[name]
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    units = {n: unit(getattr(inputs, n)) for n in "kab" if n in inputs._fields}
    inputs = inputs._replace(**units, g=np.where(G < -1, -80.0, G))

    def run(dtype, **options):
        given = type(inputs)(*(jnp.asarray(x, dtype) for x in inputs))
        return jaxrnn.dynamic_rnn(bound(cell, given), given, dtype=dtype, **options)

    got, want = run(jnp.float32), run(float, implementation="scan")
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, atol=3e-5)


def fast_and_slow(name, least):
    """A cell, and inputs whose decays are fast for 16 steps and then slow, twice."""
    rng, shape = np.random.default_rng(0), (2, 96, 2)
    fast = np.arange(96) % 48 < 16
    draw = lambda *size: rng.normal(size=(*shape, *size))
    q, k = abs(draw(8)), unit_vectors(rng, *shape, 8)
    v, gate = draw(8), 1 / (1 + np.exp(-draw()))
    g = np.where(fast[:, None, None], least, -0.01) - 1e-3 * abs(draw(8))
    if name == "mlstm":
        f = np.where(fast[:, None], least, 5.0) + 0 * gate
        return MLSTMMemoryCell(2, 8, 8), MLSTMInputs(q, abs(k), v, draw(), f)
    if name == "dplr":
        inputs = DPLRInputs(q, k, v, -k, k * gate[..., None], g)
        return DPLRMemoryCell(2, 8, 8, chunk_size=48), inputs
    if name == "rwkv6":
        inputs = LinearAttentionInputs(q, k, v, g)
        return RWKV6MemoryCell(2, 8, 8, chunk_size=48), inputs
    kind, of_keys = name.split("-")
    options = {"key_decay": of_keys == "keys", "chunk_size": 48}
    g = g if options["key_decay"] else g[..., 0]
    if kind == "linear":
        inputs = LinearAttentionInputs(q, k, v, g)
        return LinearAttentionMemoryCell(2, 8, 8, **options), inputs
    return DeltaMemoryCell(2, 8, 8, **options), DeltaInputs(q, k, v, g, gate)


@pytest.mark.fast("-87.0-delta-keys", "-20.0-mlstm")
@pytest.mark.parametrize(
    "name",
    "linear-heads linear-keys delta-heads delta-keys dplr mlstm rwkv6".split(),
)
@pytest.mark.parametrize("least", [-87.0, -20.0])
def test_fast_decays_round_away_no_slow_ones(least, name):
    """Float32 chunks against single steps in float64, in spans that begin at resets."""
    cell, inputs = fast_and_slow(name, least)
    resets = np.arange(96)[None] == [[7], [60]]

    def results(dtype, **options):
        def run(inputs):
            run = jaxrnn.dynamic_rnn
            return run(bound(cell, inputs), inputs, dtype=dtype, **options)

        given = jax.tree.map(lambda x: jnp.asarray(x, dtype), inputs)
        return differentiated(run, given)

    for options in {}, {"resets": resets}:
        exact = functools.partial(results, dtype=float, implementation="scan")
        both = results(dtype=F32, **options), exact(**options)
        leaves = (map(np.asarray, jax.tree.leaves(tree)) for tree in both)
        assert largest_error(zip(*leaves, strict=True)) < 5e-6


BOTH = None, "scan"  # Chunks and single steps.


def in_chunks_and_steps(cell, inputs, **options):
    """The outputs of the cell, and those of a scan."""
    run = functools.partial(jaxrnn.dynamic_rnn, cell.bind({}), inputs, **options)
    return tuple(run(implementation=name)[0] for name in BOTH)


def unit_vectors(rng, *shape):
    k = rng.normal(size=shape)
    return k / np.linalg.norm(k, axis=-1, keepdims=True)


def long_keys():
    """A step may multiply the memory by -5, which the values prevent."""
    rng = np.random.default_rng(3)
    k, v = unit_vectors(rng, 2, 1, 32, 1, 256)
    zero = np.zeros((1, 32, 1))
    inputs = DeltaInputs(k, 6**0.5 * k, v, zero, zero + 1)
    return DeltaMemoryCell(1, 256, 256, chunk_size=32), inputs


def vectors_of_rwkv7():
    """a is -k, and b is k times a rate in (0, 1) for each key."""
    rng = np.random.default_rng(3)
    k = unit_vectors(rng, 1, 512, 1, 64)
    rate, g = rng.random(k.shape), -0.6 * rng.random(k.shape)
    inputs = DPLRInputs(k, k, k, -k, k * rate, g)
    return DPLRMemoryCell(1, 64, 64, chunk_size=512), inputs


@pytest.mark.parametrize("make", [long_keys, vectors_of_rwkv7])
def test_no_bound_rejects_a_step_that_a_scan_runs(make):
    cell, inputs = make()
    inputs = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), inputs)

    def results(implementation):
        options = {"dtype": jnp.float32, "implementation": implementation}
        run = lambda x: jaxrnn.dynamic_rnn(cell.bind({}), x, **options)[0]
        return differentiated(run, inputs)

    got, want = map(results, BOTH)
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WITH_KEY_DECAYS)
def test_a_decay_in_place_of_its_logarithm_warns(name):
    """Where it is known. Some growth, no decay and traced values are no mistakes."""
    cell, inputs = WITH_KEY_DECAYS[name]
    run = lambda x: jaxrnn.dynamic_rnn(bound(cell, x), x, dtype=float)
    some = np.where(np.arange(KEY) == 0, 0.1, -0.1)
    for g in G, np.zeros_like(G), np.broadcast_to(some, G.shape):
        run(inputs._replace(g=g))
    decays = inputs._replace(g=np.exp(G))
    with pytest.warns(UserWarning, match="`g`"):
        run(decays)
    jax.jit(run)(decays)


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


@pytest.mark.parametrize("length", [1e200, 1e100, 9.0])
def test_long_keys_spoil_no_other_span(length):
    """If a product overflows, the results are NaN up to the next reset."""
    resets = np.arange(TIME)[None] == np.array([[4], [6], [0]])
    cell = DeltaMemoryCell(*SIZES, chunk_size=8)
    k = DELTA.k / np.linalg.norm(DELTA.k, axis=-1, keepdims=True)
    k[:, 2] *= length
    run = jax.jit(lambda x: in_chunks_and_steps(cell, x, resets=resets, dtype=float))
    got, want = run(DELTA._replace(k=k))
    assert np.isfinite(want).all() == (length < 1e200)
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_the_memory_of_each_episode_may_grow():
    one, beta = np.ones((1, 64, 1, 1)), np.where(np.arange(64) % 6 < 5, 1e20, 0.5)
    inputs = DeltaInputs(one, one, one, 0 * one[..., 0], beta[None, :, None])
    again = {"resets": np.arange(64)[None] % 6 == 0, "dtype": float}
    cell = DeltaMemoryCell(1, 1, 1, chunk_size=32)
    got, want = in_chunks_and_steps(cell, inputs, **again)
    assert np.isfinite(want).all()
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_a_memory_that_grows_over_chunks_spoils_no_other_span():
    """Each step multiplies the memory by -3; it overflows 81 steps after step 0."""
    one = np.ones((1, 128, 1, 2), np.float32)
    zero = np.zeros((1, 128, 1), np.float32)
    inputs = DeltaInputs(one, one, one, zero, zero + 2)
    cell = DeltaMemoryCell(1, 2, 2, chunk_size=32)
    options = {"resets": np.arange(128)[None] == 90, "dtype": jnp.float32}
    got, want = in_chunks_and_steps(cell, inputs, **options)
    assert not np.isfinite(want[0, 81:90]).any()
    for part in (slice(41), slice(90, 128)):
        np.testing.assert_allclose(got[:, part], want[:, part], rtol=2e-5)


@pytest.mark.slow
def test_a_small_memory_is_scanned_only_without_derivatives():
    """With NaN in the padding."""
    options = {"resets": np.arange(TIME)[None] == [[3], [0], [5]], "dtype": float}
    chosen, chunks = (
        lambda inputs, size=size: jaxrnn.dynamic_rnn(
            DeltaMemoryCell(*SIZES, chunk_size=size).bind({}),
            inputs,
            LENGTHS,
            return_states=True,
            **options,
        )
        for size in (None, 4)
    )
    total = lambda inputs: jnp.sum(chosen(inputs)[0] ** 2)
    # Chunks scan the steps only under a condition.
    alone, of_chunks = f"length={TIME}", "cond["
    program = str(jax.make_jaxpr(chosen)(DELTA))
    assert alone in program
    assert of_chunks not in program
    assert of_chunks in str(jax.make_jaxpr(jax.grad(total))(DELTA))
    padded = DELTA._replace(v=np.array(DELTA.v))
    padded.v[0, LENGTHS[0] :] = padded.v[2, LENGTHS[2] :] = np.nan
    got, want = differentiated(chosen, padded), differentiated(chunks, padded)
    assert_near(got, want, tolerance=1e-12)
    assert_near(jax.jit(chosen)(padded), want[0], tolerance=1e-12)


# The sizes of a memory, its options, the number of rows, and whether it is scanned.
CHOICES = [
    ((2, 32, 32), {}, 64, True),
    ((2, 64, 64), {}, 8, False),
    ((2, 64, 64), {}, 1, True),
    ((2, 64, 64), {"key_decay": True}, 8, True),
    ((2, 128, 128), {"key_decay": True}, 8, False),
    ((2, 128, 128), {"key_decay": True}, 1, True),
    ((2, 32, 32), {"chunk_size": 32}, 64, False),
]


@pytest.mark.loops
@pytest.mark.fast("sizes[0246]*")
@pytest.mark.parametrize(("sizes", "options", "rows", "is_scanned"), CHOICES)
def test_explain_says_whether_a_call_is_scanned(sizes, options, rows, is_scanned):
    cell = DeltaMemoryCell(*sizes, **options)
    shape = lambda size: jax.ShapeDtypeStruct((rows, 40, *size), jnp.float32)
    inputs = DeltaInputs(*map(shape, cell.input_sizes))
    found = jaxrnn.explain(cell.bind({}), inputs, dtype=jnp.float32)
    reason = "a scan, which runs without derivatives, is slower with them"
    assert (found.loop, found.reason) == ("chunks", reason if is_scanned else "")


@pytest.mark.slow
def test_the_laws_of_a_memory_that_chooses_its_loop():
    cell = LinearAttentionMemoryCell(2, 3, 2)
    shape = lambda size: jax.ShapeDtypeStruct((4, *size), jnp.float32)
    check_cell(cell, LinearAttentionInputs(*map(shape, cell.input_sizes)))


@pytest.mark.loops
@pytest.mark.parametrize("chunk_size", [16, 4])
@pytest.mark.parametrize("kind", [LinearAttentionMemoryCell, DeltaMemoryCell])
def test_a_query_spoils_no_other_span(kind, chunk_size):
    """The step does not change the state, and a reset follows."""
    cell = kind(*SIZES, chunk_size=chunk_size)
    names = cell.rule.Inputs._fields
    resets = np.zeros((ROWS, TIME), bool)
    resets[0, 8] = True

    def gradient(q):
        given = cell.rule.Inputs(*(getattr(DELTA._replace(q=q), n) for n in names))
        given = jax.tree.map(lambda x: x.astype(np.float32), given)

        def loss(given):
            run = cell.bind({})
            outputs, _ = jaxrnn.dynamic_rnn(run, given, dtype=F32, resets=resets)
            return jnp.sum(outputs[0, 8:] ** 2)

        return jax.grad(loss)(given)

    spoiled = DELTA.q.copy()
    spoiled[0, 3] = np.nan
    assert_near(gradient(spoiled), gradient(DELTA.q), tolerance=1e-5)


@pytest.mark.loops
def test_a_query_spoils_no_gradient_of_parameters():
    """The output of its step, which nothing reads, also reads a parameter."""
    cell, inputs = WITH_KEY_DECAYS["rwkv6"]
    params = bound(cell, inputs).params

    def gradient(q):
        def loss(params):
            given = cell.bind(params), inputs._replace(q=q)
            return jnp.sum(jaxrnn.dynamic_rnn(*given, dtype=float)[0][:, 4:] ** 2)

        return jax.grad(loss)(params)

    spoiled = INPUTS[0].copy()
    spoiled[0, 3] = np.nan
    assert_near(gradient(spoiled), gradient(INPUTS[0]), tolerance=1e-12)


@pytest.mark.loops
@pytest.mark.parametrize("chunk_size", [None, 64])
def test_a_narrow_state_is_rounded_after_the_last_step(chunk_size):
    """A bfloat16 sum of ones, rounded at every step, ends at 256."""
    cell = LinearAttentionMemoryCell(1, 1, 1, scale=1.0, chunk_size=chunk_size)
    one = jnp.ones((1, 1000, 1, 1), jnp.bfloat16)
    inputs = LinearAttentionInputs(one, one, one, 0 * one[..., 0])
    run = lambda x: jaxrnn.dynamic_rnn(cell.bind({}), x, [1000], dtype=one.dtype)[1]
    assert run(inputs).item() == 1000
