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
from helpers import bound, refusals
from jax.sharding import AxisType, PartitionSpec as P

import jaxrnn
from jaxrnn import concat_packed, stack_packed, truncated_bptt, windows

pack, batches = jaxrnn.pack_sequences, jaxrnn.packed_batches
Pair = collections.namedtuple("Pair", "features ids")
N = np.array([4, 0, 2, 6, 1, 3])
X = np.ones((6, 6, 2), np.float32)
LIST = [x[:n] for x, n in zip(X, N, strict=True)]
VECTOR, RECORD, LONG = np.ones(6), np.ones((3, 2)), np.ones((7, 2))
PACK, LONGER = pack(LIST, rows=4), pack(LIST, row_length=7)
FLAT = pack([x[:, 0] for x in LIST], rows=4)
PART = windows(pack([X[0, :2], X[0, :1]], rows=1, row_length=3), 3)[0]
ROW, NEW, BOTH = np.ones((1, 4)), np.ones((2, 4)), np.ones((3, 4))  # Of PART.
NARROW = np.float32(NEW)
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


def differentiate(carry, **options):
    truncated_bptt(good, **options).value_and_grad(1.0, carry, VECTOR)


def good(params, state, window):
    return jnp.sum(window), state


def returns(result):
    return lambda params, state, window: jax.tree.map(jnp.asarray, result)


CARRY, CHANGED = truncated_bptt(good).init(VECTOR, ()), LSTM._replace(h=ONE)
TYPE_ERRORS = {
    # The arrays of packs
    "`sequence_length` must be concrete, got": traced(lambda n: pack(X, n)),
    "list or tuple of sequences, got Pair": lambda: pack(Pair(X, X)),
    "an array of numbers or booleans, got 'abc'": lambda: pack(["abc"]),
    "`rows` must be an integer, got 2.0. Increase": lambda: pack(X, N, rows=2.0),
    "^`time_major` must be True": lambda: pack(X, N, time_major=1),
    # Batches of a pipeline
    "`records` must be a sequence": lambda: batches(iter([]), 2, 6).get_state(),
    r"`state\['records'\]` must be an integer, got dict": resumed({}),
    # Several packs
    "'PackedSequences' object is not iterable": lambda: concat_packed(PACK),
    r"`packs\[0\]` must be the result of `pack_sequences`": lambda: concat_packed([X]),
    r"`packs\[0\].* Call this function out": traced(concat_packed, [PACK]),
    # Windows
    "^`inputs` .* outside jit, grad and vmap": traced(cut, X),
    r"without a mask.* `inputs\.filled\(0\)`": lambda: windows(np.ma.ones((2, 4)), 2),
    # Backpropagation
    "`loss` must be callable, got 3": lambda: truncated_bptt(3),
    r"`window\['x'\]` must be an array, got 'x'": bptt(good, window={"x": "x"}),
    "grad requires .* but got int8": bptt(good, params=np.int8(1)),
    "`carry` must be the carry from `init` or": lambda: differentiate(VECTOR),
    r"must return \(value, new_state\).*, got float64\[\]": bptt(returns(ONE)),
    r"\(new_state, aux\)\), got .float64\[": bptt(returns((ONE, VECTOR)), has_aux=True),
    r"only defined for scalar-output .*\(6,\)": bptt(returns((VECTOR, VECTOR))),
}
VALUE_ERRORS = {
    # The arrays of packs
    r"must hold at least one sequence, got \[\]": lambda: pack([]),
    "must hold at least one array, got dict": lambda: pack({}, N),
    r"`inputs\[0\]` must hold one or more arrays": lambda: pack([[1, 2], [3]]),
    r"\[batch, time, ...\], got .* For a list": lambda: pack([VECTOR], N),
    r"\[time, batch, ...\], got": lambda: pack(VECTOR, N, time_major=True),
    r"`inputs\[1\]` must have the first two sizes.* For a list": lambda: pack(LIST, N),
    "^.*vector of length batch_size": lambda: pack(X, N[1:]),
    r"`inputs\[1\]` must have .*, where .* first": lambda: pack([[X[0]], X[0]]),
    r"of one length, got \(float32\[6, 2\]": lambda: pack([(X[0], X[0, :4])]),
    r"`inputs\[1\]` must have shape \[any, 2\]": lambda: pack([X[0], X[0, :, 1:]]),
    r"`inputs\[1\]` .* got int64\[6, 2\]": lambda: pack([X[0], X[1].astype(int)]),
    "at least 6, got 5. Increase `row_length`": lambda: pack(X, N, row_length=5),
    "at least 3, got 2. Increase `rows`": lambda: pack(X, N, rows=2),
    # The arrays that are read by a pack
    r"`outputs\[0\]` must have shape \[4, 6, ...\]": lambda: PACK.unpack([X]),
    # Batches of a pipeline
    r"`records\[1\]` must have at most `row_length`": batched(RECORD, LONG),
    "1, got 0. Omit the argument": lambda: batches([], 1, 6, sequences=0),
    r"`state\['records'\]` must be at most 3, got 4": resumed(4),
    # Several packs
    "must hold at least one pack": lambda: concat_packed([]),
    r"`packs\[1\].row_length` must be 6": lambda: stack_packed([PACK, LONGER]),
    r"`packs\[1\].inputs` must have shape": lambda: stack_packed([PACK, FLAT]),
    "`packs` must have equal numbers .*": lambda: stack_packed([PACK, pack(LIST)]),
    # Windows
    "`size` must be at least 1, got 0": lambda: windows(X, 0),
    "`sequence_length` must be omitted for `PackedS": lambda: windows(PACK, 2, N),
    r"`row_state` must have shape \[1, ...\], got": lambda: PART.start_from(NEW, NEW),
    r"Incompatible .*\[3,4\].*\[2,4\]": lambda: PART.start_from(ROW, BOTH),
    "`fresh_state` must have dtype float64": lambda: PART.start_from(ROW, NARROW),
    # Backpropagation
    "`reach` must be at least 1, got 0": bptt(good, reach=0),
    r"`new_state` .* LSTMStateTuple\(c=\*, h=\*\)": bptt(returns((ONE, VECTOR)), LSTM),
    r"`new_state\.h` must have shape \[6\]": bptt(returns((ONE, CHANGED)), LSTM),
    r"`carry.windows` must have shape": bptt(good, window=VECTOR[1:], reach=2),
    r"`carry.windows` must have the structure": lambda: differentiate(CARRY, reach=3),
}


ERRORS = [
    *((TypeError, message, call) for message, call in TYPE_ERRORS.items()),
    *((ValueError, message, call) for message, call in VALUE_ERRORS.items()),
]


test_refusals = refusals(ERRORS)


def run(packed):
    return jaxrnn.packed_rnn(CELL, packed, dtype=jnp.float32)


both = lambda join: jax.tree.map(lambda *leaves: join(leaves), PACK, PACK)
JOINED, STACKED = both(np.concatenate), both(np.stack)
CUT = jax.tree.map(lambda leaf: leaf[:2], PACK)
ONE_ROW = jax.tree.map(lambda leaf: leaf[0], PACK)
FEWER = dataclasses.replace(CUT, lengths=PACK.lengths, starts=PACK.starts)
USES = {
    "packed_rnn": run,
    "unpack": lambda packed: packed.unpack(packed.starts),
    "at_ends": lambda packed: packed.at_ends(packed.starts),
    "windows": cut,
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
