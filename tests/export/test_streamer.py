"""Streams of frames and of chunks, against the drivers over whole sequences."""

import logging

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, assert_same, bound

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, LSTMStateTuple, MultiRNNCell
from jaxrnn.export import BidirectionalStreamer, Streamer

DEPTH, UNITS = 3, 4
F32 = jnp.float32


def own(cell, depth=DEPTH, seed=0):
    """Bound to small parameters, so that rounding does not grow."""
    cell = bound(cell, depth, "float32", seed)
    return jax.tree.map(lambda p: jnp.asarray(p) * jnp.float32(0.5), cell)


def sequence(batch, time, seed=1):
    x = np.random.default_rng(seed).normal(size=(batch, time, DEPTH))
    return x.astype(np.float32)


CELLS = {
    "rnn": jaxrnn.BasicRNNCell(UNITS),
    "lstm": LSTMCell(UNITS, use_peepholes=True, num_proj=2, cell_clip=1.0),
    "gru": GRUCell(UNITS),
    "gru_after": jaxrnn.CudnnCompatibleGRUCell(UNITS),
    "stack": MultiRNNCell([LSTMCell(5), GRUCell(UNITS)]),
    "residual": jaxrnn.ResidualWrapper(GRUCell(DEPTH)),
    "dropout": jaxrnn.DropoutWrapper(GRUCell(UNITS), 0.5, 0.5, 0.5),
}


@pytest.mark.fast("stack-10")
@pytest.mark.parametrize("batch", [1, 10])
@pytest.mark.parametrize("name", CELLS)
def test_as_the_whole_sequence(name, batch):
    """The user's buffer may be reused, and outputs outlive the states."""
    cell, x = own(CELLS[name]), sequence(batch, 40)
    stream, buffer, outputs = Streamer(cell, batch), np.empty((batch, DEPTH), "f"), []
    for frame in np.swapaxes(x, 0, 1):
        buffer[:] = frame
        outputs.append(stream(buffer))
        buffer[:] = np.nan
    want = jax.jit(lambda x: jaxrnn.dynamic_rnn(cell, x, dtype=F32))(x)
    assert_near((np.stack(outputs, 1), stream.state), want, tolerance=1e-6)


def test_states_can_be_kept_and_restored():
    cell, x = own(CELLS["stack"]), sequence(1, 6)
    stream = Streamer(cell)
    zeros = stream.state
    [stream(x[:, t]) for t in range(3)]
    kept = stream.state
    want = [stream(x[:, t]) for t in range(3, 6)]
    for _ in range(2):  # What is given is not destroyed.
        stream.reset(kept)
        assert_same([stream(x[:, t]) for t in range(3, 6)], want)
    stream.reset()
    assert_same(stream.state, zeros)


def test_rows_are_reset_as_by_dynamic_rnn():
    """To zeros, then to a state; the user's buffer may be reused."""
    cell, x = own(CELLS["stack"]), sequence(3, 8)
    resets = np.random.default_rng(2).random((3, 8)) < 0.3
    state = jax.tree.map(jnp.ones_like, Streamer(cell, 3).state)
    for options in ({}, {"reset_state": state}):
        stream, buffer, outputs = Streamer(cell, 3), np.zeros(3, bool), []
        for t in range(8):
            buffer[:] = resets[:, t]
            outputs.append(stream(x[:, t], resets=buffer, **options))
            buffer[:] = True
        want = jaxrnn.dynamic_rnn(cell, x, dtype=F32, resets=resets, **options)
        assert_near((jnp.stack(outputs, 1), stream.state), want, tolerance=1e-6)
    with pytest.raises(TypeError, match=r"^Streamer: `resets` must be booleans"):
        stream(x[:, 0], resets=np.ones(3))
    assert_near(stream.state, want[1], tolerance=1e-6)


class Compilations(logging.Handler):
    """What JAX compiles."""

    def __init__(self):
        super().__init__()
        self.found = []

    def emit(self, record):
        message = record.getMessage()
        if message.startswith("Compiling"):
            self.found.append(message)


@pytest.fixture
def compilations():
    handler, logger = Compilations(), logging.getLogger("jax")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    with jax.log_compiles():
        yield handler.found
    logger.propagate = propagate
    logger.removeHandler(handler)


def test_compiles_once(compilations):
    cell, x = own(LSTMCell(UNITS, forget_bias=0.25)), sequence(1, 50)
    first = Streamer(cell)
    first(x[:, 0])
    assert any("_step" in each for each in compilations)
    second = Streamer(jax.tree.map(lambda p: 2 * p, cell))
    compilations.clear()
    for t in range(50):
        first(x[:, t])
        second(x[:, t])
    first.reset()
    first(x[:, 0])
    assert compilations == []


@pytest.mark.slow
@pytest.mark.parametrize("cell", [LSTMCell(16), GRUCell(16)])
def test_long_streams_do_not_drift(cell):
    """20,000 frames in float32, against float64."""
    params, x = own(cell), sequence(1, 20_000)
    double = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    want, _ = jaxrnn.dynamic_rnn(double, x.astype(np.float64), dtype=jnp.float64)
    stream = Streamer(params)
    got = np.concatenate([stream(frame) for frame in np.swapaxes(x, 0, 1)])
    error = np.abs(got - np.asarray(want[0]))
    assert error.max() < 2e-6
    assert error[-1000:].max() < 3 * error[:1000].max()


def test_double_precision():
    cell, x = bound(GRUCell(UNITS)), sequence(2, 5).astype(np.float64)
    stream = Streamer(cell, 2, jnp.float64)
    got = jnp.stack([stream(x[:, t]) for t in range(5)], 1), stream.state
    assert_near(got, jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype), tolerance=1e-14)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            np.ones((2, 3), "f"),
            r"^Streamer: `frame` must be \[1, ...\], .* got float32\[2, 3\]",
        ),
        (
            {"x": 0.0},
            r"^Streamer: `frame\['x'\]` must be \[1, ...\], one entry for each row",
        ),
        (
            np.ones((1, 4), "f"),
            r"one step of `Streamer` with frame float32\[1, 4\] and",
        ),
    ],
)
def test_a_frame_that_does_not_fit_leaves_the_state(frame, message):
    stream = Streamer(own(CELLS["lstm"]))
    stream(np.ones((1, 3), "f"))
    state = stream.state
    with pytest.raises(ValueError, match=message):
        stream(frame)
    assert_same(stream.state, state)


def test_a_stream_is_not_traced():
    stream = Streamer(own(CELLS["lstm"]))
    with pytest.raises(
        TypeError, match=r"^Streamer: `frame` must be concrete.*bound ce"
    ):
        jax.jit(stream)(np.ones((1, 3), "f"))
    reset = lambda to: stream(np.ones((1, 3), "f"), resets=[True], reset_state=to)
    with pytest.raises(TypeError, match=r"`reset_state.* must be concrete"):
        jax.jit(reset)(stream.state)


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ((np.zeros((1, 4), "f"),) * 2, TypeError, "^Streamer: `state` must have"),
        ([True], ValueError, "^Streamer: `state` must have the structure"),
        (LSTMStateTuple(*np.zeros((2, 3, UNITS), "f")), ValueError, "pass `resets`"),
        (
            LSTMStateTuple(np.zeros((1, UNITS), "f2"), np.zeros((1, 2), "f2")),
            TypeError,
            "must have the dtype of the stream, float32",
        ),
    ],
)
def test_reset_refuses_other_states(state, error, message):
    stream = Streamer(own(CELLS["lstm"]))
    with pytest.raises(error, match=message):
        stream.reset(state)


# Both directions.


def layers(*cells):
    depths = [DEPTH, *(2 * cell.output_size for cell in cells)]
    pairs = list(zip(cells, depths[:-1], strict=True))
    return tuple([own(cell, d, seed) for cell, d in pairs] for seed in (2, 3))


BOTH = {
    "lstm": layers(LSTMCell(UNITS)),
    "gru": layers(GRUCell(UNITS)),
    "dropout": layers(CELLS["dropout"]),
    "two": layers(LSTMCell(UNITS), GRUCell(3)),
}


def whole(cells, x):
    return jaxrnn.stack_bidirectional_dynamic_rnn(*cells, x, dtype=F32)


def streamed(stream, x, chunk):
    """The parts that the calls and `flush` return, None included."""
    full = x.shape[1] // chunk * chunk
    parts = [stream(x[:, t : t + chunk]) for t in range(0, full, chunk)]
    last = x[:, full:] if full < x.shape[1] else None
    return parts, stream.flush(last)


def joined(parts, rest):
    return jnp.concatenate([y for y in (*parts, rest) if y is not None], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(("time", "chunk"), [(11, 4), (12, 4), (3, 5), (6, 1)])
def test_a_look_ahead_over_the_rest_gives_the_whole_run(time, chunk, name):
    x = sequence(2, time)
    stream = BidirectionalStreamer(*BOTH[name], chunk, time, batch_size=2)
    for _ in range(2):  # The second sequence starts anew.
        parts, rest = streamed(stream, x, chunk)
        assert all(part is None for part in parts)
        assert_near(rest, whole(BOTH[name], x)[0], tolerance=1e-6)


@pytest.mark.fast("3")
@pytest.mark.parametrize("lookahead", [0, 3, 4, 5])
def test_a_bounded_look_ahead(lookahead):
    """Each chunk equals a whole run over the steps up to its look-ahead's end."""
    chunk, x = 4, sequence(2, 18)
    cells = BOTH["gru"]
    stream = BidirectionalStreamer(*cells, chunk, lookahead, batch_size=2)
    parts, rest = streamed(stream, x, chunk)
    delay = -(-lookahead // chunk)
    assert [part is None for part in parts] == [i < delay for i in range(4)]
    starts = range(0, 18, chunk)
    want = [whole(cells, x[:, : t + chunk + lookahead])[0] for t in starts]
    want = [w[:, t : t + chunk] for w, t in zip(want, starts, strict=True)]
    got = joined(parts, rest)
    assert_near(got, jnp.concatenate(want, axis=1), tolerance=1e-6)
    forward, _ = jaxrnn.dynamic_rnn(cells[0][0], x, dtype=F32)
    assert_near(got[..., :UNITS], forward, tolerance=1e-6)


@pytest.mark.slow
def test_two_layers_carry_what_they_computed():
    """The second forward cell goes on from the state of the chunk before."""
    cells, chunk, lookahead, x = BOTH["two"], 4, 2, sequence(1, 12)
    states, want = [None, None], []
    for t in range(0, 12, chunk):
        xs, after = x[:, t : t + chunk + lookahead], []
        for fw, bw, state in zip(*cells, states, strict=True):
            now, final = jaxrnn.dynamic_rnn(fw, xs[:, :chunk], None, state, F32)
            after.append(final)
            later = [now]
            if xs.shape[1] > chunk:
                later += [jaxrnn.dynamic_rnn(fw, xs[:, chunk:], None, final, F32)[0]]
            back, _ = jaxrnn.dynamic_rnn(bw, jnp.flip(xs, 1), dtype=F32)
            xs = jnp.concatenate(later, 1), jnp.flip(back, 1)
            xs = jnp.concatenate(xs, 2)
        states = after
        want.append(xs[:, :chunk])
    stream = BidirectionalStreamer(*cells, chunk, lookahead)
    got = joined(*streamed(stream, x, chunk))
    assert_near(got, jnp.concatenate(want, 1), tolerance=1e-6)


def test_chunks_compile_once(compilations):
    stream = BidirectionalStreamer(*BOTH["two"], 7, 9)
    x = sequence(1, 7)
    buffer = x.copy()
    [stream(buffer) for _ in range(3)]
    stream.flush(x[:, :2])  # Shapes of the rest are compiled here.
    compilations.clear()
    [stream(x) for _ in range(5)]
    stream.flush(x[:, :2])
    assert compilations == []


def test_state_and_flush_of_nothing():
    stream = BidirectionalStreamer(*BOTH["lstm"], 4, 0)
    x = sequence(1, 4)
    stream(x)
    cell = BOTH["lstm"][0][0]
    want = jaxrnn.dynamic_rnn(cell, x, dtype=F32)[1]
    for _ in range(2):
        chex.assert_trees_all_close(stream.state, (want,), atol=1e-6)
    assert stream.flush() is None
    assert not any(leaf.any() for leaf in jax.tree.leaves(stream.state))


CELL = own(GRUCell(UNITS))
KEYED = CELL.cell.bind(CELL.params, jax.random.key(0))
REFUSALS = {
    "unbound": (
        TypeError,
        "Streamer: `cell` must be a bound",
        lambda: Streamer(GRUCell(4)),
    ),
    "key": (
        ValueError,
        "Streamer: `cell` must have no random",
        lambda: Streamer(KEYED),
    ),
    "batch": (ValueError, "Streamer: `batch_size` must be", lambda: Streamer(CELL, 0)),
    "keys": (
        ValueError,
        r"BidirectionalStreamer: `cells_bw\[0\]` must have no random key",
        lambda: BidirectionalStreamer([CELL], [KEYED], 4, 4),
    ),
    "lists": (
        ValueError,
        "BidirectionalStreamer: `cells_fw` must be a list",
        lambda: BidirectionalStreamer(CELL, CELL, 4, 4),
    ),
    "chunk": (
        ValueError,
        "`chunk` must be at least 1, got 0",
        lambda: BidirectionalStreamer([CELL], [CELL], 0, 4),
    ),
    "lookahead": (
        ValueError,
        "`lookahead` must be at least 0, got -1",
        lambda: BidirectionalStreamer([CELL], [CELL], 1, -1),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses(name):
    kind, message, call = REFUSALS[name]
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize(
    ("shape", "call", "message"),
    [
        ((1, 3, 3), "__call__", r"`chunk` must be \[1, 4, ...\], .* chunk to `flush`"),
        ((2, 4, 3), "__call__", r"got float32\[2, 4, 3\]"),
        ((4, 3), "__call__", r"got float32\[4, 3\]"),
        ({}, "__call__", r"`chunk` must hold at least one array, got {}"),
        ((1, 5, 3), "flush", r"`last` must be \[1, 1 to 4, ...\], got"),
        ((1, 0, 3), "flush", r"`last` must be \[1, 1 to 4, ...\], got"),
    ],
)
def test_refuses_chunks(shape, call, message):
    stream = BidirectionalStreamer([CELL], [CELL], 4, 4)
    with pytest.raises(ValueError, match=f"BidirectionalStreamer: .*{message}"):
        getattr(stream, call)(shape and np.ones(shape, np.float32))
