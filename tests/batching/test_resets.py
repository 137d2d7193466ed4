"""`resets` from segment ids and from `done`, against loops over rows and steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, assert_same, bound, draw

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


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_resets_are_those_of_a_loop(call):
    got = call(resets_of_segments)(IDS), call(resets_of_done)(DONE, LAST)
    assert_same(got, in_a_loop(IDS, DONE, LAST))


def test_time_major():
    got = resets_of_segments(IDS.T, time_major=True)
    got = got, resets_of_done(DONE.T, LAST, time_major=True)
    assert_same(jax.tree.map(np.transpose, got), in_a_loop(IDS, DONE, LAST))


@pytest.mark.parametrize("shape", [(5, 1), (5, 0), (0, 7)])
def test_few_steps_and_rows(shape):
    part = tuple(map(slice, shape))
    ids, done, last = IDS[part], DONE[part], LAST[part[:1]]
    got = resets_of_segments(ids), resets_of_done(done, last)
    assert_same(got, in_a_loop(ids, done, last))


def test_ids_beyond_int32_are_compared_whole():
    ids = np.array([[0, 2**32, 2**32]])
    with jax.enable_x64(False):
        assert resets_of_segments(ids).tolist() == [[True, True, False]]


def test_parts_of_a_rollout_are_the_parts_of_the_whole():
    whole = resets_of_done(DONE, LAST)
    second = resets_of_done(DONE[:, 3:], DONE[:, 2])
    assert_same(jnp.concatenate([resets_of_done(DONE[:, :3], LAST), second], 1), whole)


def test_padding_keeps_the_state_of_the_last_document():
    ids = np.array([[1, 1, 2, 2, 0, 0], [3, 0, 0, 0, 0, 0], [0, 0, 0, 4, 4, 4]])
    x, cell = draw(3, 6, 3), bound(jaxrnn.GRUCell(2))
    resets = resets_of_segments(ids)
    _, got = jaxrnn.dynamic_rnn(cell, x, mask=ids > 0, resets=resets, dtype=x.dtype)
    for row, (begin, end) in enumerate([(2, 4), (0, 1), (3, 6)]):
        alone = x[row : row + 1, begin:end]
        _, want = jaxrnn.dynamic_rnn(cell, alone, dtype=x.dtype)
        np.testing.assert_allclose(got[row], want[0], rtol=1e-12)


def test_documents_in_rows_equal_documents_alone():
    """Padding of id 0, also between documents; ids may come back after others."""
    ids = np.array([[7, 7, 0, 0, 2, 2, 2], [3, 5, 5, 3, 3, 0, 0]])
    x, cell = draw(2, 7, 3), bound(jaxrnn.GRUCell(2))
    resets = resets_of_segments(ids)
    options = {"mask": ids > 0, "resets": resets, "dtype": x.dtype}
    outputs, _ = jaxrnn.dynamic_rnn(cell, x, **options)
    documents = [(0, 0, 2), (0, 4, 7), (1, 0, 1), (1, 1, 3), (1, 3, 5)]
    wanted = np.zeros(outputs.shape)
    for row, begin, end in documents:
        alone, _ = jaxrnn.dynamic_rnn(cell, x[row : row + 1, begin:end], dtype=x.dtype)
        wanted[row, begin:end] = alone[0]
    assert_near(outputs, wanted, tolerance=1e-12)
