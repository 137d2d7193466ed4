"""Packs: where they store the sequences of batches and pipelines; how they are read."""

import collections
import json

import grain
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

from jaxrnn import Packed, pack_sequences, packed_batches, resets_of_segments

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
    resets = resets_of_segments(packed.segment_ids)
    np.testing.assert_array_equal(resets & used, first)


@hypothesis.given(
    st.lists(st.integers(-2, TIME + 2), max_size=12),
    st.none() | st.integers(TIME, 3 * TIME),
    st.booleans(),
)
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


def test_lists_pass_for_tuples_as_in_the_first_sequence():
    packed = pack_sequences([(X[0], X[1]), [X[2], X[3]]])
    assert_same(packed.inputs, (X[[0, 2]], X[[1, 3]]))


def test_a_number_belongs_to_each_step_of_its_sequence():
    labels = [5, 3, 4, 1, 0, 2]
    pairs = list(zip(LIST, labels, strict=True))
    steps = [{"x": x, "label": np.full(len(x), y)} for x, y in pairs]
    numbers = [{"x": x, "label": y} for x, y in pairs]
    packed = pack_sequences(numbers)
    assert_same(packed, pack_sequences(steps))
    ends = packed.at_ends(packed.inputs["label"])
    np.testing.assert_array_equal(ends, [5, 0, 4, 1, 0, 2])  # The second is empty.


@pytest.mark.parametrize("x64", [False, True])
def test_constants_are_packed_while_a_function_is_traced(x64):
    with jax.enable_x64(x64):
        constant, lengths = jnp.asarray(X), jnp.asarray(N)

        def run(scale):
            packed = pack_sequences(constant, lengths)
            assert isinstance(packed.lengths, np.ndarray)
            return packed.unpack(scale * packed.inputs)

        got = jax.jit(run)(jnp.float32(2))
        np.testing.assert_array_equal(got, 2 * zeroed(X))


def test_only_the_positions_are_traced():
    packed = pack_sequences(X, N)
    read = lambda p: packed._replace(positions=p).at_ends(packed.inputs, len(N))
    got = jax.jit(read)(packed.positions)
    np.testing.assert_array_equal(got, packed.at_ends(packed.inputs, len(N)))


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
    options = {"shuffle": True, "num_epochs": 3, "seed": 2}
    sampler = grain.samplers.IndexSampler(len(RECORDS), shard, **options)
    return grain.DataLoader(data_source=RECORDS, sampler=sampler)


def batches_of(source):
    return packed_batches(source(), 2, 6, sequences=5)


SOURCES = Indexable, grain_map, grain_iterator, grain_loader


@pytest.mark.fast("Indexable", "grain_iterator")
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
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

PACKS = [pack_sequences(X, n, rows=4, row_length=8) for n in (N, N[::-1], [0] * 6)]


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


@pytest.mark.parametrize("compiled", [False, True])
def test_nan_where_nothing_lies_has_no_effect(compiled):
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

    run = jax.grad(run, has_aux=True)
    got = (jax.jit(run) if compiled else run)(outputs, packed)
    jax.tree.map(np.testing.assert_array_equal, got, (slopes, (values, ends)))


def test_ids_and_positions_may_be_lists():
    """As of a pipeline that builds them in Python."""
    packed = pack_sequences([np.ones((n, 2)) * n for n in (3, 1, 2)], row_length=4)
    lists = Packed(packed.inputs, *(each.tolist() for each in packed[1:]))
    assert lists.lengths.tolist() == [4, 2]
    assert lists.resets.tolist() == [[1, 0, 0, 1], [1, 0, 0, 0]]
    assert lists.unpack(lists.inputs)[:, :, 0].tolist() == [
        [3, 3, 3],
        [1, 0, 0],
        [2, 2, 0],
    ]
    assert lists.at_ends(lists.inputs)[:, 0].tolist() == [3, 1, 2]


def test_ids_of_unused_steps_may_be_negative_and_others_large():
    x = np.arange(10, dtype=np.float32).reshape(2, 5)
    ids = np.asarray([[2**31 - 1, 2, 2, -1, -1], [1, 1, 1, 0, -7]])
    packed = Packed(x, ids, np.asarray([[0, 0, 1, 0, 0], [0, 1, 2, 0, 0]]))
    np.testing.assert_array_equal(packed.at_ends(x, 2), [7, 2])
    np.testing.assert_array_equal(packed.unpack(x, 2), [[5, 6, 7], [1, 2, 0]])


KINDS = "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"


def read_in_a_loop(packed, count=None, time=None):
    """`unpack` and `at_ends` of the inputs `[rows, row_length]`."""
    ids, positions = (x.astype(object) for x in packed[1:])  # Numbers of any size.
    count = max([0, *ids.flat]) if count is None else count
    time = 1 + max(positions.flat) if time is None else time
    unpacked, ends = np.zeros((count, time)), np.zeros(count)
    for at in np.ndindex(ids.shape):
        i, t = ids[at] - 1, positions[at]
        if 0 <= i < count:
            ends[i] = packed.inputs[at]  # A sequence is in one row.
            if t < time:
                unpacked[i, t] = packed.inputs[at]
    return unpacked, ends


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_positions_of_any_integer_dtype(kind):
    """The largest id and position, with a `count` that a narrow dtype cannot hold."""
    last = np.iinfo(kind).max
    least = min(np.iinfo(kind).min, 0)
    ids = np.array([[1, 1, last, 0], [3, 2, 2, least]], kind)
    positions = np.array([[0, 1, 0, 0], [0, 0, 1, 0]], kind)
    x = np.array([[1.0, 2, 3, np.nan], [4, 5, 6, np.nan]])
    packed = Packed(x, ids, positions)
    counts = [3, 128, 255, 256, 300, 32767, 65535, 65536]
    for count in counts if last < 2**31 - 1 else counts[:5]:
        want = read_in_a_loop(packed, count)
        assert_same((packed.unpack(x, count), packed.at_ends(x, count)), want)
        read = lambda p, n=count: (p.unpack(p.inputs, n, 2), p.at_ends(p.inputs, n))
        assert_same(jax.jit(read)(packed), want)
    np.testing.assert_array_equal(packed.lengths, [3, 3])
    resets = resets_of_segments(ids)
    np.testing.assert_array_equal(resets, [[1, 0, 1, 0], [1, 1, 0, 0]])


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("kind", KINDS)
def test_sizes_that_are_not_given_are_found_in_any_integer_dtype(kind, as_array):
    """As many sequences, and as many steps, as the dtype can number; at most 300."""
    most = min(np.iinfo(kind).max, 300)
    single = np.arange(1, most + 1), np.zeros(most, int)  # Sequences of one step.
    whole = np.ones(most + 1, int), np.arange(most + 1)  # One sequence.
    for ids, positions in (single, whole):
        given = (as_array(each[None].astype(kind)) for each in (ids, positions))
        packed = Packed(1.0 + np.arange(float(ids.size))[None], *given)
        want = read_in_a_loop(jax.tree.map(np.asarray, packed))
        assert_same((packed.unpack(packed.inputs), packed.at_ends(packed.inputs)), want)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("kind", ["int64", "uint64", "uint32"])
def test_ids_and_positions_beyond_int32_do_not_become_small(kind, x64):
    wide = 2**32 if kind.endswith("64") else 2**31
    ids = np.array([[wide + 1, wide + 2, 2, 2, 1]]).astype(kind)
    positions = np.array([[0, 0, 0, wide + 1, 0]]).astype(kind)
    packed = Packed(np.array([[1.0, 2, 3, 4, 5]], np.float32), ids, positions)
    unpacked, ends = read_in_a_loop(packed, 3, 2)
    with jax.enable_x64(x64):
        np.testing.assert_array_equal(packed.unpack(packed.inputs, 3, 2), unpacked)
        np.testing.assert_array_equal(packed.at_ends(packed.inputs, 3), ends)


def test_sequences_and_steps_beyond_the_sizes_are_left_out():
    packed = pack_sequences(LIST)
    got = jax.jit(lambda packed: packed.unpack(packed.inputs, 4, 3))(packed)
    np.testing.assert_array_equal(got, zeroed(X)[:4, :3])
    got = packed.at_ends(packed.inputs, 4)
    np.testing.assert_array_equal(got, [X[0, 3], [0, 0], X[2, 1], X[3, 5]])


def test_random_keys_are_read_and_not_masked():
    packed = pack_sequences(X, N)
    keys = jax.random.split(jax.random.key(0), packed.segment_ids.shape)
    unpacked = packed.unpack(keys)
    assert unpacked.shape == (len(N), TIME)
    (row,), (step,) = np.nonzero((packed.segment_ids == 1) & (packed.positions == 1))
    want = jax.random.key_data(keys[row, step])
    assert_same(jax.random.key_data(unpacked[0, 1]), want)


@pytest.mark.fast("shape0", "shape2")
@pytest.mark.parametrize("shape", [(0, 5, 2), (3, 0, 2), (3, 5, 0), (3, 5)])
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


def test_stacked_packs_are_read_by_vmap_and_by_scan():
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), *PACKS)
    read = lambda p: (p.unpack(p.inputs, 6, TIME), p.at_ends(p.inputs, 6), p.lengths)
    want = jax.tree.map(lambda *leaves: np.stack(leaves), *map(jax.jit(read), PACKS))
    assert_same(jax.jit(jax.vmap(read))(stack), want)
    scan = lambda stack: jax.lax.scan(lambda _, p: (None, read(p)), None, stack)[1]
    assert_same(jax.jit(scan)(stack), want)


def test_rows_are_divided_as_other_arrays():
    """All arrays have the rows first, so a part of the rows is a pack."""
    first = PACKS[0]
    parts = [
        jax.tree.map(lambda x, rows=rows: x[rows], first)
        for rows in (slice(2), slice(2, 4))
    ]
    unpacked = sum(part.unpack(part.inputs, len(N), TIME) for part in parts)
    np.testing.assert_array_equal(unpacked, zeroed(X))
