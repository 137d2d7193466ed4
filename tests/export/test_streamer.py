"""Streams of frames and of chunks, against the drivers over whole sequences."""

import concurrent.futures
import copy
import functools
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, assert_same, bound, refusals

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, LSTMStateTuple, MultiRNNCell, contrib
from jaxrnn.export import BidirectionalStreamer, Streamer

DEPTH, UNITS = 3, 4
F32 = jnp.float32
STEP = np.ones((1, DEPTH), "f")
near = functools.partial(assert_near, tolerance=1e-6)


def own(cell, depth=DEPTH, seed=0):
    """Bound to small parameters, so that rounding does not grow."""
    return bound(cell, depth, "float32", seed, scale=0.5)


def sequence(batch, time, seed=1):
    x = np.random.default_rng(seed).normal(size=(batch, time, DEPTH))
    return x.astype(np.float32)


def frames_through(stream, x):
    """The outputs of all frames, and the last state."""
    return np.stack([stream(frame) for frame in np.swapaxes(x, 0, 1)], 1), stream.state


CELLS = {
    "lstm": own(LSTMCell(UNITS, use_peepholes=True, num_proj=2, cell_clip=1.0)),
    "stack": own(MultiRNNCell([LSTMCell(5), GRUCell(UNITS)])),
    "dropout": own(jaxrnn.DropoutWrapper(GRUCell(UNITS), 0.5, 0.5, 0.5)),
}


ROWS = [("lstm", 1, ""), ("dropout", 1, ""), ("stack", 5, "resets reset_state")]


@pytest.mark.fast("*reset_state")
@pytest.mark.parametrize(("name", "batch", "options"), ROWS)
def test_as_the_whole_sequence(name, batch, options):
    """The user's buffers may be reused, and outputs outlive the states."""
    cell, x, outputs = CELLS[name], sequence(batch, 6), []
    stream = Streamer(cell, batch)
    resets = np.random.default_rng(2).random((batch, 6)) < 0.3
    given = {"resets": resets, "reset_state": jax.tree.map(jnp.ones_like, stream.state)}
    given = {key: given[key] for key in options.split()}
    buffer, flags = np.empty((batch, DEPTH), "f"), np.zeros(batch, bool)
    for t in range(6):
        buffer[:], flags[:] = x[:, t], resets[:, t]
        outputs.append(stream(buffer, **given | ({"resets": flags} if given else {})))
        buffer[:], flags[:] = np.nan, True
    want = jaxrnn.dynamic_rnn(cell, x, dtype=F32, **given)
    near((np.stack(outputs, 1), stream.state), want)


def test_a_stream_accepts_the_state_that_it_gave():
    """The steps of this cell change the dtype of the state; here h' = 1j * h + x."""

    def step(params, x, h, key=None):
        h = jnp.complex64(1j) * h.astype("complex64") + x.astype("complex64")
        return h.real, h

    cell = jaxrnn.FunctionCell(step, DEPTH, DEPTH).bind({})
    stream, kept, outputs, want, h = Streamer(cell), [], [], [], 0
    for _ in range(6):
        outputs.append(stream(STEP))
        kept.append(stream.state)
        h = 1j * h + 1
        want.append(np.full((1, DEPTH), np.real(h), "f"))
    assert_same(outputs, want)
    assert kept[2].dtype == jnp.complex64
    for each in (stream, stream, Streamer(cell)):  # What is given is not destroyed.
        each.reset(kept[2])
        assert_same([each(STEP) for _ in range(3)], outputs[3:])
    stream.reset()
    assert_same(stream(STEP), outputs[0])


def test_attention_on_a_stream():
    cell = contrib.AttentionWrapper(GRUCell(UNITS), contrib.BahdanauAttention(2, 3))
    x, memory = sequence(2, 4), sequence(2, 4, seed=5)
    cell, state = own(cell), cell.initial_state(memory, [4, 2])
    want = jax.jit(lambda: jaxrnn.dynamic_rnn(cell, x, None, state, F32))()
    stream = Streamer(cell, 2, initial_state=state)
    for _ in range(2):
        near(frames_through(stream, x), want)
        stream.reset()


def add(params, x, state, key=None):
    """A step that returns the sum of the inputs so far."""
    return state + x, state + x


def test_threads_may_share_a_stream():
    """Each call adds 1 to the state and returns the sum; a copy has its own state."""
    stream = Streamer(jaxrnn.FunctionCell(add, 1, 1).bind({}))
    one = np.ones((1, 1), "f")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: stream(one).item(), range(200)))
    assert sorted(got) == list(range(1, 201))
    pickled = pickle.loads(pickle.dumps(stream))
    for each in (copy.copy(stream), copy.deepcopy(stream), pickled, stream):
        assert each(one).item() == 201


def programs(caplog):
    """What JAX compiled since the last call."""
    found = [each for each in caplog.messages if each.startswith("Compiling")]
    caplog.clear()
    return found


@jax.log_compiles()
def test_compiles_once(caplog):
    cell, x = own(LSTMCell(UNITS, forget_bias=0.25)), sequence(1, 5)
    first = Streamer(cell)
    first(x[:, 0])
    second = Streamer(jax.tree.map(lambda p: 2 * p, cell))
    assert any("_step" in each for each in programs(caplog))
    for stream in (first, second):
        [stream(x[:, t]) for t in range(5)]
    first.reset()
    first(x[:, 0])
    assert not programs(caplog)


FRAMES = [
    (ValueError, "depth 4", np.ones((1, 4), "f")),
    (TypeError, "float16", np.ones((1, 3), "f2")),
]


def test_a_frame_that_does_not_fit_leaves_the_state():
    stream = Streamer(CELLS["lstm"])
    stream(STEP)
    state = stream.state
    for error, message, frame in FRAMES:
        with pytest.raises(error, match=message):
            stream(frame)
    assert_same(stream.state, state)


# Both directions.


def layers(*cells):
    depths = [DEPTH, *(2 * cell.output_size for cell in cells)]
    pairs = list(zip(cells, depths, strict=False))
    return tuple([own(cell, d, seed) for cell, d in pairs] for seed in (2, 3))


BOTH = {
    "gru": layers(GRUCell(UNITS)),
    "two": layers(LSTMCell(UNITS), GRUCell(3)),
}


@functools.partial(jax.jit, static_argnums=(2, 3))
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


SIZES = [("gru", 10, 4, 0), ("gru", 10, 4, 5), ("two", 8, 4, 2), ("gru", 3, 5, 3)]
SIZES += [("gru", 3, 1, 3), ("gru", 5, 4, 3)]  # One step is left for `flush`.


@pytest.mark.fast("gru-5-4-3")
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
        got = np.concatenate([y for y in parts if y is not None], axis=1)
        near(got, want)


def test_a_chunk_that_does_not_fit_leaves_the_stream():
    cells, x = BOTH["gru"], sequence(1, 10)
    stream, parts = BidirectionalStreamer(*cells, 4, 3), []
    for t in (0, 4, 8):
        for call in (stream, stream.flush):
            for wrong in (np.ones((1, 4, 5), "f"), np.ones((2, 4, DEPTH), "f")):
                with pytest.raises(ValueError, match=r"`(chunk|last)` |depth 5"):
                    call(wrong)
        parts.append(stream(x[:, t : t + 4]) if t < 8 else stream.flush(x[:, 8:]))
    near(np.concatenate(parts[1:], 1), expected(cells, x, 4, 3))
    assert stream.flush() is None
    assert not any(leaf.any() for leaf in jax.tree.leaves(stream.state))


CELL = own(GRUCell(UNITS))
KEYED = CELL.cell.bind(CELL.params, jax.random.key(0))
HALVES = LSTMStateTuple(np.zeros((1, UNITS), "f2"), np.zeros((1, 2), "f2"))
one = lambda: Streamer(CELLS["lstm"])
both = BidirectionalStreamer
four = lambda: both([CELL], [CELL], 4, 4)
test_refusals = refusals(
    [
        (TypeError, "cell", lambda: Streamer(GRUCell(4))),
        (ValueError, "cell", lambda: Streamer(KEYED)),
        (TypeError, "frame", lambda: jax.jit(one())(STEP)),
        (ValueError, "frame", lambda: one()(STEP[0])),
        (TypeError, "state.c", lambda: one().reset(HALVES)),
        (ValueError, "cells_bw[0]", lambda: both([CELL], [KEYED], 4, 4)),
        (ValueError, "cells_fw", lambda: both(CELL, CELL, 4, 4)),
        (ValueError, "lookahead", lambda: both([CELL], [CELL], 1, -1)),
        (ValueError, "last", lambda: four().flush(np.ones((1, 0, 3), "f"))),
    ],
    prepare=lambda name: f"^`{re.escape(name)}` ",
)
