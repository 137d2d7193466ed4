"""`resets` from segment ids and from `done`, against loops over rows and steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, assert_same, bound, draw, refusals

import jaxrnn
from jaxrnn import resets_of_done, resets_of_segments

RNG = np.random.default_rng(0)
IDS, DONE, LAST = RNG.integers(0, 3, (5, 7)), RNG.random((5, 7)) < 0.3, np.arange(5) > 2
CALLS = {
    "numpy": lambda fn: fn,
    "jax": lambda fn: lambda *given: fn(*map(jnp.asarray, given)),
    "list": lambda fn: lambda *given: fn(*(x.tolist() for x in given)),
    "jit": jax.jit,
}


def segments_in_a_loop(ids):
    resets = np.ones(ids.shape, bool)
    for row, t in np.ndindex(ids.shape):
        if t > 0:
            resets[row, t] = ids[row, t] != ids[row, t - 1]
    return resets


def done_in_a_loop(done, last_done):
    resets = np.zeros(done.shape, bool)
    for row, was_done in enumerate(last_done):
        for t in range(done.shape[1]):
            resets[row, t], was_done = was_done, done[row, t]
    return resets


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_resets_are_those_of_a_loop(call):
    assert_same(call(resets_of_segments)(IDS), segments_in_a_loop(IDS))
    assert_same(call(resets_of_done)(DONE, LAST), done_in_a_loop(DONE, LAST))


def test_time_major():
    assert_same(resets_of_segments(IDS.T, time_major=True), segments_in_a_loop(IDS).T)
    got = resets_of_done(DONE.T, LAST, time_major=True)
    assert_same(got, done_in_a_loop(DONE, LAST).T)


@pytest.mark.parametrize("shape", [(5, 1), (5, 0), (0, 7)])
def test_few_steps_and_rows(shape):
    part = tuple(map(slice, shape))
    assert_same(resets_of_segments(IDS[part]), segments_in_a_loop(IDS[part]))
    rows = LAST[: shape[0]]
    assert_same(resets_of_done(DONE[part], rows), done_in_a_loop(DONE[part], rows))


def test_ids_beyond_int32_are_compared_whole():
    ids = np.array([[0, 2**32, 2**32]])
    with jax.enable_x64(False):
        assert resets_of_segments(ids).tolist() == [[True, True, False]]


def test_parts_of_a_rollout_are_the_parts_of_the_whole():
    whole = resets_of_done(DONE, LAST)
    second = resets_of_done(DONE[:, 3:], DONE[:, 2])
    assert_same(jnp.concatenate([resets_of_done(DONE[:, :3], LAST), second], 1), whole)


def test_documents_in_rows_equal_documents_alone():
    """Padding of id 0, also between documents; ids may come back after others."""
    ids = np.array([[7, 7, 0, 0, 2, 2, 2], [3, 5, 5, 3, 3, 0, 0]])
    x, cell = draw(2, 7, 3), bound(jaxrnn.GRUCell(2))
    resets = resets_of_segments(ids)
    options = {"mask": ids > 0, "resets": resets, "dtype": x.dtype}
    outputs, _ = jaxrnn.dynamic_rnn(cell, x, **options)
    wanted = np.zeros(outputs.shape)
    for row, (begin, end) in [
        (0, (0, 2)),
        (0, (4, 7)),
        (1, (0, 1)),
        (1, (1, 3)),
        (1, (3, 5)),
    ]:
        alone, _ = jaxrnn.dynamic_rnn(cell, x[row : row + 1, begin:end], dtype=x.dtype)
        wanted[row, begin:end] = alone[0]
    assert_near(outputs, wanted, tolerance=1e-12)


BOTH = [
    (
        r"^`segment_ids` must be integers \[batch, time\], got float",
        lambda: resets_of_segments(IDS * 0.5),
    ),
    (
        r"integers \[time, batch\], got bool",
        lambda: resets_of_segments(DONE, time_major=True),
    ),
    (
        r"^`segment_ids` must be integers .*, got int64\[7\]",
        lambda: resets_of_segments(IDS[0]),
    ),
    (
        "^`time_major` must be True or False",
        lambda: resets_of_segments(IDS, time_major=1),
    ),
    (
        r"^`done` must be booleans, got float64\[5, 7\]\. Convert",
        lambda: resets_of_done(DONE * 1.0, LAST),
    ),
    (
        r"^`last_done` must be booleans, got None|^`last_done` must be an array",
        lambda: resets_of_done(DONE, None),
    ),
    (
        r"^`done` must have the axes \[batch, time\], got bool\[7\]",
        lambda: resets_of_done(DONE[0], LAST),
    ),
    (
        r"^`last_done` must be a vector .* each of 5 rows, got bool\[7\]\. Check",
        lambda: resets_of_done(DONE, DONE[0]),
    ),
    (
        "^`time_major` must be True or False",
        lambda: resets_of_done(DONE, LAST, time_major=None),
    ),
]
test_refusals = refusals(BOTH, "message call")
