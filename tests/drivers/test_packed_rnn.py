"""`packed_rnn` has the same results as `dynamic_rnn` over padded rows."""

import dataclasses

import cases
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import differentiated, draw, drawn, drawn_like

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, pack_sequences, packed_rnn
from jaxrnn.testing._oracle import close

DTYPE = np.dtype("float64")
LENGTHS = np.array([3, 0, 6, 1, 2, 4, 9, 1, 0])
# Cells without random numbers, which depend on the steps of a row.
NAMES = ["lstm_projection", "lstm_joined", "gru", "multi", "residual_fn"]
NAMES += ["past_inputs", "temporal_conv"]


def data(cell):
    x = draw(len(LENGTHS), 6, cases.DEPTH)
    return drawn(cell, x[:, 0]), x, drawn_like(cell.zero_state(len(LENGTHS), DTYPE), 1)


@pytest.mark.fast("gru")
@pytest.mark.parametrize("name", NAMES)
def test_gives_what_the_padded_rows_give(name):
    cell = cases.CASES[name].cell
    params, x, state = data(cell)
    time_major = name == "gru"
    turn = lambda x: jnp.swapaxes(x, 0, 1) if time_major else x
    alive = np.arange(x.shape[1]) < LENGTHS[:, None]
    padded = np.where(alive[..., None], x, np.nan)
    packed = pack_sequences(turn(padded), LENGTHS, time_major=time_major)

    def by_rows(params, state, x):
        return jaxrnn.dynamic_rnn(cell.bind(params), x, LENGTHS, state)

    def end_to_end(params, state, inputs):
        given = dataclasses.replace(packed, inputs=inputs)
        outputs, last = packed_rnn(cell.bind(params), given, state)
        return jax.tree.map(turn, packed.unpack(outputs)), last

    assert packed.lengths.shape[0] < len(LENGTHS)
    got, slopes = differentiated(end_to_end, params, state, packed.inputs)
    slopes = (*slopes[:2], turn(packed.unpack(slopes[2])))
    close((got, slopes), differentiated(by_rows, params, state, x), DTYPE)


# The laws have the others: where all sequences start from zeros, they are resets.
KINDS = [jaxrnn.MLSTMCell(4, 2), jaxrnn.QRNNCell(4)]
KINDS += [jaxrnn.TemporalConvWrapper(GRUCell(4), 4)]
KINDS += [jaxrnn.PastInputsWrapper(LSTMCell(4), 4, 3)]


@pytest.mark.fast("overflow-MLSTMCell", "nan-TemporalConvWrapper")
@pytest.mark.parametrize("cell", KINDS, ids=lambda cell: type(cell).__name__)
@pytest.mark.parametrize("bad", [np.nan, 1.6e308], ids=["nan", "overflow"])
def test_nan_in_a_sequence_stays_there(bad, cell):
    """It does not reach the gradients of other sequences in the row."""
    x = np.random.default_rng(0).normal(size=(3, 3, 4))
    params = drawn(cell, jnp.asarray(x[:, 0]))
    with_hole = np.array(x)
    with_hole[1, 1] = bad
    packs = [pack_sequences(x, [3] * 3, row_length=9) for x in (with_hole, x)]

    @jax.jit
    @jax.grad
    def gradient(inputs, packed):
        packed = dataclasses.replace(packed, inputs=inputs)
        outputs, _ = packed_rnn(cell.bind(params), packed, dtype=DTYPE)
        return jnp.sum(packed.unpack(outputs)[::2] ** 2)

    got, want = (p.unpack(gradient(p.inputs, p))[::2] for p in packs)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_batches_of_one_shape_compile_once():
    cell = GRUCell(3)
    params, x, _ = data(cell)

    @jax.jit
    @chex.assert_max_traces(1)
    def run(params, packed):
        return packed_rnn(cell.bind(params), packed, dtype=DTYPE)

    for lengths in (LENGTHS, LENGTHS[::-1] // 2):
        packed = pack_sequences(x, lengths, rows=4, row_length=7)
        outputs, last = run(params, packed)
        want = jaxrnn.dynamic_rnn(cell.bind(params), x, lengths, dtype=DTYPE)
        close((packed.unpack(outputs), last), want, DTYPE)


def test_nothing_but_empty_sequences():
    cell = GRUCell(3)
    params, x, state = data(cell)
    packed = pack_sequences(x, LENGTHS * 0)
    outputs, last = packed_rnn(cell.bind(params), packed, state)
    assert not packed.unpack(outputs).any()
    np.testing.assert_array_equal(last, state)
