"""Packed batches: first fit, of one shape, every record once, resumed at any batch."""

import dataclasses
import json
import re

import grain
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from helpers import assert_same, bound

import jaxrnn
from jaxrnn import packed_batches
from jaxrnn.testing._oracle import close

DTYPE = np.dtype("float64")
LENGTHS = [3, 1, 4, 0, 2, 5, 1, 1, 2, 5, 3, 0, 4, 4, 1, 2]


def record(i, length):
    """A record that says which one it is, at each step."""
    steps = 1 + 10.0 * i + np.arange(length) / 10
    return {"x": np.stack([steps, -steps], 1), "number": i}


RECORDS = [record(i, n) for i, n in enumerate(LENGTHS)]


def first_fit(lengths, rows, row_length, sequences):
    """For each batch, `(record, row, offset)` of its sequences."""
    batches, used = [[]], [0] * rows
    for i, length in enumerate(lengths):
        fitting = [r for r in range(rows) if used[r] + length <= row_length]
        if not fitting or len(batches[-1]) == sequences:
            batches.append([])
            used = [0] * rows
            fitting = [0]
        row = fitting[0]
        batches[-1].append((i, row, used[row]) if length else (i, 0, 0))
        used[row] += length
    return [batch for batch in batches if batch]


def check_batch(packed, placed, lengths):
    """The records lie where they must, alone; all else is zeros and -1."""
    by_row = lambda x: np.swapaxes(x, 0, 1) if packed.time_major else x
    x, starts = by_row(packed.inputs["x"]), by_row(packed.starts)
    want_x, want_starts = np.zeros_like(x), np.full_like(starts, -1)
    want_number = np.zeros_like(by_row(packed.inputs["number"]))
    used = np.zeros(packed.rows, np.int32)
    for s, (i, row, offset) in enumerate(placed):
        n = lengths[i]
        want_x[row, offset : offset + n] = record(i, n)["x"]
        want_number[row, offset : offset + n] = i
        if n:
            want_starts[row, offset] = s
        used[row] += n
    np.testing.assert_array_equal(x, want_x)
    np.testing.assert_array_equal(starts, want_starts)
    np.testing.assert_array_equal(by_row(packed.inputs["number"]), want_number)
    np.testing.assert_array_equal(packed.lengths, used)
    unused = [(0, 0, 0)] * (packed.sequences - len(placed))
    fields = [(row, at, lengths[i]) for i, row, at in placed] + unused
    got = zip(packed.row, packed.offset, packed.sequence_length, strict=True)
    assert list(got) == fields
    for name in ("lengths", "starts", "row", "offset", "sequence_length"):
        assert getattr(packed, name).dtype == np.int32


@hypothesis.given(
    st.lists(st.integers(0, 6), max_size=20),
    st.integers(1, 3),
    st.integers(6, 9),
    st.none() | st.integers(1, 9),
    st.booleans(),
)
def test_first_fit_of_any_lengths(lengths, rows, row_length, sequences, time_major):
    records = (record(i, n) for i, n in enumerate(lengths))
    options = {"sequences": sequences, "time_major": time_major}
    batches = list(packed_batches(records, rows, row_length, **options))
    count = sequences or rows * -(-row_length // 4)
    want = first_fit(lengths, rows, row_length, count)
    assert [i for batch in want for i, _, _ in batch] == list(range(len(lengths)))
    for packed, placed in zip(batches, want, strict=True):
        assert (packed.rows, packed.sequences, packed.time) == (rows, count, row_length)
        check_batch(packed, placed, lengths)
    assert len({jax.tree.structure(packed) for packed in batches}) <= 1


@pytest.mark.parametrize("time_major", [False, True])
def test_every_record_gets_its_own_results_and_label(time_major):
    cell = bound(jaxrnn.LSTMCell(3), depth=2)

    @jax.jit
    def run(packed):
        x = packed.inputs["x"]
        outputs, state = jaxrnn.packed_rnn(
            cell, dataclasses.replace(packed, inputs=x), dtype=DTYPE
        )
        return packed.unpack(outputs), state, packed.at_ends(packed.inputs["number"])

    found = {}
    for packed in packed_batches(RECORDS, 2, 6, time_major=time_major):
        outputs, state, numbers = run(packed)
        outputs = jnp.swapaxes(outputs, 0, 1) if time_major else outputs
        for s in np.flatnonzero(packed.sequence_length):
            row = jax.tree.map(lambda leaf, s=s: leaf[s], (outputs, state))
            assert found.setdefault(int(numbers[s]), row) is row
    assert run._cache_size() == 1
    assert sorted(found) == [i for i, n in enumerate(LENGTHS) if n]
    for i, got in found.items():
        x = np.zeros((1, 6, 2))
        x[0, : LENGTHS[i]] = RECORDS[i]["x"]
        want = jaxrnn.dynamic_rnn(cell, x, [LENGTHS[i]], dtype=DTYPE)
        close(got, jax.tree.map(lambda leaf: leaf[0], want), DTYPE)


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
    """Shuffled anew in each epoch, one of two processes' part."""
    dataset = grain.MapDataset.source(RECORDS).seed(3).shuffle()[0::2]
    return dataset.repeat(3)


def grain_iter():
    dataset = grain_map().to_iter_dataset()
    dataset = dataset.filter(lambda record: len(record["x"]) != 1)
    return grain.experimental.WindowShuffleIterDataset(dataset, window_size=5, seed=1)


def grain_loader():
    shard = grain.sharding.ShardOptions(shard_index=1, shard_count=2)
    sampler = grain.samplers.IndexSampler(
        len(RECORDS), shard, shuffle=True, num_epochs=3, seed=2
    )
    return grain.DataLoader(data_source=RECORDS, sampler=sampler)


def grain_threads():
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    return grain_map().to_iter_dataset(options)


SOURCES = {
    "list": lambda: RECORDS,
    "tuple": lambda: tuple(RECORDS),
    "indexable": Indexable,
    "grain_map": grain_map,
    "grain_iter": grain_iter,
    "grain_iterator": lambda: iter(grain_iter()),
    "grain_loader": grain_loader,
    "grain_threads": grain_threads,
}


def batches_of(source):
    return packed_batches(SOURCES[source](), 2, 6, sequences=5)


@pytest.mark.fast("list", "tuple", "indexable", "grain_iterator")
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


class PackedIterator(grain.DatasetIterator):
    def __init__(self, parent):
        super().__init__(parent)
        self._batches = packed_batches(parent, 2, 6)

    def __next__(self):
        return next(self._batches)

    def get_state(self):
        return self._batches.get_state()

    def set_state(self, state):
        self._batches.set_state(state)


class Packed(grain.IterDataset):
    def __iter__(self):
        return PackedIterator(iter(self._parent))


def test_as_a_transformation_of_grain_that_orbax_saves(tmp_path):
    make = lambda: iter(Packed(grain_iter()).map(lambda packed: packed.inputs["x"]))
    batches = make()
    next(batches)
    with ocp.CheckpointManager(tmp_path) as manager:
        save = grain.checkpoint.CheckpointSave(batches)
        manager.save(0, args=ocp.args.Composite(batches=save))
        manager.wait_until_finished()
        want, resumed = list(batches), make()
        restore = grain.checkpoint.CheckpointRestore(resumed)
        manager.restore(0, args=ocp.args.Composite(batches=restore))
    assert len(want) > 1
    assert_same(list(resumed), want)


def test_a_bad_record_leaves_the_open_batch_as_it_is():
    records = [*RECORDS[:3], record(3, 7), *RECORDS[4:6]]
    batches = packed_batches(records, 3, 6)
    start = batches.get_state()
    with pytest.raises(
        ValueError, match=r"`records\[3\]` must have at most `row_length` \(6\) steps"
    ):
        next(batches)
    assert batches.get_state() == start
    lengths = [3, 1, 4, 2, 5]
    numbers = [0, 1, 2, 4, 5]
    packed = next(batches)
    got = packed.at_ends(packed.inputs["number"])[:5]
    np.testing.assert_array_equal(got, numbers)
    np.testing.assert_array_equal(packed.sequence_length[:5], lengths)


def test_no_records_give_no_batches():
    batches = packed_batches([], 2, 6)
    assert batches.get_state() == {"records": 0, "number": 0}
    assert list(batches) == []


def test_repr():
    assert repr(packed_batches([], 2, 6)) == (
        "<packs of 4 sequences in 2 rows of 6 steps>"
    )


X = np.ones((3, 2))


def first(*records):
    return lambda: list(packed_batches(list(records), 2, 6))


def after_set_state(state):
    return lambda: packed_batches(RECORDS, 2, 6).set_state(state)


REFUSALS = {
    "too_long": (
        ValueError,
        r"`records\[1\]` must have at most `row_length` \(6\) steps, got 7. Make rows",
        first(X, np.ones((7, 2))),
    ),
    "structure": (
        ValueError,
        r"`records\[1\]` must have the structure \{'a': \*\}, got \*. It must match `r",
        first({"a": X}, X),
    ),
    "dtype": (
        ValueError,
        r"`records\[2\]\['a'\]` must have the dtype and step shape of",
        first({"a": X}, {"a": X}, {"a": X.astype(int)}),
    ),
    "dtype_of_a_label": (
        ValueError,
        r"`records\[1\]\[1\]` must have the dtype .* got float64\[3\]",
        first((X, 3), (X, 3.0)),
    ),
    "length": (
        ValueError,
        r"Length must be the same for all inputs \[length, ...\]: ",
        first({"a": X, "b": X[1:]}),
    ),
    "numbers_alone": (
        ValueError,
        r"`records\[0\]` must hold at least one array \[length, ...\], got",
        first({"a": 3}),
    ),
    "no_leaves": (
        ValueError,
        r"`records\[0\]` must hold at least one array \[length, ...\], got",
        first({}),
    ),
    "none": (ValueError, r"`records\[0\]` must be an array, got None", first(None)),
    "string": (
        TypeError,
        r"`records\[0\]` must be an array, got 'a'",
        lambda: next(packed_batches("abc", 2, 6)),
    ),
    "traced": (
        TypeError,
        r"`records\[0\]` must be concrete, got traced",
        lambda: jax.jit(lambda x: next(packed_batches([x], 2, 6)))(X),
    ),
    "dict": (
        TypeError,
        "`records` must be a sequence or an iterable of records, got dict",
        lambda: packed_batches({"a": X}, 2, 6),
    ),
    "number": (
        TypeError,
        "`records` must be a sequence or an iterable of records, got 3",
        lambda: packed_batches(3, 2, 6),
    ),
    "rows": (
        ValueError,
        "`rows` must be at least 1, got 0",
        lambda: packed_batches([], 0, 6),
    ),
    "row_length": (
        TypeError,
        "`row_length` must be an integer, got 6.0",
        lambda: packed_batches([], 1, 6.0),
    ),
    "sequences": (
        ValueError,
        "`sequences` must be at least 1, got 0. Leave it out",
        lambda: packed_batches([], 1, 6, sequences=0),
    ),
    "time_major": (
        TypeError,
        "`time_major` must be True or False",
        lambda: packed_batches([], 1, 6, time_major=1),
    ),
    "no_position": (
        TypeError,
        "to be resumable, `records` must be a sequence, or have .* got generator",
        lambda: packed_batches((x for x in [X]), 2, 6).get_state(),
    ),
    "no_position_to_go_to": (
        TypeError,
        "to be resumable, `records` must be a sequence, or have",
        lambda: packed_batches(iter([X]), 2, 6).set_state({}),
    ),
    "state": (
        TypeError,
        "`state` must come from `get_state`, got 3",
        after_set_state(3),
    ),
    "state_of_others": (
        TypeError,
        r"`state\['records'\]` must be an integer, got dict. Resume with the same rec",
        after_set_state({"records": {"next_index": 3}, "number": 3}),
    ),
    "state_beyond": (
        ValueError,
        r"`state\['records'\]` must be at most 16, got 17",
        after_set_state({"records": 17, "number": 17}),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused_and_how(name):
    error, message, call = REFUSALS[name]
    with pytest.raises(error, match=message) as caught:
        call()
    assert re.match("(packed_batches|PackedBatches): ", str(caught.value))
