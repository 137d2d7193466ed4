"""What packs, windows and resets refuse, and the arguments that the messages name.

A check that several functions share has its row at one of them; the others have one row
that shows that they run the check.
"""

import collections
import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, refusals

import jaxrnn
from jaxrnn import (
    concat_packed,
    resets_of_done,
    resets_of_segments,
    stack_packed,
    truncated_bptt,
    windows,
)

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
IDS, DONE, LAST = np.zeros((5, 7), int), np.zeros((5, 7), bool), np.zeros(5, bool)
T, V = TypeError, ValueError
test_refusals = refusals([
    # The arrays of packs
    (T, "`sequence_length` must be concrete", traced(lambda n: pack(X, n))),
    (T, "got Pair", lambda: pack(Pair(X, X))),
    (T, "got 'abc'", lambda: pack(["abc"])),
    (T, "`rows`", lambda: pack(X, N, rows=2.0)),
    (T, "^`time_major`", lambda: pack(X, N, time_major=1)),
    (V, r"got \[\]", lambda: pack([])),
    (V, "got dict", lambda: pack({}, N)),
    (V, r"`inputs\[0\]`", lambda: pack([[1, 2], [3]])),
    (V, r"\[batch, time, ...\]", lambda: pack([VECTOR], N)),
    (V, r"\[time, batch, ...\]", lambda: pack(VECTOR, N, time_major=True)),
    (V, r"`inputs\[1\]` .* first two sizes", lambda: pack(LIST, N)),
    (V, "^`sequence_length`", lambda: pack(X, N[1:])),
    (V, r"`inputs\[1\]` .* structure", lambda: pack([[X[0]], X[0]])),
    (V, "of one length", lambda: pack([(X[0], X[0, :4])])),
    (V, r"`inputs\[1\]` .* shape", lambda: pack([X[0], X[0, :, 1:]])),
    (V, r"`inputs\[1\]` .* int64", lambda: pack([X[0], X[1].astype(int)])),
    (V, "`row_length`", lambda: pack(X, N, row_length=5)),
    (V, "`rows`", lambda: pack(X, N, rows=2)),
    # The arrays that are read by a pack
    (V, r"`outputs\[0\]`", lambda: PACK.unpack([X])),
    # Batches of a pipeline
    (T, "`records`", lambda: batches(iter([]), 2, 6).get_state()),
    (T, r"`state\['records'\]`", resumed({})),
    (V, r"`records\[1\]` .* `row_length`", batched(RECORD, LONG)),
    (V, "`sequences`", lambda: batches([], 1, 6, sequences=0)),
    (V, r"`state\['records'\]`", resumed(4)),
    # Several packs
    (T, "not iterable", lambda: concat_packed(PACK)),
    (T, r"`packs\[0\]` .* `pack_sequences`", lambda: concat_packed([X])),
    (T, r"`packs\[0\].* concrete", traced(concat_packed, [PACK])),
    (V, "`packs`", lambda: concat_packed([])),
    (V, r"`packs\[1\].row_length`", lambda: stack_packed([PACK, LONGER])),
    (V, r"`packs\[1\].inputs`", lambda: stack_packed([PACK, FLAT])),
    (V, "`packs` .* equal numbers", lambda: stack_packed([PACK, pack(LIST)])),
    # Windows
    (T, "^`inputs` .* outside jit", traced(cut, X)),
    (T, "without a mask", lambda: windows(np.ma.ones((2, 4)), 2)),
    (V, "`size`", lambda: windows(X, 0)),
    (V, "`sequence_length`", lambda: windows(PACK, 2, N)),
    (V, "`row_state`", lambda: PART.start_from(NEW, NEW)),
    (V, "Incompatible", lambda: PART.start_from(ROW, BOTH)),
    (V, "`fresh_state`", lambda: PART.start_from(ROW, NARROW)),
    # Backpropagation
    (T, "`loss` must be callable", lambda: truncated_bptt(3)),
    (T, r"`window\['x'\]`", bptt(good, window={"x": "x"})),
    (T, "grad requires", bptt(good, params=np.int8(1))),
    (T, "`carry`", lambda: differentiate(VECTOR)),
    (T, r"`loss` .*\(value, new_state\)", bptt(returns(ONE))),
    (T, r"`loss` .*\(new_state, aux\)", bptt(returns((ONE, VECTOR)), has_aux=True)),
    (T, "scalar-output", bptt(returns((VECTOR, VECTOR)))),
    (V, "`reach`", bptt(good, reach=0)),
    (V, "`new_state` .* structure", bptt(returns((ONE, VECTOR)), LSTM)),
    (V, r"`new_state\.h`", bptt(returns((ONE, CHANGED)), LSTM)),
    (V, "`carry.windows` .* shape", bptt(good, window=VECTOR[1:], reach=2)),
    (V, "`carry.windows` .* structure", lambda: differentiate(CARRY, reach=3)),
    # Resets
    (T, "^`segment_ids` .* float", lambda: resets_of_segments(IDS * 0.5)),
    (T, "^`segment_ids` .* bool", lambda: resets_of_segments(DONE, time_major=True)),
    (V, "^`segment_ids` .* int", lambda: resets_of_segments(IDS[0])),
    (T, "^`time_major`", lambda: resets_of_segments(IDS, time_major=1)),
    (T, "^`done` .* float", lambda: resets_of_done(DONE * 1.0, LAST)),
    (V, "^`last_done` .* None", lambda: resets_of_done(DONE, None)),
    (V, "^`done` .* bool", lambda: resets_of_done(DONE[0], LAST)),
    (V, "^`last_done` .* bool", lambda: resets_of_done(DONE, DONE[0])),
    (T, "^`time_major`", lambda: resets_of_done(DONE, LAST, time_major=None)),
])  # fmt: skip


def each(change):
    return jax.tree.map(change, PACK)


CUT = each(lambda leaf: leaf[:2])
# Trees of arrays that are not one pack.
OTHERS = {
    "joined": each(lambda leaf: np.concatenate([leaf, leaf])),
    "cut": CUT,
    "fewer": dataclasses.replace(CUT, lengths=PACK.lengths, starts=PACK.starts),
    "one row": each(lambda leaf: leaf[0]),
    "stacked": each(lambda leaf: np.stack([leaf, leaf])),
}
USES = {
    "unpack": lambda packed: packed.unpack(packed.starts),
    "at_ends": lambda packed: packed.at_ends(packed.starts),
    "windows": cut,
    "concat_packed": lambda packed: concat_packed([packed]),
}


@pytest.mark.parametrize("use", USES)
def test_only_whole_packs_are_used(use):
    for packed in OTHERS.values():
        shape = re.escape(str([*packed.starts.shape]))
        message = f"one pack of 4 rows and 6 sequences, got `starts` int32{shape}"
        with pytest.raises(ValueError, match=message):
            USES[use](packed)
