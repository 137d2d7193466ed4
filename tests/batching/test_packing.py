"""Packs: where they store sequences, how they are read, their runs, and resets.

What packs refuse is at the end, with the argument that each message names.
"""

import collections
import json

import cases
import grain
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, differentiated, draw, drawn, refusals

import jaxrnn
from jaxrnn import (
    Packed,
    pack_sequences,
    packed_batches,
    resets_of_done,
    resets_of_segments,
)
from jaxrnn.testing._oracle import close

TIME = 6
N = [4, 0, 2, 6, 1, 3]
X = np.random.default_rng(0).normal(size=(len(N), TIME, 2)).astype(np.float32)
LIST = [x[:n] for x, n in zip(X, N, strict=True)]


def rows_of_best_fit(lengths, capacity):
    """The number of rows of a best-fit packing, by trying every row."""
    used = []
    for n in sorted(filter(None, lengths), reverse=True):
        fitting = [u for u in used if u + n <= capacity]
        if fitting:
            used.remove(max(fitting))
        used.append(n + max(fitting, default=0))
    return len(used)


def check_layout(packed, sequences):
    """Every sequence has its id at successive steps of one row; the rest is zeros."""
    inputs, segment_ids, positions = jax.tree.map(np.zeros_like, packed)
    first = np.zeros(segment_ids.shape, bool)
    for i, sequence in enumerate(sequences, 1):
        n = len(sequence)
        rows, steps = np.nonzero(packed.segment_ids == i)
        assert len(rows) == n
        if n:
            at = rows[0], slice(steps[0], steps[0] + n)
            inputs[at], segment_ids[at], positions[at] = sequence, i, np.arange(n)
            first[rows[0], steps[0]] = True
    assert_same(packed, Packed(inputs, segment_ids, positions))
    assert packed.segment_ids.dtype == packed.positions.dtype == np.int32
    used = segment_ids > 0
    ends = packed.lengths[:, None]
    np.testing.assert_array_equal(used, np.arange(used.shape[1]) < ends)  # No gaps.
    np.testing.assert_array_equal(packed.resets, first)


@hypothesis.given(
    st.lists(st.integers(-2, TIME + 2), max_size=12),
    st.none() | st.integers(TIME, 3 * TIME),
    st.booleans(),
)
@hypothesis.settings(max_examples=20)
def test_layout_of_any_lengths(lengths, capacity, as_list):
    """Padding is NaN, which must not be packed."""
    x = 1.0 + np.arange(len(lengths) * TIME * 2.0).reshape(-1, TIME, 2)
    counts = [min(max(n, 0), TIME) for n in lengths]
    sequences = [x[i, :n].copy() for i, n in enumerate(counts)]
    row_length = capacity or max([1, *counts])
    if as_list and lengths:
        packed = pack_sequences(sequences, row_length=capacity)
    else:
        x[np.arange(TIME) >= np.array(counts, int)[:, None]] = np.nan
        packed = pack_sequences(x, lengths, row_length=capacity)
    check_layout(packed, sequences)
    rows = max(1, rows_of_best_fit(counts, row_length))
    assert packed.segment_ids.shape == (rows, row_length)


def test_a_number_belongs_to_each_step_of_its_sequence():
    labels = [5, 3, 4, 1, 0, 2]
    pairs = list(zip(LIST, labels, strict=True))
    steps = [{"x": x, "label": np.full(len(x), y)} for x, y in pairs]
    numbers = [{"x": x, "label": y} for x, y in pairs]
    packed = pack_sequences(numbers)
    assert_same(packed, pack_sequences(steps))
    ends = packed.at_ends(packed.inputs["label"])
    np.testing.assert_array_equal(ends, [5, 0, 4, 1, 0, 2])  # The second is empty.


# The records of a pipeline.

LENGTHS = [3, 1, 4, 0, 2, 5, 1, 1, 2, 5, 3, 0, 4, 4, 1, 2]


def record(i, length):
    """A record that says which one it is, at each step."""
    steps = 1 + 10.0 * i + np.arange(length) / 10
    return {"x": np.stack([steps, -steps], 1), "number": i}


RECORDS = [record(i, n) for i, n in enumerate(LENGTHS)]


def first_fit(lengths, rows, row_length, sequences):
    """For each batch, `(record, row)` of its sequences."""
    batches, used = [[]], [0] * rows
    for i, length in enumerate(lengths):
        fitting = [r for r in range(rows) if used[r] + length <= row_length]
        if not fitting or len(batches[-1]) == sequences:
            batches.append([])
            used = [0] * rows
            fitting = [0]
        batches[-1].append((i, fitting[0] if length else 0))
        used[fitting[0]] += length
    return [batch for batch in batches if batch]


@hypothesis.given(
    st.lists(st.integers(0, 6), max_size=20),
    st.integers(1, 3),
    st.integers(6, 9),
    st.none() | st.integers(1, 9),
)
@hypothesis.settings(max_examples=20)
def test_first_fit_of_any_lengths(lengths, rows, row_length, sequences):
    records = [record(i, n) for i, n in enumerate(lengths)]
    given = iter(records), rows, row_length
    batches = list(packed_batches(*given, sequences=sequences))
    count = sequences or rows * -(-row_length // 4)
    want = first_fit(lengths, rows, row_length, count)
    for packed, placed in zip(batches, want, strict=True):
        assert packed.segment_ids.shape == (rows, row_length)
        x = packed.inputs["x"]
        check_layout(packed._replace(inputs=x), [records[i]["x"] for i, _ in placed])
        np.testing.assert_array_equal(packed.inputs["number"], x[..., 0] // 10)
        for k, (i, row) in enumerate(placed, 1):
            if lengths[i]:
                assert k in packed.segment_ids[row]


def test_arrays_are_copied_and_new_in_each_batch():
    buffer = np.zeros((3, 2))

    def records():
        for i in range(6):
            buffer[:] = i
            yield buffer

    batches = list(packed_batches(records(), 1, 6))
    firsts = [packed.inputs[0, [0, 3], 0].tolist() for packed in batches]
    assert firsts == [[0, 1], [2, 3], [4, 5]]


def grain_iterator():
    """Shuffled anew in each epoch, and one of two processes' part."""
    dataset = grain.MapDataset.source(RECORDS).seed(3).shuffle()[0::2].repeat(3)
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=0))
    dataset = dataset.filter(lambda record: len(record["x"]) != 1)
    shuffle = grain.experimental.WindowShuffleIterDataset
    return iter(shuffle(dataset, window_size=5, seed=1))


def batches_of(source):
    return packed_batches(source(), 2, 6, sequences=5)


def in_memory():
    return RECORDS


@pytest.mark.fast("in_memory")
@pytest.mark.parametrize("source", [in_memory, grain_iterator])
def test_resumes_at_every_batch(source):
    batches = batches_of(source)
    states, want = [json.dumps(batches.get_state())], []
    for batch in batches:
        want.append(batch)
        states.append(json.dumps(batches.get_state()))
    assert len(want) > 3
    used = batches_of(source)  # Further on, with a record held.
    next(used), next(used)
    for i, state in enumerate(states):
        for resumed in (batches_of(source), used):
            resumed.set_state(json.loads(state))
            assert json.dumps(resumed.get_state()) == state
            assert_same(list(resumed), want[i:])


def test_a_bad_record_leaves_the_open_batch_as_it_is():
    records = [*RECORDS[:3], record(3, 7), *RECORDS[4:6]]
    batches = packed_batches(records, 3, 6)
    start = batches.get_state()
    with pytest.raises(ValueError, match=r"`records\[3\]` must have at most"):
        next(batches)
    assert batches.get_state() == start
    packed = next(batches)
    held = [RECORDS[i]["x"] for i in (0, 1, 2, 4, 5)]
    check_layout(packed._replace(inputs=packed.inputs["x"]), held)


# Reading. The lengths are mostly `N`: JAX compiles a program for each shape.


def zeroed(x, lengths=N):
    dead = np.arange(x.shape[1]) >= np.array(lengths, int)[:, None]
    return np.where(dead.reshape(*x.shape[:2], *[1] * (x.ndim - 2)), x.dtype.type(0), x)


Pair = collections.namedtuple("Pair", "features ids")


def test_nests_keep_their_dtypes():
    ids = np.arange(len(N) * TIME, dtype=np.int8).reshape(-1, TIME)
    small = jnp.asarray(X[:, :, None], jnp.bfloat16)
    nest = {"a": Pair(X, ids), "b": [ids % 2 == 0, small]}
    packed = pack_sequences(nest, N)
    unpacked = jax.jit(packed.unpack)(packed.inputs)
    assert_same(unpacked, jax.tree.map(zeroed, nest))
    records = [jax.tree.map(lambda x, i=i: x[i, : N[i]], nest) for i in range(len(N))]
    assert_same(pack_sequences(records), packed)


def test_nan_where_nothing_lies_has_no_effect():
    packed = pack_sequences(LIST, rows=5, row_length=8)
    used = packed.segment_ids > 0
    outputs = np.where(used, 100.0 * packed.segment_ids + packed.positions, np.nan)
    count, time = len(N) + 2, 7  # Two sequences and a step that no sequence has.
    weight = 1 + np.arange(count * time * 1.0).reshape(count, time)
    values, ends, slopes = np.zeros((count, time)), np.zeros(count), np.zeros((5, 8))
    for i, n in enumerate(N):
        values[i, :n] = 100 * (i + 1) + np.arange(n)
        ends[i] = values[i, n - 1] if n else 0
        slopes[packed.segment_ids == i + 1] = weight[i, :n]

    def run(outputs, packed):
        unpacked = packed.unpack(outputs, count, time)
        return (unpacked * weight).sum(), (unpacked, packed.at_ends(outputs, count))

    got = jax.jit(jax.grad(run, has_aux=True))(outputs, packed)
    jax.tree.map(np.testing.assert_array_equal, got, (slopes, (values, ends)))


@pytest.mark.parametrize("kind", ["int8", "uint32"])
def test_ids_and_positions_of_any_integer_dtype(kind):
    """The largest numbers, which int32 may not hold, do not become small."""
    last = np.iinfo(kind).max
    ids = np.array([[1, 1, last, 0], [3, 2, 2, 0]], kind)
    positions = np.array([[0, 1, 0, 0], [0, 0, last, 0]], kind)
    x = np.array([[1, 2, 3, np.nan], [4, 5, 6, np.nan]], np.float32)
    packed = Packed(x, ids, positions)
    with jax.enable_x64(False):
        got = jax.jit(lambda: (packed.unpack(x, 3, 2), packed.at_ends(x, 3)))()
    np.testing.assert_array_equal(got[0], [[1, 2], [5, 0], [4, 0]])
    np.testing.assert_array_equal(got[1], [2, 6, 4])


def test_sequences_and_steps_beyond_the_sizes_are_left_out():
    packed = pack_sequences(LIST)
    got = jax.jit(lambda packed: packed.unpack(packed.inputs, 4, 3))(packed)
    np.testing.assert_array_equal(got, zeroed(X)[:4, :3])
    got = packed.at_ends(packed.inputs, 4)
    np.testing.assert_array_equal(got, [X[0, 3], [0, 0], X[2, 1], X[3, 5]])


@pytest.mark.parametrize("shape", [(0, 5, 2), (3, 0, 2), (3, 5)])
def test_empty_axes(shape):
    x = np.ones(shape, np.float32)
    lengths = [0, 0, 0] if shape == (3, 5) else [1, 4, 3][: len(x)]
    packed = pack_sequences(x, lengths)
    assert min(packed.inputs.shape[:2]) >= 1
    count, time = shape[:2]
    read = lambda x: (packed.unpack(x, count, time), packed.at_ends(x, count))
    unpacked, ends = jax.jit(read)(packed.inputs)
    np.testing.assert_array_equal(unpacked, zeroed(x, lengths))
    assert ends.shape == (*shape[:1], *shape[2:])


# Runs in drivers: packs have the results of separate runs of each sequence.

DTYPE = np.dtype("float64")
COUNTS = [3, 0, 9]  # The third has more than all steps.
COUNT = len(COUNTS)


def run_pack(cell, packed):
    """The outputs and final states of each sequence, `[COUNT, ...]`."""
    outputs, _, states = jaxrnn.dynamic_rnn(
        cell,
        packed.inputs,
        packed.lengths,
        dtype=DTYPE,
        resets=packed.resets,
        return_states=True,
    )
    return packed.unpack(outputs, COUNT, TIME), packed.at_ends(states, COUNT)


@pytest.mark.fast("basic_rnn")
@pytest.mark.parametrize("name", ["basic_rnn", "mlstm"])
def test_gives_what_separate_runs_give(name):
    """Values, gradients and final states; NaN in the padding does not matter."""
    cell, x = cases.CASES[name].cell, draw(COUNT, TIME, cases.DEPTH)
    params = drawn(cell, x[:, 0])
    packed = pack_sequences(x, COUNTS, row_length=10)
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
        for i, n in enumerate(COUNTS):
            one = x[i : i + 1, : min(n, TIME)]
            made, last = jaxrnn.dynamic_rnn(cell.bind(params), one, dtype=DTYPE)
            outputs.append(jax.tree.map(padded, made))
            lasts.append(jax.tree.map(lambda s: s[0], last))
        stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
        return stack(outputs), stack(lasts)

    close(differentiated(in_rows, params, x), differentiated(alone, params, x), DTYPE)


def test_nan_in_a_sequence_stays_there():
    """It does not reach the gradients of other sequences; the laws have other cells."""
    cell = jaxrnn.QRNNCell(4)
    x = np.random.default_rng(0).normal(size=(3, 3, 4))
    params = drawn(cell, jnp.asarray(x[:, 0]))
    with_hole = np.array(x)
    with_hole[1, 1] = np.nan
    packs = [pack_sequences(x, [3] * 3, row_length=9) for x in (with_hole, x)]

    def loss(inputs, packed):
        outputs, _ = jaxrnn.dynamic_rnn(
            cell.bind(params), inputs, packed.lengths, dtype=DTYPE, resets=packed.resets
        )
        return jnp.sum(packed.unpack(outputs, 3, 3)[::2] ** 2)

    gradient = jax.jit(lambda p: p.unpack(jax.grad(loss)(p.inputs, p), 3, 3)[::2])
    np.testing.assert_allclose(*map(gradient, packs), rtol=1e-12)


def test_packs_of_grain_need_no_conversion():
    """Grain counts the sequences of each row anew."""
    x = np.random.default_rng(0).normal(size=(12, 5, 2))
    lengths = [5, 3, 2, 4, 1, 5, 2, 2, 3, 5, 1, 4]
    records = [{"x": x[i, :n]} for i, n in enumerate(lengths)]
    dataset = grain.MapDataset.source(records).to_iter_dataset()
    packs = grain.experimental.FirstFitPackIterDataset(
        dataset, length_struct={"x": 8}, num_packing_bins=3
    )
    seen = 0
    for batch in packs.batch(2):
        packed = Packed(batch["x"], batch["x_segment_ids"], batch["x_positions"])
        used = packed.segment_ids > 0
        resets = resets_of_segments(packed.segment_ids) & used
        np.testing.assert_array_equal(packed.lengths, used.sum(1))
        np.testing.assert_array_equal(packed.resets, resets)
        np.testing.assert_array_equal(resets, used & (packed.positions == 0))
        seen += np.count_nonzero(resets)
    assert seen == len(records)


# Resets without packs.

RNG = np.random.default_rng(0)
IDS, DONE, LAST = RNG.integers(0, 3, (5, 7)), RNG.random((5, 7)) < 0.3, np.arange(5) > 2


@pytest.mark.parametrize("time_major", [False, True])
def test_resets_are_those_of_a_loop(time_major):
    of_ids, of_done = np.ones(IDS.shape, bool), np.zeros(IDS.shape, bool)
    for row, t in np.ndindex(IDS.shape):
        of_done[row, t] = DONE[row, t - 1] if t else LAST[row]
        if t > 0:
            of_ids[row, t] = 0 < IDS[row, t] != IDS[row, t - 1]
    turn = np.transpose if time_major else np.asarray
    options = {"time_major": time_major}
    got = resets_of_segments(turn(IDS), **options)
    assert_same(turn(got), of_ids)
    run = jax.jit(lambda *given: resets_of_done(*given, **options))
    assert_same(turn(run(turn(DONE), LAST)), of_done)
    assert resets_of_done(DONE[:, :0], LAST).shape == (5, 0)


def test_ids_beyond_int32_are_compared_whole():
    ids = np.array([[0, 2**32, 2**32]])
    with jax.enable_x64(False):
        assert resets_of_segments(ids).tolist() == [[True, True, False]]


# Refusals

RECORD, LONG = np.ones((3, 2)), np.ones((7, 2))
PACK = pack_sequences(LIST, rows=4)


# As of Grain, which counts the sequences of each row anew.
ANEW = PACK._replace(segment_ids=np.minimum(PACK.segment_ids, 1))


def traced(fn, argument):
    return lambda: jax.jit(fn)(argument)


def batched(*records):
    return lambda: list(packed_batches(records, 2, 6))


pack, T, V = pack_sequences, TypeError, ValueError
test_refusals = refusals([
    # The arrays of packs
    (T, "h` must not be traced", traced(lambda n: pack(X, n), X[0, :, 0])),
    (T, "got Pair", lambda: pack(Pair(X, X))),
    (V, r"got \[\]", lambda: pack([])),
    (V, r"`inputs\[1\]` .* first two sizes", lambda: pack(LIST, N)),
    (V, "^`sequence_length`", lambda: pack(X, N[1:])),
    (V, r"`inputs\[1\]` .* structure", lambda: pack([[X[0]], X[0]])),
    (V, "`row_length`", lambda: pack(X, N, row_length=5)),
    (V, "`rows`", lambda: pack(X, N, rows=2)),
    # The arrays that are read by a pack
    (V, "`tree`", lambda: PACK.at_ends(X[0])),
    (V, "`count`", traced(lambda packed: packed.unpack(packed.inputs, time=6), PACK)),
    (V, "`segment_ids`", lambda: ANEW.unpack(ANEW.inputs)),
    # Batches of a pipeline
    (T, "`records`", lambda: packed_batches(None, 2, 6)),
    (T, "`records`", lambda: packed_batches(iter([]), 2, 6).get_state()),
    (V, r"`records\[1\]` .* `row_length`", batched(RECORD, LONG)),
    (V, "`sequences`", lambda: packed_batches([], 1, 6, sequences=0)),
    # Resets
    (T, "^`segment_ids` .* float", lambda: resets_of_segments(IDS * 0.5)),
    (T, "^`segment_ids` .* mask", lambda: resets_of_segments(np.ma.array(IDS))),
    (V, r"^`last_done` .* None.* `jnp.ones\(5, bool\)`", lambda: resets_of_done(DONE)),
    (V, "^`last_done` .* bool", lambda: resets_of_done(DONE, DONE[0])),
])  # fmt: skip
