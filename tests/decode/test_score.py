"""Scores of given sequences: against NumPy, what was found, and a loss."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoders import (
    END,
    InNumPy,
    arguments,
    make_params,
    padded,
    teacher_forced,
)
from helpers import assert_near, differentiated

from jaxrnn import decode


def test_scores_equal_numpy_and_sum_to_one():
    """Of all sequences of three ids, in a padded batch."""
    params = make_params("lstm", 3, 1)
    models = [InNumPy("lstm", params, row) for row in range(2)]
    found = models[0].every_sequence(3, 4)
    want = [[model.score(ids) for ids in found] for model in models]
    every = jnp.asarray([[padded(ids, 4) for ids in found]] * 2)
    run = lambda p: decode.score(**arguments("lstm", p, len(found)), ids=every)
    got = jax.jit(run)(params)
    np.testing.assert_allclose(got, want, atol=1e-12)
    np.testing.assert_allclose(jnp.exp(got).sum(axis=1), 1, rtol=1e-12)


@pytest.mark.slow
def test_scores_and_gradients_of_what_was_found():
    params = make_params("gru", 4, 2)

    def find(params):
        greedy = decode.greedy(**arguments("gru", params), max_time=5)
        given = arguments("gru", params, 3)
        return greedy, decode.beam_search(**given, max_time=5, beam_width=3)

    def scores_found(params):
        greedy, beams = find(params)
        return greedy.scores, beams.scores

    greedy, beams = jax.jit(find)(params)
    for lengths in (greedy.lengths, beams.lengths[:, 0]):
        assert len(set(lengths.tolist())) == 2

    def scores(params):
        of_beams = decode.score(**arguments("gru", params, 3), ids=beams.ids)
        return decode.score(**arguments("gru", params), ids=greedy.ids), of_beams

    got = differentiated(scores_found, params)
    assert_near(got, differentiated(scores, params), tolerance=1e-9)


def test_what_follows_the_end_has_no_effect():
    params = make_params("lstm", 4, 2)
    ids = np.array([[3, END, 0, 2], [2, 0, 3, END]])
    want = [
        InNumPy("lstm", params, 0).score([3, END]),
        InNumPy("lstm", params, 1).score([2, 0, 3, END]),
    ]
    score = jax.jit(lambda ids: decode.score(**arguments("lstm", params), ids=ids))
    for padding in (0, -1, 99):
        ids[0, 2:] = padding
        np.testing.assert_allclose(score(ids), want, atol=1e-12)
    for wrong in (-1, 4):
        ids[0, 0] = wrong
        assert np.isnan(score(ids)).tolist() == [True, False]


@pytest.mark.parametrize(
    ("convert", "x64"), [(list, False), (np.array, False), (jnp.asarray, True)]
)
def test_ids_beyond_int32_are_outside_of_the_vocabulary(convert, x64):
    """2**32 is not the id 0, which it would be after a cast to int32."""
    given = arguments("gru", make_params("gru", 4, 0, dtype=np.float32))
    with jax.enable_x64(x64):
        scores = decode.score(**given, ids=convert([[2, 2**32], [2, -(2**32)]]))
        inside = decode.score(**given, ids=convert([[2, 0]] * 2))
    assert np.isnan(scores).all()
    assert np.isfinite(inside).all()


@pytest.mark.parametrize("wrong", [2**31, 2**32 + 1, -(2**31) - 1])
@pytest.mark.parametrize("convert", [list, np.array, jnp.asarray])
def test_start_ids_beyond_int32(convert, wrong):
    given = arguments("gru", make_params("gru", 4, 0)) | {"max_time": 2}
    message = f"that fit int32, got {wrong}."
    with pytest.raises(ValueError, match=re.escape(message)):
        decode.greedy(**given | {"start_ids": convert([1, wrong])})


def test_traced_start_ids_beyond_int32_do_not_wrap():
    @jax.jit
    def start(ids):
        loop = decode.greedy_loop(abs, abs, jnp.zeros((2, 3)), ids, 0)
        return loop.model.start_ids

    assert start(jnp.array([1, 2**32 + 1])).tolist() == [1, 2**31 - 1]


def test_no_steps():
    given = arguments("gru", make_params("gru", 4, 0))
    assert decode.score(**given, ids=np.zeros((2, 0), int)).tolist() == [0, 0]
    assert decode.score(**given, ids=np.zeros((2, 1, 0), int)).tolist() == [[0], [0]]


def test_the_gradient_is_that_of_a_teacher_forced_loss():
    params = make_params("lstm", 4, 9)
    ids, lengths = jnp.array([[3, END, 0, 2], [2, 0, 3, 2]]), np.array([2, 4])
    weights = jnp.array([1.0, -0.3])
    losses = (
        lambda p: jnp.vdot(weights, decode.score(**arguments("lstm", p), ids=ids)),
        lambda p: jnp.vdot(weights, teacher_forced("lstm", p, ids, lengths)),
    )
    got, want = (jax.jit(jax.value_and_grad(loss))(params) for loss in losses)
    chex.assert_trees_all_close(got, want, rtol=1e-7, atol=1e-9)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(got[1]))


@pytest.mark.parametrize(
    ("ids", "error", "got"),
    [
        ([1, 2], ValueError, "int64[2]."),
        (np.zeros((3, 4), int), ValueError, "int64[3, 4]."),
        (np.zeros((2, 3)), TypeError, "float64[2, 3]."),
    ],
)
def test_refused_sequences(ids, error, got):
    given = arguments("gru", make_params("gru", 4, 0))
    message = "integers [batch, time] or [batch, beam, time] with 2 rows, got "
    with pytest.raises(error, match=re.escape(message + got)):
        decode.score(**given, ids=ids)


def test_cells_that_run_on_beams_are_told_of_the_rows():
    given = arguments("gru", make_params("gru", 4, 0))
    given |= {"project": lambda _: jnp.zeros((2, 4)), "ids": np.zeros((2, 3, 2), int)}
    with pytest.raises(ValueError, match="with 6 rows") as caught:
        decode.score(**given)
    assert "tile_beams" in "".join(caught.value.__notes__)
