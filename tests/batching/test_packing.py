"""Where packs store sequences: of a batch, of several packs, of a pipeline."""

import dataclasses
import json

import grain
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

from jaxrnn import concat_packed, pack_sequences, packed_batches, stack_packed

TIME = 6
N = [4, 0, 2, 6, 1, 3]
X = np.random.default_rng(0).normal(size=(len(N), TIME, 2)).astype(np.float32)
LIST = [x[:n] for x, n in zip(X, N, strict=True)]
INT_FIELDS = "lengths", "starts", "row", "offset", "sequence_length"


def swapped(tree):
    return jax.tree.map(lambda x: np.swapaxes(x, 0, 1), tree)


def rows_of_best_fit(lengths, capacity):
    """The number of rows of a best-fit packing, by trying every row."""
    used = []
    for n in sorted(filter(None, lengths), reverse=True):
        fitting = [r for r, u in enumerate(used) if u + n <= capacity]
        if fitting:
            used[max(fitting, key=lambda r: used[r])] += n
        else:
            used.append(n)
    return len(used)


def check_layout(packed, sequences):
    """Every sequence is where the fields say, alone; the rest is zeros and -1."""
    turn = swapped if packed.time_major else np.asarray
    got_inputs, got_starts = turn(packed.inputs), turn(packed.starts)
    rows, capacity = got_starts.shape
    owners, starts = np.full((2, rows, capacity), -1)
    inputs, ends = np.zeros_like(got_inputs), np.zeros(rows, int)
    for i, sequence in enumerate(sequences):
        assert packed.sequence_length[i] == len(sequence)
        r, at = packed.row[i], packed.offset[i]
        for t, step in enumerate(sequence):
            assert owners[r, at + t] == -1
            owners[r, at + t] = i
            inputs[r, at + t] = step
        if len(sequence):
            starts[r, at] = i
            ends[r] = max(ends[r], at + len(sequence))
        else:
            assert r == at == 0
    np.testing.assert_array_equal(got_inputs, inputs)
    np.testing.assert_array_equal(got_starts, starts)
    np.testing.assert_array_equal(packed.lengths, ends)
    np.testing.assert_array_equal((owners >= 0).sum(1), ends)  # No gaps.
    assert {getattr(packed, name).dtype for name in INT_FIELDS} == {np.dtype("int32")}


@hypothesis.given(
    st.lists(st.integers(-2, TIME + 2), max_size=12),
    st.none() | st.integers(TIME, 3 * TIME),
    st.booleans(),
    st.booleans(),
)
def test_layout_of_any_lengths(lengths, capacity, time_major, as_list):
    """Padding is NaN, which must not be packed."""
    x = 1.0 + np.arange(len(lengths) * TIME * 2.0).reshape(-1, TIME, 2)
    counts = [min(max(n, 0), TIME) for n in lengths]
    sequences = [x[i, :n].copy() for i, n in enumerate(counts)]
    options = {"row_length": capacity, "time_major": time_major}
    longest = max([1, *counts])
    if as_list and lengths:
        packed = pack_sequences(sequences, **options)
        assert packed.time == (capacity or longest)
    else:
        for i, n in enumerate(counts):
            x[i, n:] = np.nan
        given = swapped(x) if time_major else x
        packed = pack_sequences(given, lengths, **options)
        assert packed.time == TIME
    check_layout(packed, sequences)
    rows = max(1, rows_of_best_fit(counts, capacity or longest))
    assert (packed.rows, packed.row_length) == (rows, capacity or longest)
    assert packed.sequences == len(lengths)
    assert packed.fill == pytest.approx(sum(counts) / (rows * packed.row_length))


def test_lists_pass_for_tuples_as_in_the_first_sequence():
    packed = pack_sequences([(X[0], X[1]), [X[2], X[3]]])
    assert_same(packed.inputs, (X[[0, 2]], X[[1, 3]]))


def test_a_number_belongs_to_each_step_of_its_sequence():
    labels = [5, 3, 4, 1, 0, 2]
    pairs = list(zip(LIST, labels, strict=True))
    steps = [{"x": x, "label": np.full(len(x), y)} for x, y in pairs]
    numbers = [{"x": x, "label": y} for x, y in pairs]
    assert_same(pack_sequences(numbers), pack_sequences(steps))


@pytest.mark.parametrize("x64", [False, True])
def test_constants_are_packed_while_a_function_is_traced(x64):
    with jax.enable_x64(x64):
        constant, lengths = jnp.asarray(X), jnp.asarray(N)

        @jax.jit
        def run(scale):
            packed = pack_sequences(constant, lengths)
            assert isinstance(packed.lengths, np.ndarray)
            return packed.unpack(scale * packed.inputs)

        got = run(jnp.float32(2))[3]
        np.testing.assert_array_equal(got, 2 * X[3])  # It fills all steps.


# Several packs.


@pytest.mark.parametrize("time_major", [False, True])
def test_concatenated_packs_hold_the_sequences_of_all(time_major):
    lists = LIST, LIST[1:5], [X[0, :0]] * 3, LIST[3:]
    together = [sequence for some in lists for sequence in some]
    given = [
        pack_sequences(some, rows=rows, row_length=8, time_major=time_major)
        for some, rows in zip(lists, [3, 3, 3, None], strict=True)
    ]
    joined = concat_packed(iter(given))
    check_layout(joined, together)
    assert (joined.rows, joined.sequences) == (3 + 3 + 3 + 2, 6 + 4 + 3 + 3)
    assert_same(concat_packed([concat_packed(given[:2]), *given[2:]]), joined)
    assert all(type(x) is np.ndarray for x in jax.tree.leaves(joined))


def test_the_longest_time_is_unpacked_to():
    padded = pack_sequences(np.ones((2, 5)), [5, 2], rows=2, row_length=8)
    listed = pack_sequences([np.ones(7), np.ones(1)], rows=2, row_length=8)
    assert (padded.time, listed.time) == (5, 8)
    for join in concat_packed, stack_packed:
        assert join([padded, listed]).time == 8


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
    st.booleans(),
)
def test_first_fit_of_any_lengths(lengths, rows, row_length, sequences, time_major):
    records = [record(i, n) for i, n in enumerate(lengths)]
    options = {"sequences": sequences, "time_major": time_major}
    batches = list(packed_batches(iter(records), rows, row_length, **options))
    count = sequences or rows * -(-row_length // 4)
    want = first_fit(lengths, rows, row_length, count)
    for packed, placed in zip(batches, want, strict=True):
        assert (packed.rows, packed.sequences, packed.time) == (rows, count, row_length)
        held = [records[i]["x"] for i, _ in placed]
        held += [np.zeros((0, 2))] * (count - len(held))
        x = packed.inputs["x"]
        check_layout(dataclasses.replace(packed, inputs=x), held)
        np.testing.assert_array_equal(packed.inputs["number"], x[..., 0] // 10)
        assert packed.row[: len(placed)].tolist() == [row for _, row in placed]
    assert len({jax.tree.structure(packed) for packed in batches}) <= 1


def test_arrays_are_copied_and_new_in_each_batch():
    buffer = np.zeros((3, 2))

    def records():
        for i in range(6):
            buffer[:] = i
            yield buffer

    batches = list(packed_batches(records(), 1, 6))
    firsts = [packed.inputs[0, [0, 3], 0].tolist() for packed in batches]
    assert firsts == [[0, 1], [2, 3], [4, 5]]


class Indexable:
    """Records with a length and indices, and nothing else."""

    def __len__(self):
        return len(RECORDS)

    def __getitem__(self, i):
        return RECORDS[i]


def grain_map():
    """Shuffled anew in each epoch, one of two processes' part; threads read ahead."""
    dataset = grain.MapDataset.source(RECORDS).seed(3).shuffle()[0::2]
    return dataset.repeat(3)


def grain_iterator():
    dataset = grain_map().to_iter_dataset(grain.ReadOptions(num_threads=0))
    dataset = dataset.filter(lambda record: len(record["x"]) != 1)
    shuffle = grain.experimental.WindowShuffleIterDataset
    return iter(shuffle(dataset, window_size=5, seed=1))


def grain_loader():
    shard = grain.sharding.ShardOptions(shard_index=1, shard_count=2)
    sampler = grain.samplers.IndexSampler(
        len(RECORDS), shard, shuffle=True, num_epochs=3, seed=2
    )
    return grain.DataLoader(data_source=RECORDS, sampler=sampler)


SOURCES = {
    "indexable": Indexable,
    "grain_map": grain_map,
    "grain_iterator": grain_iterator,
    "grain_loader": grain_loader,
}


def batches_of(source):
    return packed_batches(SOURCES[source](), 2, 6, sequences=5)


@pytest.mark.fast("indexable", "grain_iterator")
@pytest.mark.parametrize("source", SOURCES)
def test_resumes_at_every_batch(source):
    batches, states, all_batches = batches_of(source), [], []
    while True:
        states.append(json.dumps(batches.get_state()))
        try:
            all_batches.append(next(batches))
        except StopIteration:
            break
    assert len(all_batches) > 3
    assert batches.get_state() == json.loads(states[-1])
    used = batches_of(source)  # Further on, with a record held.
    next(used), next(used)
    for i, state in enumerate(states):
        for resumed in (batches_of(source), used):
            resumed.set_state(json.loads(state))
            assert json.dumps(resumed.get_state()) == state
            rest = list(resumed)
            assert len(rest) == len(all_batches) - i
            for got, want in zip(rest, all_batches[i:], strict=True):
                assert_same(got, want)


def test_a_bad_record_leaves_the_open_batch_as_it_is():
    records = [*RECORDS[:3], record(3, 7), *RECORDS[4:6]]
    batches = packed_batches(records, 3, 6)
    start = batches.get_state()
    with pytest.raises(ValueError, match=r"`records\[3\]` must have at most"):
        next(batches)
    assert batches.get_state() == start
    packed = next(batches)
    x = dataclasses.replace(packed, inputs=packed.inputs["x"])
    held = [RECORDS[i]["x"] for i in (0, 1, 2, 4, 5)]
    check_layout(x, [*held, np.zeros((0, 2))])
