"""What packs and windows refuse, and what the messages say.

A check that several functions share has its row at one of them; the others have one row
that shows that they run the check.
"""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound
from jax.sharding import AxisType, PartitionSpec as P

import jaxrnn
from jaxrnn import concat_packed, stack_packed, truncated_bptt, windows

pack, batches = jaxrnn.pack_sequences, jaxrnn.packed_batches
Pair = collections.namedtuple("Pair", "features ids")
N = np.array([4, 0, 2, 6, 1, 3])
X = np.ones((6, 6, 2), np.float32)
LIST = [x[:n] for x, n in zip(X, N, strict=True)]
VECTOR, RECORD, KEYS = np.ones(6), np.ones((3, 2)), jax.random.split(jax.random.key(0))
PACK = pack(LIST, rows=4)
PART = windows(pack([X[0, :2], X[0, :1]], rows=1, row_length=3), 3)[0]
ROW, NEW, BOTH = np.ones((1, 4)), np.ones((2, 4)), np.ones((3, 4))  # Of PART.
ONE, LSTM = np.ones(()), jaxrnn.LSTMStateTuple(VECTOR, VECTOR)
CELL = bound(jaxrnn.LSTMCell(3), depth=2, dtype="float32")


def traced(fn, argument=N):
    return lambda: jax.jit(fn)(argument)


def cut(inputs):
    return windows(inputs, 2)[0]


def batched(*records):
    return lambda: list(batches(records, 2, 6))


def resumed(position):
    state = {"records": position, "number": 3}
    return lambda: batches([RECORD] * 3, 2, 6).set_state(state)


def bptt(loss, state=VECTOR, params=1.0, window=VECTOR, **options):
    """A call of `value_and_grad`, after `init` with a vector as the window."""

    def call():
        differentiated = truncated_bptt(loss, **options)
        carry = differentiated.init(state, VECTOR)
        differentiated.value_and_grad(params, carry, window)

    return call


def good(params, state, window):
    return jnp.sum(window), state


def returns(result):
    return lambda params, state, window: jax.tree.map(jnp.asarray, result)


CARRY, CHANGED = truncated_bptt(good).init(VECTOR, ()), LSTM._replace(h=ONE)
TYPE_ERRORS = {
    # The arrays of packs
    r"`inputs` must be concrete, got int64\[6\]": traced(lambda n: pack(n, N)),
    "`sequence_length` must be concrete, got": traced(lambda n: pack(X, n)),
    r"`sequence_length\[0\]` must be concrete": traced(lambda n: pack(X, [n[0]] * 6)),
    r"list or tuple .* got float32\[6, 6, 2\]. For padded inputs, pass": lambda: pack(
        X
    ),
    "list or tuple of sequences, got Pair": lambda: pack(Pair(X, X)),
    "an array of numbers or booleans, got 'abc'": lambda: pack(["abc"]),
    r"`inputs` must be an array \[batch, .*, got object": lambda: pack(object(), N),
    "JAX array with PRNGKey dtype cannot be converted": lambda: pack([KEYS]),
    "must be integers": lambda: pack(X, np.ones(6)),
    "`rows` must be an integer, got 2.0. Increase": lambda: pack(X, N, rows=2.0),
    "`row_length` must be an integer, got None": lambda: batches([], 1, None),
    "^`time_major` must be True": lambda: pack(X, N, time_major=1),
    # Batches of a pipeline
    r"`records\[0\]` must be .* got 'a'": lambda: next(batches("abc", 2, 6)),
    "^`time_major` must": lambda: batches([], 1, 6, time_major=1),
    "`records` must be a sequence, or have .* got generator": (
        lambda: batches((x for x in [RECORD]), 2, 6).get_state()
    ),
    "`records` must be a sequence, or": lambda: batches(iter([]), 2, 6).set_state({}),
    r"`state\['records'\]` must be an integer, got dict": resumed({}),
    # Several packs
    "'PackedSequences' object is not iterable": lambda: concat_packed(PACK),
    r"`packs\[0\]` must be the result of `pack_sequences`": lambda: concat_packed([X]),
    r"`packs\[0\].* Call this function out": traced(concat_packed, [PACK]),
    # Windows
    "`size` must be an integer, got None. Pass the number": lambda: windows(X, None),
    "^`inputs` .* outside jit, grad and vmap": traced(cut, X),
    r"`inputs\.inputs` must be concrete, got float32\[4": traced(cut, PACK),
    r"without a mask.* `inputs\.filled\(0\)`": lambda: windows(np.ma.ones((2, 4)), 2),
    r"`inputs\['a'\]\[0\]` must be an array .*, got 1": lambda: windows({"a": [1]}, 2),
    # Backpropagation
    "`loss` must be callable, got 3": lambda: truncated_bptt(3),
    "`reach` must be an integer, got 2.5": bptt(good, reach=2.5),
    "`has_aux` must be True or False, got 'yes'": bptt(good, has_aux="yes"),
    r"`state\.h` must be an array of numbers": bptt(good, LSTM._replace(h=object())),
    r"`window\['x'\]` must be an array, got 'x'": bptt(good, window={"x": "x"}),
    "grad requires .* but got int8": bptt(good, params=np.int8(1)),
    "`carry` must be the carry from `init` or from the previous call,": (
        lambda: truncated_bptt(good).value_and_grad(1.0, VECTOR, VECTOR)
    ),
    r"`loss` must return \(value, new_state\).*, got float64\[\]": bptt(returns(ONE)),
    r"\(value, \(new_state, aux\)\), got .float64\[\], float64\[6\]": (
        bptt(returns((ONE, VECTOR)), has_aux=True)
    ),
    r"Gradient only defined for scalar-output .*\(6,\)": bptt(
        returns((VECTOR, VECTOR))
    ),
}
VALUE_ERRORS = {
    # The arrays of packs
    "`inputs` must be an array, got None": lambda: pack(None, N),
    r"must hold at least one sequence, got \[\]": lambda: pack([]),
    "must hold at least one array, got dict": lambda: pack({}, N),
    r"`inputs\[0\]` must hold one or more arrays \[length,": lambda: pack(
        [[1, 2], [3]]
    ),
    r"\[batch, time, ...\], got float64\[6\]. For a list of sequences, ": lambda: pack(
        [VECTOR], N
    ),
    r"\[time, batch, ...\], got": lambda: pack(VECTOR, N, time_major=True),
    r"`inputs\[1\]` must have the first two sizes, .* of `inputs\[0\]`, "
    r"float32\[4, 2\], got float32\[0, 2\]. For a list of": lambda: pack(LIST, N),
    "^.*vector of length batch_size": lambda: pack(X, N[1:]),
    r"`inputs\[1\]` must have .* \[\*\], got \*, where .* first": lambda: pack(
        [[X[0]], X[0]]
    ),
    r"of one length, got \(float32\[6, 2\], float32\[4, 2\]": lambda: pack(
        [(X[0], X[0, :4])]
    ),
    r"`inputs\[2\]` must have shape \[any, 2\], got": (
        lambda: pack([*LIST[:2], X[0, :, 1:]])
    ),
    r"`inputs\[1\]` .* got int64\[6, 2\]": lambda: pack([X[0], X[1].astype(int)]),
    "at least 6, got 5. Increase `row_length`": lambda: pack(X, N, row_length=5),
    "at least 3, got 2. Increase `rows`": lambda: pack(X, N, rows=2),
    # The arrays that are read by a pack
    r"`outputs\[0\]` must have shape \[4, 6, ...\], got float": lambda: PACK.unpack(
        [X]
    ),
    "`outputs` must be an array, got None": lambda: PACK.unpack(None),
    r"`tree` must have shape \[4, 6, ...\], got": lambda: PACK.at_ends(ONE),
    # Batches of a pipeline
    r"`records\[1\]` must have at most `row_length` \(6\) steps, got float64\[7": (
        batched(RECORD, np.ones((7, 2)))
    ),
    r"`records\[1\]` must have dtype int64, got float64\[3\]. The first sequence": (
        batched(np.ones(3, int), np.ones(3))
    ),
    "`rows` must be at least 1, got 0": lambda: batches([], 0, 6),
    "1, got 0. Omit the argument": lambda: batches([], 1, 6, sequences=0),
    r"`state\['records'\]` must be at most 3, got 4": resumed(4),
    # Several packs
    "must hold at least one pack": lambda: concat_packed([]),
    r"`packs\[1\].row_length` must be 6, as in `packs.0.`, got 7": (
        lambda: concat_packed([PACK, pack(LIST, row_length=7)])
    ),
    r"`packs\[1\].time_major` must be False, as in `packs.0.`, got True": (
        lambda: stack_packed([PACK, pack(LIST, rows=4, time_major=True)])
    ),
    r"`packs\[1\].inputs` must have shape \[any, any, 2\], got float32\[4, 6\]": (
        lambda: stack_packed([PACK, pack([x[:, 0] for x in LIST], rows=4)])
    ),
    r"`packs` must have equal numbers .*, got \[\(4, 6\), \(3, 6\)\]": lambda: (
        stack_packed([PACK, pack(LIST, rows=3)])
    ),
    # Windows
    "`size` must be at least 1, got 0": lambda: windows(X, 0),
    "^`sequence_length` must be a vector": lambda: windows(X, 2, [1]),
    "`sequence_length` must be omitted for `PackedS": lambda: windows(PACK, 2, N),
    "`time_major` must be omitted": lambda: windows(PACK, 2, time_major=True),
    r"`row_state` must have shape \[1, ...\], got": lambda: PART.start_from(NEW, NEW),
    r"Incompatible .*\[3,4\].*\[2,4\]": lambda: PART.start_from(ROW, BOTH),
    r"`fresh_state` must have dtype float64, got float32\[2, 4\]. The leaves": (
        lambda: PART.start_from(ROW, NEW.astype("f4"))
    ),
    r"`states` must have shape \[3, ...\], got": lambda: PART.row_state(NEW),
    # Backpropagation
    "`reach` must be at least 1, got 0": bptt(good, reach=0),
    r"`new_state` .* LSTMStateTuple\(c=\*, h=\*\)": bptt(returns((ONE, VECTOR)), LSTM),
    r"`new_state\.h` must have shape \[6\]": bptt(returns((ONE, CHANGED)), LSTM),
    r"`carry.windows` must have shape \[1, 5\], got float64\[1, 6\]": bptt(
        good, window=VECTOR[1:], reach=2
    ),
    r"`carry.windows` must have the structure \*, got \(\)": (
        lambda: truncated_bptt(good, reach=3).value_and_grad(1.0, CARRY, VECTOR)
    ),
}


@pytest.mark.parametrize("message", TYPE_ERRORS)
def test_wrong_types(message):
    with pytest.raises(TypeError, match=message):
        TYPE_ERRORS[message]()


@pytest.mark.parametrize("message", VALUE_ERRORS)
def test_wrong_values(message):
    with pytest.raises(ValueError, match=message):
        VALUE_ERRORS[message]()


def run(packed):
    return jaxrnn.packed_rnn(CELL, packed, dtype=jnp.float32)


JOINED, STACKED = (
    jax.tree.map(lambda *leaves, join=join: join(leaves), PACK, PACK)
    for join in (np.concatenate, np.stack)
)
CUT = jax.tree.map(lambda leaf: leaf[:2], PACK)
ONE_ROW = jax.tree.map(lambda leaf: leaf[0], PACK)
FEWER = dataclasses.replace(CUT, lengths=PACK.lengths, starts=PACK.starts)
USES = {
    "packed_rnn": run,
    "PackedSequences.unpack": lambda packed: packed.unpack(packed.starts),
    "PackedSequences.at_ends": lambda packed: packed.at_ends(packed.starts),
    "windows": lambda packed: windows(packed, 2),
    "concat_packed": lambda packed: concat_packed([packed]),
}


@pytest.mark.parametrize("use", USES)
def test_only_whole_packs_are_used(use):
    for packed, message in (
        (JOINED, r"`starts` int32\[8, 6\] and `row` int32\[12\]. Join packs with"),
        (CUT, r"`starts` int32\[2, 6\] and `row` int32\[2\]"),
        (FEWER, r"`starts` int32\[4, 6\] and `row` int32\[2\]"),
        (ONE_ROW, r"`starts` int32\[6\] and `row` int32\[\]"),
        (STACKED, r"`starts` int32\[2, 4, 6\] and `row` int32\[2, 6\]"),
    ):
        message = rf"be one pack of 4 rows and 6 sequences, got {message}"
        with pytest.raises(ValueError, match=message):
            USES[use](packed)


def test_a_pack_that_is_divided_over_devices_is_refused():
    packed = pack(LIST[:4], rows=4)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    divided = jax.shard_map(run, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    with pytest.raises(ValueError, match="`packed` must be one pack of 4 rows"):
        jax.jit(divided)(packed)
