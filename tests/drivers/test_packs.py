"""Packs through drivers have the results of separate runs of each sequence."""

import cases
import chex
import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, differentiated, draw, drawn

import jaxrnn
from jaxrnn import GRUCell, Packed, pack_sequences
from jaxrnn.testing._oracle import close

DTYPE = np.dtype("float64")
LENGTHS = [3, 0, 6, 1, 2, 4, 9, 1, 0]  # The last but two has more than all steps.
COUNT, TIME = len(LENGTHS), 6
# Cells without random numbers, which depend on the steps of a row.
NAMES = ["lstm_projection", "lstm_joined", "gru", "multi", "residual_fn"]
NAMES += ["short_conv", "mlstm", "qrnn"]


def run_pack(cell, packed, **options):
    """The outputs and final states of each sequence, `[COUNT, ...]`."""
    outputs, _, states = jaxrnn.dynamic_rnn(
        cell,
        packed.inputs,
        packed.lengths,
        dtype=DTYPE,
        resets=packed.resets,
        return_states=True,
        **options,
    )
    return packed.unpack(outputs, COUNT, TIME), packed.at_ends(states, COUNT)


@pytest.mark.fast("gru", "mlstm")
@pytest.mark.parametrize("name", NAMES)
def test_gives_what_separate_runs_give(name):
    """Values, gradients and final states; NaN in the padding does not matter."""
    cell, x = cases.CASES[name].cell, draw(COUNT, TIME, cases.DEPTH)
    params = drawn(cell, x[:, 0])
    packed = pack_sequences(x, LENGTHS, row_length=10)
    padding = (packed.segment_ids == 0)[..., None]
    assert padding.any()

    def in_rows(params, x):
        i = np.maximum(packed.segment_ids - 1, 0), packed.positions
        given = packed._replace(inputs=jnp.where(padding, jnp.nan, x[i]))
        return run_pack(cell.bind(params), given)

    def padded(outputs):
        zeros = jnp.zeros((TIME, *outputs.shape[2:]), outputs.dtype)
        return zeros.at[: outputs.shape[1]].set(outputs[0])

    def alone(params, x):
        outputs, lasts = [], []
        for i, n in enumerate(LENGTHS):
            one = x[i : i + 1, : min(n, TIME)]
            made, last = jaxrnn.dynamic_rnn(cell.bind(params), one, dtype=DTYPE)
            outputs.append(jax.tree.map(padded, made))
            lasts.append(jax.tree.map(lambda s: s[0], last))
        stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
        return stack(outputs), stack(lasts)

    close(differentiated(in_rows, params, x), differentiated(alone, params, x), DTYPE)


# The laws have the others.
KINDS = [jaxrnn.MLSTMCell(4, 2), jaxrnn.QRNNCell(4)]
KINDS += [jaxrnn.MultiRNNCell([jaxrnn.ShortConvCell(4), GRUCell(4)])]


@pytest.mark.fast("overflow-MLSTMCell", "nan-MultiRNNCell")
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
        outputs, _ = jaxrnn.dynamic_rnn(
            cell.bind(params), inputs, packed.lengths, dtype=DTYPE, resets=packed.resets
        )
        return jnp.sum(packed.unpack(outputs, 3, 3)[::2] ** 2)

    got, want = (p.unpack(gradient(p.inputs, p))[::2] for p in packs)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_batches_of_one_shape_compile_once():
    cell = bound(GRUCell(3), depth=2)
    x = draw(COUNT, TIME, 2)
    run = jax.jit(chex.assert_max_traces(lambda packed: run_pack(cell, packed), 1))
    for lengths in (LENGTHS, np.array(LENGTHS[::-1]) // 2):
        packed = pack_sequences(x, lengths, rows=4, row_length=7)
        outputs, last = run(packed)
        close((outputs, last), jaxrnn.dynamic_rnn(cell, x, lengths, dtype=DTYPE), DTYPE)


def test_packs_of_grain_need_no_conversion():
    """Grain counts the sequences of each row anew."""
    x = np.random.default_rng(0).normal(size=(12, 5, 2))
    lengths = [5, 3, 2, 4, 1, 5, 2, 2, 3, 5, 1, 4]
    records = [{"x": x[i, :n]} for i, n in enumerate(lengths)]
    dataset = grain.MapDataset.source(records).to_iter_dataset()
    packs = grain.experimental.FirstFitPackIterDataset(
        dataset, length_struct={"x": 8}, num_packing_bins=3
    )
    cell, seen = bound(GRUCell(3), depth=2), 0
    for batch in packs.batch(2):
        packed = Packed(batch["x"], batch["x_segment_ids"], batch["x_positions"])
        outputs, _ = jaxrnn.dynamic_rnn(
            cell,
            packed.inputs,
            packed.lengths,
            dtype=DTYPE,
            resets=jaxrnn.resets_of_segments(packed.segment_ids),
        )
        again, _ = jaxrnn.dynamic_rnn(
            cell, packed.inputs, packed.lengths, dtype=DTYPE, resets=packed.resets
        )
        np.testing.assert_array_equal(outputs, again)
        for row, ids in enumerate(packed.segment_ids):
            for i in range(1, ids.max() + 1):
                one = packed.inputs[row : row + 1, ids == i]
                want, _ = jaxrnn.dynamic_rnn(cell, one, dtype=DTYPE)
                close(outputs[row, ids == i], want[0], DTYPE)
                seen += 1
    assert seen == len(records)


def test_nothing_but_empty_sequences():
    cell = bound(GRUCell(3), depth=2)
    outputs, last = run_pack(cell, pack_sequences(np.ones((COUNT, 4, 2)), [0] * COUNT))
    assert not outputs.any()
    assert not last.any()
    assert outputs.shape == (COUNT, TIME, 3)
