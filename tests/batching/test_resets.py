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


def in_a_loop(ids, done, last_done):
    """The resets of both functions."""
    of_ids, of_done = np.ones(ids.shape, bool), np.zeros(ids.shape, bool)
    for row, t in np.ndindex(ids.shape):
        of_done[row, t] = done[row, t - 1] if t else last_done[row]
        if t > 0:
            of_ids[row, t] = 0 < ids[row, t] != ids[row, t - 1]
    return of_ids, of_done


@pytest.mark.fast("numpy", "jit")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_resets_are_those_of_a_loop(call):
    got = call(resets_of_segments)(IDS), call(resets_of_done)(DONE, LAST)
    assert_same(got, in_a_loop(IDS, DONE, LAST))


@pytest.mark.fast("shape1", "shape2")
@pytest.mark.parametrize("shape", [(5, 7), (5, 1), (5, 0), (0, 7)])
def test_time_major_with_few_steps_and_rows(shape):
    part = tuple(map(slice, shape))
    ids, done, last = IDS[part], DONE[part], LAST[part[:1]]
    of_ids = resets_of_segments(ids.T, time_major=True)
    of_done = resets_of_done(done.T, last, time_major=True)
    assert_same((of_ids.T, of_done.T), in_a_loop(ids, done, last))


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
    documents = [(0, 0, 2), (0, 4, 7), (1, 0, 1), (1, 1, 3), (1, 3, 5)]
    rows = [x[row : row + 1, begin:end] for row, begin, end in documents]
    alone = lambda row: jaxrnn.dynamic_rnn(cell, row, dtype=x.dtype)[0][0]
    whole = lambda: jaxrnn.dynamic_rnn(cell, x, **options)[0]
    outputs, *each = jax.jit(lambda: [whole(), *map(alone, rows)])()
    wanted = np.zeros(outputs.shape)
    for (row, begin, end), outputs_alone in zip(documents, each, strict=True):
        wanted[row, begin:end] = outputs_alone
    assert_near(outputs, wanted, tolerance=1e-12)


T, V = TypeError, ValueError
test_refusals = refusals([
    (T, "^`segment_ids` .* float", lambda: resets_of_segments(IDS * 0.5)),
    (T, "^`segment_ids` .* bool", lambda: resets_of_segments(DONE, time_major=True)),
    (V, "^`segment_ids` .* int", lambda: resets_of_segments(IDS[0])),
    (T, "^`segment_ids` .* mask", lambda: resets_of_segments(np.ma.array(IDS))),
    (T, "^`time_major`", lambda: resets_of_segments(IDS, time_major=1)),
    (T, "^`done` .* float", lambda: resets_of_done(DONE * 1.0, LAST)),
    (V, r"^`last_done` .* None.* `jnp.ones\(5, bool\)`", lambda: resets_of_done(DONE)),
    (V, "^`done` .* bool", lambda: resets_of_done(DONE[0], LAST)),
    (V, "^`last_done` .* bool", lambda: resets_of_done(DONE, DONE[0])),
])  # fmt: skip
