"""Packing: where each sequence is stored, and that unpacking is the inverse."""

import collections
import contextlib
import pickle
import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, drawn
from jax.experimental import checkify

import jaxrnn
from jaxrnn import PackedSequences, pack_sequences

TIME = 6
N = [4, 0, 2, 6, 1, 3]
X = np.random.default_rng(0).normal(size=(len(N), TIME, 2)).astype(np.float32)
LIST = [x[:n] for x, n in zip(X, N, strict=True)]

lengths_of_a_batch = st.lists(st.integers(-2, TIME + 2), max_size=12)
booleans = st.booleans()


def in_loops(sequences, time, tail=()):
    """`[sequences, time, ...]` with zeros past the ends, step by step."""
    padded = np.zeros((len(sequences), time, *tail), np.asarray(sequences).dtype)
    for i, sequence in enumerate(sequences):
        for t, step in enumerate(sequence):
            padded[i, t] = step
    return padded


def zeroed(x, lengths):
    out = x.copy()
    for i, n in enumerate(lengths):
        out[i, max(n, 0) :] = 0
    return out


def rows_of_best_fit(lengths, capacity):
    """The number of rows of a best-fit packing, by trying every row."""
    used = []
    for n in sorted(lengths, reverse=True):
        if n == 0:
            continue
        fitting = [r for r, u in enumerate(used) if u + n <= capacity]
        if fitting:
            used[max(fitting, key=lambda r: used[r])] += n
        else:
            used.append(n)
    return len(used)


def swapped(tree):
    return jax.tree.map(lambda x: np.swapaxes(x, 0, 1), tree)


def check_layout(packed, sequences):
    """Every sequence is where the fields say, alone; the rest is zeros and -1."""
    rows, capacity = packed.inputs.shape[:2]
    owners = np.full((rows, capacity), -1)
    inputs, starts = np.zeros_like(packed.inputs), np.full((rows, capacity), -1)
    ends = np.zeros(rows, int)
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
    np.testing.assert_array_equal(packed.inputs, inputs)
    np.testing.assert_array_equal(packed.starts, starts)
    np.testing.assert_array_equal(packed.lengths, ends)
    np.testing.assert_array_equal((owners >= 0).sum(1), ends)  # No gaps.
    for name in ("lengths", "starts", "row", "offset", "sequence_length"):
        assert getattr(packed, name).dtype == np.int32


@hypothesis.given(lengths_of_a_batch, st.none() | st.integers(TIME, 3 * TIME))
def test_layout_of_any_lengths(lengths, capacity):
    x = 1.0 + np.arange(len(lengths) * TIME * 2.0).reshape(-1, TIME, 2)
    counts = [min(max(n, 0), TIME) for n in lengths]
    packed = pack_sequences(x, lengths, row_length=capacity)
    check_layout(packed, [x[i, :n] for i, n in enumerate(counts)])
    capacity = capacity or max([1, *counts])
    rows = rows_of_best_fit(counts, capacity)
    assert packed.inputs.shape == (max(rows, 1), capacity, 2)
    assert sum(counts) <= rows * capacity
    assert rows <= 1 or rows // 2 * capacity < sum(counts)  # What any fit keeps.
    assert packed.fill == pytest.approx(sum(counts) / (max(rows, 1) * capacity))


@pytest.mark.slow
@hypothesis.given(lengths_of_a_batch, booleans, booleans)
@hypothesis.settings(max_examples=25)
def test_unpacking_undoes_packing(lengths, time_major, as_list):
    x = 1.0 + np.arange(len(lengths) * TIME * 2.0).reshape(-1, TIME, 2)
    want = zeroed(x, lengths)
    if as_list and lengths:
        given = [x[i, : max(n, 0)] for i, n in enumerate(lengths)]
        packed = pack_sequences(given, row_length=TIME, time_major=time_major)
    else:
        given = np.swapaxes(x, 0, 1) if time_major else x
        packed = pack_sequences(given, lengths, time_major=time_major)
    assert packed.time == TIME
    got = packed.unpack(packed.inputs)
    np.testing.assert_array_equal(np.swapaxes(got, 0, 1) if time_major else got, want)


def test_few_rows_are_found_where_the_longest_first_fill_them():
    packed = pack_sequences([np.ones(n) for n in [1, 6, 5, 2, 7, 3]], row_length=8)
    np.testing.assert_array_equal(packed.lengths, [8, 8, 8])
    assert packed.fill == 1


def test_time_major_is_the_transpose():
    want = pack_sequences({"x": X, "y": X[..., 0]}, N, rows=4)
    given = swapped({"x": X, "y": X[..., 0]})
    got = pack_sequences(given, N, rows=4, time_major=True)
    assert_same(got.inputs, swapped(want.inputs))
    np.testing.assert_array_equal(got.starts, want.starts.T)
    for name in ("lengths", "row", "offset", "sequence_length"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    assert_same(got.unpack(got.inputs), jax.tree.map(jnp.asarray, zero_nest(given)))
    assert_same(got.at_ends(got.inputs), want.at_ends(want.inputs))


def zero_nest(tree):
    return swapped(jax.tree.map(lambda x: zeroed(x, N), swapped(tree)))


@pytest.mark.parametrize("time_major", [False, True])
def test_a_list_is_the_same_as_padded(time_major):
    padded = swapped(X) if time_major else X
    want = pack_sequences(padded, N, time_major=time_major)
    for sequences in (LIST, tuple(LIST), [jnp.asarray(x) for x in LIST]):
        got = pack_sequences(sequences, time_major=time_major)
        assert_same(got, want)
    assert pack_sequences(LIST, row_length=20).time == 20


Pair = collections.namedtuple("Pair", "features ids")


def test_nests_keep_their_dtypes():
    ids = np.arange(len(N) * TIME, dtype=np.int8).reshape(-1, TIME)
    flags, small = ids % 2 == 0, jnp.asarray(X[:, :, None], jnp.bfloat16)
    nest = {"a": Pair(X, ids), "b": [flags, small]}
    packed = pack_sequences(nest, N)
    rows = len(packed.lengths)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), packed.inputs)
    assert shapes["a"] == Pair(
        ((rows, TIME, 2), np.float32), ((rows, TIME), np.dtype("int8"))
    )
    assert shapes["b"] == [
        ((rows, TIME), np.dtype(bool)),
        ((rows, TIME, 1, 2), jnp.bfloat16),
    ]
    want = jax.tree.map(lambda x: jnp.asarray(zeroed(np.asarray(x), N)), nest)
    assert_same(packed.unpack(packed.inputs), want)
    sequences = [
        jax.tree.map(lambda x, i=i, n=n: x[i, :n], nest) for i, n in enumerate(N)
    ]
    assert_same(pack_sequences(sequences), packed)


def test_lists_pass_for_tuples_as_in_the_first_sequence():
    packed = pack_sequences([(X[0], X[1]), [X[2], X[3]]])
    assert isinstance(packed.inputs, tuple)
    np.testing.assert_array_equal(packed.unpack(packed.inputs)[0], X[[0, 2]])


def test_a_number_belongs_to_the_whole_sequence():
    labels = [5, 3, 4, 1, 0, 2]
    records = [{"x": x, "label": y} for x, y in zip(LIST, labels, strict=True)]
    packed = pack_sequences(records)
    some = np.flatnonzero(N)
    got = packed.at_ends(packed.inputs["label"])
    np.testing.assert_array_equal(got[some], np.asarray(labels)[some])
    steps = [
        {"x": x, "label": np.full(len(x), y)} for x, y in zip(LIST, labels, strict=True)
    ]
    assert_same(packed, pack_sequences(steps))


def test_padding_that_is_not_finite_is_never_packed():
    x = X.copy()
    for i, n in enumerate(N):
        x[i, n:] = np.nan
    assert_same(pack_sequences(x, N), pack_sequences(X, N))


@pytest.mark.fast("False-True", "True-False")
@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_nan_where_nothing_lies_reaches_neither_values_nor_gradients(
    time_major, compiled
):
    packed = pack_sequences(LIST, rows=5, row_length=8, time_major=time_major)
    first, second = (1, 0) if time_major else (0, 1)
    used = np.zeros((5, 8), bool)
    for r, at, n in zip(packed.row, packed.offset, N, strict=True):
        used[r, at : at + n] = True
    used = used.T if time_major else used
    outputs = np.where(used, np.arange(40.0).reshape(used.shape), np.nan)
    weight = 1 + np.arange(len(N) * 8.0).reshape(len(N), 8)
    values, slopes = np.zeros((len(N), 8)), np.zeros(used.shape)
    for i, n in enumerate(N):
        for t in range(n):
            place = (packed.row[i], packed.offset[i] + t)
            place = (place[first], place[second])
            values[i, t] = outputs[place]
            slopes[place] = weight[i, t]
    if time_major:
        values, weight = values.T, weight.T

    def run(outputs, packed):
        unpacked = packed.unpack(outputs)
        return (unpacked * weight).sum(), unpacked

    run = jax.value_and_grad(run, has_aux=True)
    (_, got), slope = (jax.jit(run) if compiled else run)(outputs, packed)
    np.testing.assert_array_equal(got, values)
    np.testing.assert_array_equal(slope, slopes)


@pytest.mark.parametrize("time_major", [False, True])
def test_at_ends(time_major):
    given = np.swapaxes(X, 0, 1) if time_major else X
    packed = pack_sequences(given, N, time_major=time_major)
    ends = packed.at_ends({"x": packed.inputs})["x"]
    for i, n in enumerate(N):
        if n:
            np.testing.assert_array_equal(ends[i], X[i, n - 1])
        else:
            np.testing.assert_array_equal(ends[i], packed.inputs[0, 0])


def test_a_sum_that_starts_anew_with_each_sequence():
    packed = pack_sequences(X, N, row_length=9)
    history = np.zeros_like(packed.inputs)
    for r in range(len(history)):
        total = np.zeros(2, np.float32)
        for t in range(packed.lengths[r]):
            total = (0 if packed.starts[r, t] >= 0 else total) + packed.inputs[r, t]
            history[r, t] = total
    want = zeroed(np.cumsum(X, 1, dtype=np.float32), N)
    np.testing.assert_allclose(packed.unpack(history), want, rtol=1e-5)
    some = np.flatnonzero(N)
    last = [want[i, N[i] - 1] for i in some]
    np.testing.assert_allclose(packed.at_ends(history)[some], last, rtol=1e-5)


def test_batched():
    packs = [pack_sequences(X, n, rows=6, row_length=8) for n in (N, N[::-1], [0] * 6)]
    together = jax.tree.map(lambda *leaves: np.stack(leaves), *packs)
    unpacked = jax.vmap(lambda p: p.unpack(p.inputs))(together)
    ends = jax.vmap(lambda p: p.at_ends(p.inputs))(together)
    for got, end, one in zip(unpacked, ends, packs, strict=True):
        np.testing.assert_array_equal(got, one.unpack(one.inputs))
        np.testing.assert_array_equal(end, one.at_ends(one.inputs))
    twice = np.stack([packs[0].inputs, 2 * packs[0].inputs])
    want = np.stack([zeroed(X, N), zeroed(2 * X, N)])
    np.testing.assert_array_equal(jax.vmap(packs[0].unpack)(twice), want)


def test_random_keys_are_read_and_not_masked():
    packed = pack_sequences(X, N)
    keys = jax.random.split(jax.random.key(0), packed.starts.shape)
    unpacked = packed.unpack(keys)
    r, at = packed.row[0], packed.offset[0]
    assert unpacked.shape == (len(N), TIME)
    assert_same(
        jax.random.key_data(unpacked[0, 1]), jax.random.key_data(keys[r, at + 1])
    )


@pytest.mark.fast("True")
@pytest.mark.parametrize("time_major", [False, True])
def test_every_index_is_in_bounds(time_major):
    given = np.swapaxes(X, 0, 1) if time_major else X
    packed = pack_sequences(given, N, row_length=8, time_major=time_major)
    for read in (packed.unpack, packed.at_ends):
        checked = checkify.checkify(read, errors=checkify.index_checks)
        error, _ = checked(jnp.asarray(packed.inputs))
        error.throw()


def test_batches_of_fixed_shape_share_a_compilation():
    traces = []

    @jax.jit
    def run(packed):
        traces.append(repr(packed))
        return packed.unpack(packed.inputs)

    full = {"rows": 6, "row_length": 7}
    for lengths in (N, [6] * 6, [0] * 6, [1, 2, 0, 0, 0, 0]):
        np.testing.assert_array_equal(
            run(pack_sequences(X, lengths, **full)), zeroed(X, lengths)
        )
    assert traces == ["PackedSequences(6 sequences in 6 rows of 7 steps)"]
    lists = [pack_sequences(some, **full) for some in (LIST, LIST[:1] + [X[0, :0]] * 5)]
    for packed in lists:
        run(packed)
    assert len(traces) == 2
    assert len({jax.tree.structure(packed) for packed in lists}) == 1


@pytest.mark.fast("shape0-lengths0", "shape2-lengths2")
@pytest.mark.parametrize(
    ("shape", "lengths"),
    [
        ((0, 5, 2), []),
        ((3, 0, 2), [0, 4, 1]),
        ((3, 5, 0), [1, 2, 3]),
        ((3, 5), [0, 0, 0]),
    ],
)
def test_empty_axes(shape, lengths):
    x = np.ones(shape, np.float32)
    packed = pack_sequences(x, lengths)
    assert packed.inputs.shape[0] >= 1
    assert packed.inputs.shape[1] >= 1
    np.testing.assert_array_equal(packed.unpack(packed.inputs), zeroed(x, lengths))
    assert packed.at_ends(packed.inputs).shape == (*shape[:1], *shape[2:])


def test_a_list_of_empty_sequences():
    packed = pack_sequences([X[0, :0]] * 3)
    assert packed.inputs.shape == (1, 1, 2)
    assert packed.fill == 0
    np.testing.assert_array_equal(packed.starts, [[-1]])
    np.testing.assert_array_equal(packed.unpack(packed.inputs), np.zeros((3, 1, 2)))


@pytest.mark.parametrize(
    "lengths",
    [
        np.array(N, np.uint8),
        jnp.asarray(N),
        tuple(N),
        np.array([4, -9, 2, 2**40, 1, 3]),
    ],
)
def test_lengths_of_every_kind(lengths):
    packed = pack_sequences(X, lengths)
    np.testing.assert_array_equal(packed.sequence_length, N)


@pytest.mark.parametrize("x64", [False, True])
def test_constants_are_packed_while_a_function_is_traced(x64):
    with jax.enable_x64(x64):
        constant, lengths = jnp.asarray(X), jnp.asarray(N)

        @jax.jit
        def run(scale):
            packed = pack_sequences(constant, lengths)
            assert isinstance(packed.lengths, np.ndarray)
            return packed.unpack(scale * packed.inputs)

        np.testing.assert_array_equal(run(jnp.float32(2)), zeroed(2 * X, N))


def test_it_is_data():
    packed = pack_sequences(X, N)
    assert_same(
        jax.device_put(packed).unpack(packed.inputs), packed.unpack(packed.inputs)
    )
    assert_same(pickle.loads(pickle.dumps(packed)), packed)
    assert len(jax.tree.leaves(packed)) == 6


def test_repr():
    packed = pack_sequences(X, N, rows=4, time_major=False)
    assert repr(packed) == "PackedSequences(6 sequences in 4 rows of 6 steps, 67% full)"
    assert repr(jax.device_put(packed)) == repr(packed)
    turned = pack_sequences(swapped(X), N, rows=4, time_major=True)
    assert repr(turned) == repr(packed)
    strange = [lambda x: None, lambda x: x[None], lambda x: x.shape]
    texts = [repr(jax.tree.map(change, packed)) for change in strange]
    texts.append(repr(jax.eval_shape(lambda: packed)))
    assert texts[1] == "PackedSequences(starts=int32[1, 4, 6], row=int32[1, 6])"
    assert all(text.startswith("PackedSequences(") for text in texts)


def test_ten_thousand_sequences():
    lengths = np.random.default_rng(0).integers(0, 200, 10_000)
    x = np.ones((10_000, 200), np.int8)
    packed = pack_sequences(x, lengths)
    assert packed.fill > 0.99
    assert packed.inputs.sum() == lengths.sum()


PACKED = pack_sequences(X, N, rows=4)


def traced(fn):
    return lambda: jax.jit(fn)(jnp.asarray(N))


REFUSALS = {
    "traced_inputs": (
        TypeError,
        r"`inputs\['a'\]` must be concrete, got traced int64\[6\]. Call",
        traced(lambda n: pack_sequences({"a": n}, N)),
    ),
    "traced_lengths": (
        TypeError,
        "`sequence_length` must be concrete, got traced",
        traced(lambda n: pack_sequences(X, n)),
    ),
    "traced_length_in_a_list": (
        TypeError,
        r"`sequence_length\[0\]` must be concrete, got traced",
        traced(lambda n: pack_sequences(X, [n[0], 0, 1, 2, 3, 4])),
    ),
    "traced_sequence": (
        TypeError,
        r"`inputs\[1\]` must be concrete, got traced",
        traced(lambda n: pack_sequences([np.ones(3, int), n])),
    ),
    "padded_without_lengths": (
        TypeError,
        r"list or tuple of sequences, got float32\[6, 6, 2\]. Padded inputs need",
        lambda: pack_sequences(X),
    ),
    "named_tuple_without_lengths": (
        TypeError,
        "list or tuple of sequences, got Pair",
        lambda: pack_sequences(Pair(X, X)),
    ),
    "none": (TypeError, "got None", lambda: pack_sequences(None)),
    "none_padded": (
        ValueError,
        "`inputs` must be an array, got None",
        lambda: pack_sequences(None, N),
    ),
    "no_sequences": (
        ValueError,
        r"must hold at least one array, got \[\]",
        lambda: pack_sequences([]),
    ),
    "sequences_without_leaves": (
        ValueError,
        "must hold at least one array",
        lambda: pack_sequences([{}, {}]),
    ),
    "no_leaves": (
        ValueError,
        r"must hold at least one array, got \{\}",
        lambda: pack_sequences({}, N),
    ),
    "leaf_none": (
        ValueError,
        r"`inputs\[0\]\['a'\]` must be an array, got None",
        lambda: pack_sequences([{"a": None}]),
    ),
    "leaf_string": (
        TypeError,
        r"`inputs\[0\]` must be an array, got 'abc'",
        lambda: pack_sequences(["abc"]),
    ),
    "leaf_object": (
        TypeError,
        "`inputs` must be an array, got object",
        lambda: pack_sequences(object(), N),
    ),
    "leaf_keys": (
        TypeError,
        r"`inputs\[0\]` must be an array, got key<fry>\[3\]",
        lambda: pack_sequences([jax.random.split(jax.random.key(0), 3)]),
    ),
    "lists_of_numbers": (
        ValueError,
        r"`inputs\[0\]` must hold at least one array \[length, ...\], got",
        lambda: pack_sequences([[1, 2], [3]]),
    ),
    "padded_rank": (
        ValueError,
        r"rank at least 2, \[batch, time, ...\], got float32\[6\]. Leave out `seq",
        lambda: pack_sequences(X[:, 0, 0], N),
    ),
    "padded_rank_time_major": (
        ValueError,
        r"rank at least 2, \[time, batch, ...\], got",
        lambda: pack_sequences(X[:, 0, 0], N, time_major=True),
    ),
    "list_with_lengths": (
        ValueError,
        r"Time and batch must be the same .*: `inputs\[0\]` is float32\[4, 2\], "
        r"`inputs\[1\]` is float32\[0, 2\]. Leave out `sequence_length` for a list",
        lambda: pack_sequences(LIST, N),
    ),
    "list_of_one_length_with_lengths": (
        ValueError,
        "`sequence_length` must be None for a list of sequences, got 3",
        lambda: pack_sequences([X[0]] * 3, [1, 2, 3]),
    ),
    "lengths_of_another_batch": (
        ValueError,
        "vector of length batch_size",
        lambda: pack_sequences(X, N[1:]),
    ),
    "lengths_floating": (
        TypeError,
        "must hold integers",
        lambda: pack_sequences(X, np.ones(6)),
    ),
    "structure": (
        ValueError,
        r"`inputs\[1\]` must have the structure \{'a': \*\}, got \*. It must match `i",
        lambda: pack_sequences([{"a": X[0]}, X[0]]),
    ),
    "length_within_a_sequence": (
        ValueError,
        r"Length must be the same for all inputs \[length, ...\]: ",
        lambda: pack_sequences([{"a": X[0], "b": X[0]}, {"a": X[0, :4], "b": X[0]}]),
    ),
    "shape_of_a_step": (
        ValueError,
        r"`inputs\[2\]` must have the dtype and step shape of float32\[4,",
        lambda: pack_sequences([*LIST[:2], X[0, :, 1:]]),
    ),
    "dtype": (
        ValueError,
        r"`inputs\[1\]` .* got int64\[6, 2\]",
        lambda: pack_sequences([X[0], X[1].astype(int)]),
    ),
    "row_length_short": (
        ValueError,
        "`row_length` must be at least 6, got 5. Cut the sequences of 6",
        lambda: pack_sequences(X, N, row_length=5),
    ),
    "rows_few": (
        ValueError,
        "`rows` must be at least 3, got 2. .* rows longer than 6 steps",
        lambda: pack_sequences(X, N, rows=2),
    ),
    "rows_none": (
        ValueError,
        "`rows` must be at least 3, got 0",
        lambda: pack_sequences(X, N, rows=0),
    ),
    "rows_floating": (
        TypeError,
        "`rows` must be an integer, got 2.0",
        lambda: pack_sequences(X, N, rows=2.0),
    ),
    "row_length_traced": (
        TypeError,
        "`row_length` must be an integer, got",
        traced(lambda n: pack_sequences(X, N, row_length=n[0])),
    ),
    "time_major": (
        TypeError,
        "`time_major` must be True or False",
        lambda: pack_sequences(X, N, time_major=1),
    ),
    "unpack_shape": (
        ValueError,
        r"`outputs\[0\]` must be \[rows, row_length, ...\] like `starts`",
        lambda: PACKED.unpack([X]),
    ),
    "unpack_none": (
        ValueError,
        "`outputs` must be an array: None",
        lambda: PACKED.unpack(None),
    ),
    "at_ends_rank": (
        ValueError,
        r"`tree` must be \[rows, row_length, ...\] like `starts`",
        lambda: PACKED.at_ends(np.ones(())),
    ),
    "fill_traced": (
        TypeError,
        r"`lengths` must be concrete, got traced int64\[6\]. Under jit,",
        traced(lambda n: jax.tree.map(lambda _: n, PACKED).fill),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused_and_how(name):
    error, message, call = REFUSALS[name]
    with pytest.raises(error, match=message) as caught:
        call()
    text = str(caught.value)
    where = "(pack_sequences: |PackedSequences: |`lengths`)"
    assert re.match(where, text)
    assert re.search("got|the same|None values", text)


def test_what_does_not_fit_is_told_by_the_number_that_does():
    for rows in range(1, 4):
        fits = contextlib.nullcontext()
        if rows < 3:
            fits = pytest.raises(ValueError, match="must be at least 3")
        with fits:
            assert isinstance(pack_sequences(X, N, rows=rows), PackedSequences)


@pytest.mark.fast("True")
@pytest.mark.parametrize("compiled", [False, True])
def test_no_sequences_give_no_results(compiled):
    cell = jaxrnn.GRUCell(3)
    params = drawn(cell, X[:, 0])
    packed = pack_sequences(X[:0], [])

    def run(params, state=None):
        return jaxrnn.packed_rnn(cell.bind(params), packed, state, jnp.float32)

    run = jax.jit(run) if compiled else run
    for args in ((params,), (params, cell.zero_state(0, jnp.float32))):
        outputs, state = run(*args)
        assert packed.unpack(outputs).shape == (0, TIME, 3)
        assert state.shape == (0, 3)
