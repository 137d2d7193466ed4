"""What packs, windows and resets refuse, and the arguments that the messages name.

A check that several functions share has its row at one of them; the others have one row
that shows that they run the check.
"""

import collections

import jax
import numpy as np
from helpers import refusals

import jaxrnn
from jaxrnn import resets_of_done, resets_of_segments, windows

pack, batches = jaxrnn.pack_sequences, jaxrnn.packed_batches
Pair = collections.namedtuple("Pair", "features ids")
N = np.array([4, 0, 2, 6, 1, 3])
X = np.ones((6, 6, 2), np.float32)
LIST = [x[:n] for x, n in zip(X, N, strict=True)]
VECTOR, RECORD, LONG = np.ones(6), np.ones((3, 2)), np.ones((7, 2))
PACK = pack(LIST, rows=4)
FLOATS = PACK.segment_ids * 1.0
# As of Grain, which counts the sequences of each row anew.
ANEW = PACK._replace(segment_ids=np.minimum(PACK.segment_ids, 1))


def traced(fn, argument=N):
    return lambda: jax.jit(fn)(argument)


def cut(inputs):
    return windows(inputs, 2)[0]


def batched(*records):
    return lambda: list(batches(records, 2, 6))


def resumed(position):
    state = {"records": position, "number": 3}
    return lambda: batches([RECORD] * 3, 2, 6).set_state(state)


IDS, DONE, LAST = np.zeros((5, 7), int), np.zeros((5, 7), bool), np.zeros(5, bool)
T, V = TypeError, ValueError
test_refusals = refusals([
    # The arrays of packs
    (T, "`sequence_length` must be concrete", traced(lambda n: pack(X, n))),
    (T, "got Pair", lambda: pack(Pair(X, X))),
    (T, "got 'abc'", lambda: pack(["abc"])),
    (T, "`rows`", lambda: pack(X, N, rows=2.0)),
    (V, r"got \[\]", lambda: pack([])),
    (V, "got dict", lambda: pack({}, N)),
    (V, r"`inputs\[0\]`", lambda: pack([[1, 2], [3]])),
    (V, r"\[batch, time, ...\]", lambda: pack([VECTOR], N)),
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
    (V, r"`tree`", lambda: PACK.at_ends(X[0])),
    (T, r"`outputs`", lambda: PACK.unpack("abc")),
    (V, "`count`", traced(lambda packed: packed.unpack(packed.inputs, time=6), PACK)),
    (V, "`time`", traced(lambda packed: packed.unpack(packed.inputs, 6), PACK)),
    (V, "`count`", traced(lambda packed: packed.at_ends(packed.inputs), PACK)),
    (T, "`count`", lambda: PACK.at_ends(PACK.inputs, 6.0)),
    (V, "`segment_ids`", lambda: ANEW.unpack(ANEW.inputs)),
    (V, "`segment_ids`", lambda: ANEW.at_ends(ANEW.inputs)),
    (T, "`segment_ids`", lambda: PACK._replace(segment_ids=FLOATS).unpack(FLOATS)),
    (T, "`positions`", lambda: PACK._replace(positions=FLOATS).at_ends(FLOATS, 6)),
    (T, "`positions`", lambda: PACK._replace(positions=FLOATS).resets),
    (T, "`segment_ids`", lambda: PACK._replace(segment_ids=FLOATS).lengths),
    (V, "`positions`", lambda: PACK._replace(positions=IDS).at_ends(FLOATS)),
    # Batches of a pipeline
    (T, "`records`", lambda: batches(None, 2, 6)),
    (T, "`records`", lambda: batches({"a": RECORD}, 2, 6)),
    (T, "`state`", lambda: batches([RECORD], 2, 6).set_state({})),
    (T, "`records`", lambda: batches(iter([]), 2, 6).get_state()),
    (T, r"`state\['records'\]`", resumed({})),
    (V, r"`records\[1\]` .* `row_length`", batched(RECORD, LONG)),
    (V, "`sequences`", lambda: batches([], 1, 6, sequences=0)),
    (V, r"`state\['records'\]`", resumed(4)),
    # Windows
    (T, "^`inputs` .* outside jit", traced(cut, X)),
    (T, "without a mask", lambda: windows(np.ma.ones((2, 4)), 2)),
    (V, "`size`", lambda: windows(X, 0)),
    # Resets
    (T, "^`segment_ids` .* float", lambda: resets_of_segments(IDS * 0.5)),
    (T, "^`segment_ids` .* bool", lambda: resets_of_segments(DONE, time_major=True)),
    (V, "^`segment_ids` .* int", lambda: resets_of_segments(IDS[0])),
    (T, "^`segment_ids` .* mask", lambda: resets_of_segments(np.ma.array(IDS))),
    (T, "^`time_major`", lambda: resets_of_segments(IDS, time_major=1)),
    (T, "^`done` .* float", lambda: resets_of_done(DONE * 1.0, LAST)),
    (V, r"^`last_done` .* None.* `jnp.ones\(5, bool\)`", lambda: resets_of_done(DONE)),
    (V, "^`done` .* bool", lambda: resets_of_done(DONE[0], LAST)),
    (V, "^`last_done` .* bool", lambda: resets_of_done(DONE, DONE[0])),
    (T, "^`time_major`", lambda: resets_of_done(DONE, LAST, time_major=None)),
])  # fmt: skip
