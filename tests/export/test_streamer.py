"""Streams of frames and of chunks, against the drivers over whole sequences."""

import concurrent.futures
import copy
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, assert_same, bound

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, LSTMStateTuple, MultiRNNCell, TensorShape, contrib
from jaxrnn.export import BidirectionalStreamer, Streamer

DEPTH, UNITS = 3, 4
F32 = jnp.float32
near = functools.partial(assert_near, tolerance=1e-6)


def own(cell, depth=DEPTH, seed=0):
    """Bound to small parameters, so that rounding does not grow."""
    return bound(cell, depth, "float32", seed, scale=0.5)


def sequence(batch, time, seed=1):
    x = np.random.default_rng(seed).normal(size=(batch, time, DEPTH))
    return x.astype(np.float32)


CELLS = {
    "lstm": own(LSTMCell(UNITS, use_peepholes=True, num_proj=2, cell_clip=1.0)),
    "stack": own(MultiRNNCell([LSTMCell(5), GRUCell(UNITS)])),
    "dropout": own(jaxrnn.DropoutWrapper(GRUCell(UNITS), 0.5, 0.5, 0.5)),
}


@pytest.mark.fast("stack-10")
@pytest.mark.parametrize("batch", [1, 10])
@pytest.mark.parametrize("name", CELLS)
def test_as_the_whole_sequence(name, batch):
    """The user's buffer may be reused, and outputs outlive the states."""
    cell, x = CELLS[name], sequence(batch, 40)
    stream, buffer, outputs = Streamer(cell, batch), np.empty((batch, DEPTH), "f"), []
    for frame in np.swapaxes(x, 0, 1):
        buffer[:] = frame
        outputs.append(stream(buffer))
        buffer[:] = np.nan
    want = jax.jit(lambda x: jaxrnn.dynamic_rnn(cell, x, dtype=F32))(x)
    near((np.stack(outputs, 1), stream.state), want)


def test_states_can_be_kept_and_restored():
    stream, frames = Streamer(CELLS["stack"]), np.split(sequence(1, 6)[0], 6)
    zeros = stream.state
    list(map(stream, frames[:3]))
    kept = stream.state
    want = list(map(stream, frames[3:]))
    for _ in range(2):  # What is given is not destroyed.
        stream.reset(kept)
        assert_same(list(map(stream, frames[3:])), want)
    stream.reset()
    assert_same(stream.state, zeros)


@pytest.mark.parametrize("dtype", ["bfloat16", "complex64"])
def test_a_stream_accepts_the_state_that_it_gave(dtype):
    """The steps of this cell change the dtype of the state, here h' = 1j * h + x."""
    turn = 1j if dtype == "complex64" else 1

    def step(params, x, h, key=None):
        h = jnp.asarray(turn, dtype) * h.astype(dtype) + x.astype(dtype)
        return h.real.astype(F32), h

    cell = jaxrnn.FunctionCell(step, DEPTH, DEPTH).bind({})
    stream, kept, outputs, want, h = Streamer(cell), [], [], [], 0
    for _ in range(6):
        outputs.append(stream(STEP))
        kept.append(stream.state)
        h = turn * h + 1
        want.append(np.full((1, DEPTH), np.real(h), "f"))
    assert_same(outputs, want)
    assert kept[2].dtype == dtype
    # The state of complex64 is wider than zeros, so it also starts a new stream.
    for each in (stream, Streamer(cell)) if dtype == "complex64" else (stream,):
        each.reset(kept[2])
        assert_same([each(STEP) for _ in range(3)], outputs[3:])
    stream.reset()
    assert_same(stream(STEP), outputs[0])


def test_rows_are_reset_as_by_dynamic_rnn():
    """To zeros, then to a state; the user's buffer may be reused."""
    cell, x = CELLS["stack"], sequence(3, 8)
    resets = np.random.default_rng(2).random((3, 8)) < 0.3
    state = jax.tree.map(jnp.ones_like, Streamer(cell, 3).state)
    for options in ({}, {"reset_state": state}):
        stream, buffer, outputs = Streamer(cell, 3), np.zeros(3, bool), []
        for t in range(8):
            buffer[:] = resets[:, t]
            outputs.append(stream(x[:, t], resets=buffer, **options))
            buffer[:] = True
        want = jaxrnn.dynamic_rnn(cell, x, dtype=F32, resets=resets, **options)
        near((jnp.stack(outputs, 1), stream.state), want)


def test_a_stream_keeps_the_dtypes_of_its_initial_state():
    """A sum, a counter, a flag and keys; `reset` returns to this state."""
    fold = jax.vmap(lambda key: jax.random.fold_in(key, 1))

    def step(params, x, state, key=None):
        total, count, flag, keys = state
        return total, (total + x, count + 1, ~flag, fold(keys))

    cell = jaxrnn.FunctionCell(step, (DEPTH, *[TensorShape([])] * 3), DEPTH).bind({})
    keys, x = jax.random.split(jax.random.key(0), 2), sequence(2, 3)
    first = (
        np.ones((2, DEPTH), "f"),
        np.array([5, 7], np.int32),
        np.array([True, False]),
    )
    stream = Streamer(cell, 2, initial_state=(*first, keys))
    for _ in range(2):
        for t in range(3):
            stream(x[:, t])
        *got, got_keys = stream.state
        near(got[0], first[0] + x.sum(1))
        assert_same(got[1:], [first[1] + 3, ~first[2]])
        assert (got_keys == fold(fold(fold(keys)))).all()
        stream.reset()


def test_attention_on_a_stream():
    cell = contrib.AttentionWrapper(GRUCell(UNITS), contrib.BahdanauAttention(2, 3))
    x, memory = sequence(2, 6), sequence(2, 4, seed=5)
    cell, state = own(cell), cell.initial_state(memory, [4, 2])
    want = jaxrnn.dynamic_rnn(cell, x, None, state, F32)
    stream = Streamer(cell, 2, initial_state=state)
    for _ in range(2):
        got = jnp.stack([stream(x[:, t]) for t in range(6)], 1)
        near((got, stream.state), want)
        stream.reset()


def test_threads_may_share_a_stream():
    """Each call adds 1 to the state and returns the sum; a copy has its own state."""
    cell = jaxrnn.FunctionCell(lambda p, x, s, key=None: (s + x, s + x), 1, 1)
    stream, one = Streamer(cell.bind({})), np.ones((1, 1), "f")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: stream(one).item(), range(200)))
    assert sorted(got) == list(range(1, 201))
    for each in (copy.copy(stream), copy.deepcopy(stream), stream):
        assert each(one).item() == 201


def test_a_stream_is_pickled_after_a_call():
    stream = Streamer(CELLS["lstm"])
    stream(STEP)
    other = pickle.loads(pickle.dumps(stream))
    near(other(STEP), stream(STEP))


class Numbered(jax.tree_util.Partial):
    """A cell of another protocol, which counts steps."""

    state_size = output_size = 3
    zero_state = staticmethod(lambda rows, dtype: np.zeros((rows, 3), dtype))
    at_step = lambda self, t: self


def programs(caplog):
    """What JAX compiled since the last call."""
    found = [each for each in caplog.messages if each.startswith("Compiling")]
    caplog.clear()
    return found


@jax.log_compiles()
def test_compiles_once(caplog):
    cell, x = own(LSTMCell(UNITS, forget_bias=0.25)), sequence(1, 50)
    first = Streamer(cell)
    first(x[:, 0])
    second = Streamer(jax.tree.map(lambda p: 2 * p, cell))
    assert any("_step" in each for each in programs(caplog))
    for stream in (first, second):
        [stream(x[:, t]) for t in range(50)]
    first.reset()
    first(x[:, 0])
    assert not programs(caplog)


@jax.log_compiles()
def test_chunks_compile_once(caplog):
    stream, x = BidirectionalStreamer(*BOTH["two"], 7, 9), sequence(1, 7)
    for repeats in (3, 5):
        [stream(x) for _ in range(repeats)]
        stream.flush(x[:, :2])  # Shapes of the rest are compiled here.
        assert bool(programs(caplog)) == (repeats == 3)


def test_double_precision():
    cell, x = bound(GRUCell(UNITS)), sequence(2, 5).astype(np.float64)
    stream = Streamer(cell, 2, jnp.float64)
    got = jnp.stack([stream(x[:, t]) for t in range(5)], 1), stream.state
    assert_near(got, jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype), tolerance=1e-14)


STEP = np.ones((1, 3), "f")
FRAMES = [
    (np.ones((2, 3), "f"), r"^`frame` must be \[1, ...\], .* float32\[2, 3\]"),
    (np.ones((1, 4), "f"), "for inputs of depth 4"),
    (np.ones((1, 3), "f2"), r"must have dtype float16, got float32\[16\]"),
    (None, "^`frame` must be an array .*, got None"),
    ({"x": np.array([[None]])}, r"^`frame\['x'\]` must be .*, got object"),
    (np.ma.ones((1, 3), "f"), r"^`frame` .* without a mask.*frame.filled\(0"),
]


@pytest.mark.parametrize(("frame", "message"), FRAMES)
def test_a_frame_that_does_not_fit_leaves_the_state(frame, message):
    stream = Streamer(CELLS["lstm"])
    stream(STEP)
    state = stream.state
    with pytest.raises((TypeError, ValueError), match=message):
        stream(frame)
    assert_same(stream.state, state)


# Both directions.


def layers(*cells):
    depths = [DEPTH, *(2 * cell.output_size for cell in cells)]
    pairs = list(zip(cells, depths, strict=False))
    return tuple([own(cell, d, seed) for cell, d in pairs] for seed in (2, 3))


BOTH = {
    "lstm": layers(LSTMCell(UNITS)),
    "gru": layers(GRUCell(UNITS)),
    "two": layers(LSTMCell(UNITS), GRUCell(3)),
}


def expected(cells, x, chunk, lookahead):
    """Forward cells go on from the chunk before; backward cells look ahead."""
    states, outputs = [None] * len(cells[0]), []
    for t in range(0, x.shape[1], chunk):
        xs = x[:, t : t + chunk + lookahead]
        for i, (fw, bw) in enumerate(zip(*cells, strict=True)):
            run = lambda xs, state, fw=fw: jaxrnn.dynamic_rnn(fw, xs, None, state, F32)
            now, states[i] = run(xs[:, :chunk], states[i])
            if xs.shape[1] > chunk:
                later, _ = run(xs[:, chunk:], states[i])
                now = jnp.concatenate([now, later], 1)
            back, _ = jaxrnn.dynamic_rnn(bw, jnp.flip(xs, 1), dtype=F32)
            xs = jnp.concatenate([now, jnp.flip(back, 1)], 2)
        outputs.append(xs[:, :chunk])
    return jnp.concatenate(outputs, 1)


SIZES = [("gru", 18, 4, lookahead) for lookahead in (0, 3, 4, 5)]
SIZES += [("two", 12, 4, 2), ("lstm", 11, 4, 11), ("two", 12, 4, 12)]
SIZES += [("gru", 3, 5, 3), ("gru", 6, 1, 6)]


@pytest.mark.fast("gru-18-4-3")
@pytest.mark.parametrize(("name", "time", "chunk", "lookahead"), SIZES)
def test_chunks(name, time, chunk, lookahead):
    """A look-ahead over the rest gives the outputs of the whole run."""
    cells, x = BOTH[name], sequence(2, time)
    want = expected(cells, x, chunk, lookahead)
    if lookahead == time:
        whole = jaxrnn.stack_bidirectional_dynamic_rnn(*cells, x, dtype=F32)
        near(whole[0], want)
    stream = BidirectionalStreamer(*cells, chunk, lookahead, batch_size=2)
    full, delay = time // chunk * chunk, -(-lookahead // chunk)
    for _ in range(2):  # The second sequence starts anew.
        parts = [stream(x[:, t : t + chunk]) for t in range(0, full, chunk)]
        for i, part in enumerate(parts):
            assert (part is None) == (i < delay)
        parts.append(stream.flush(x[:, full:] if full < time else None))
        got = jnp.concatenate([y for y in parts if y is not None], axis=1)
        near(got, want)


def with_steps(dtype=np.float32, depth=DEPTH, rows=1):
    return np.ones((rows, 4, depth), dtype)


# A chunk, and the errors before and after a first chunk; None for the same error.
CHUNKS = [
    (with_steps(depth=5), "inputs of depth 5", r"shape \[any, any, 3\], .* another"),
    (with_steps(int), "must be floating-point", "must have dtype float32, got int"),
    ((with_steps(),), "must be one array", r"structure \*, got \(\*,\), .* an"),
    (with_steps(rows=2), r"rank at least 3, \[1, .*got float32\[2, 4, 3\]", None),
    (np.ma.ones((1, 4, 3)), r"must be an array without a mask.*`\w+.filled", None),
]


@pytest.mark.parametrize(("chunk", "first", "later"), CHUNKS)
def test_a_chunk_that_does_not_fit_leaves_the_stream(chunk, first, later):
    cells, x = BOTH["gru"], sequence(1, 10)
    stream, parts = BidirectionalStreamer(*cells, 4, 3), []
    for message in (first, later or first, later or first):
        for call in (stream, stream.flush):
            with pytest.raises((TypeError, ValueError), match=message):
                call(chunk)
        t = 4 * len(parts)
        parts.append(stream(x[:, t : t + 4]) if t < 8 else stream.flush(x[:, 8:]))
    got = jnp.concatenate(parts[1:], 1)
    near(got, expected(cells, x, 4, 3))


def test_state_and_flush_of_nothing():
    cells, x = BOTH["lstm"], sequence(1, 4)
    stream = BidirectionalStreamer(*cells, 4, 0)
    stream(x)
    _, want = jaxrnn.dynamic_rnn(cells[0][0], x, dtype=F32)
    for _ in range(2):
        near(stream.state, (want,))
    assert stream.flush() is None
    assert not any(leaf.any() for leaf in jax.tree.leaves(stream.state))


CELL = own(GRUCell(UNITS))
KEYED = CELL.cell.bind(CELL.params, jax.random.key(0))
THREE = LSTMStateTuple(*np.zeros((2, 3, UNITS), "f"))
HALVES = LSTMStateTuple(np.zeros((1, UNITS), "f2"), np.zeros((1, 2), "f2"))
one = lambda: Streamer(CELLS["lstm"])
both = BidirectionalStreamer
four = lambda: both([CELL], [CELL], 4, 4)
REFUSALS = [
    (lambda: Streamer(GRUCell(4)), "^`cell` must be a bound"),
    (lambda: Streamer(KEYED), "^`cell` must have no random"),
    (lambda: Streamer(Numbered(print)), "^`cell` must have no method `at_step`"),
    (lambda: jax.jit(one())(STEP), "^`frame` must be concrete.*bound ce"),
    (lambda: one()(STEP[0]), r"pass `frame\[None\]`"),
    (lambda: one()(STEP, resets=np.ones(1)), "^`resets` must be booleans"),
    (lambda: one().reset((STEP, STEP)), "^`state` must have"),
    (lambda: one().reset(THREE), "^.*pass `resets`"),
    (lambda: one().reset(HALVES), "must have the dtype of the stream, float32"),
    (lambda: both([CELL], [KEYED], 4, 4), r"`cells_bw\[0\]` must have no random key"),
    (lambda: both(CELL, CELL, 4, 4), "^`cells_fw` must be a lis"),
    (lambda: both([CELL], [CELL], 1, -1), "`lookahead` must be at least 0, got -1"),
    (lambda: four()(STEP[None]), r" at least 3, \[1, 4, ...\], .* to `flush`"),
    (lambda: four()({}), "`chunk` must hold at least one array, got dict"),
    (lambda: four().flush(np.ones((1, 0, 3), "f")), r"`last` .*\[1, 1 to 4, ..."),
]


@pytest.mark.parametrize(("call", "message"), REFUSALS)
def test_refuses(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_a_new_stream_reads_what_has_changed():
    scale = {}
    step = lambda params, x, state, key=None: (x * scale["of_inputs"], state)
    cell = jaxrnn.FunctionCell(step, 3, 3).bind({})
    for value in (2.0, 5.0):
        scale["of_inputs"] = value
        assert (Streamer(cell)(STEP) == value).all()
        assert (
            both([cell], [cell], chunk=1, lookahead=0)(STEP[:, None]) == value
        ).all()
