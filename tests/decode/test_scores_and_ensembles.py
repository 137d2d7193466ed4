"""Scores of given sequences and of what was found; ensembles of models."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoders import END, START, OneRow, every_sequence, make_model, make_params, padded
from helpers import assert_near, differentiated, refusals

import jaxrnn
from jaxrnn import decode


def test_scores_equal_a_loop_and_sum_to_one():
    """Of all sequences of three ids, in a padded batch."""
    params = make_params("lstm", 3, 1)
    models = [OneRow("lstm", params, row) for row in range(2)]
    found = every_sequence(3, 4)
    want = [[model.score(ids) for ids in found] for model in models]
    every = jnp.asarray([[padded(ids, 4) for ids in found]] * 2)
    run = lambda p: decode.score(make_model("lstm", p, len(found)), every)
    got = jax.jit(run)(params)
    np.testing.assert_allclose(got, want, atol=1e-12)
    np.testing.assert_allclose(jnp.exp(got).sum(axis=1), 1, rtol=1e-12)


@pytest.mark.slow
def test_scores_and_gradients_of_what_was_found():
    params = make_params("gru", 4, 2)

    def find(params):
        greedy = decode.greedy(make_model("gru", params), max_length=5)
        return greedy, decode.beam_search(make_model("gru", params, 3), 5, num_beams=3)

    def scores_found(params):
        greedy, beams = find(params)
        return greedy.scores, beams.scores

    greedy, beams = jax.jit(find)(params)
    for lengths in (greedy.lengths, beams.lengths[:, 0]):
        assert len(set(lengths.tolist())) == 2

    def scores(params):
        of_beams = decode.score(make_model("gru", params, 3), beams.ids)
        return decode.score(make_model("gru", params), greedy.ids), of_beams

    got = differentiated(scores_found, params)
    assert_near(got, differentiated(scores, params), tolerance=1e-9)


@pytest.mark.slow
def test_the_gradient_is_that_of_a_teacher_forced_loss():
    params = make_params("lstm", 4, 9)
    ids, lengths = jnp.array([[3, END, 0, 2], [2, 0, 3, 2]]), [2, 4]

    def of_driver(params):
        fed = jnp.concatenate([jnp.asarray(START)[:, None], ids[:, :-1]], axis=1)
        cell, x = make_model("lstm", params).cell, params["table"][fed]
        outputs, _ = jaxrnn.dynamic_rnn(cell, x, lengths, params["state"])
        logits = jnp.einsum("bth,hv->btv", outputs, params["kernel"])
        log_probs = jax.nn.log_softmax(logits + params["memory"][:, None])
        taken = jnp.take_along_axis(log_probs, ids[..., None], 2)[..., 0]
        return jnp.stack([taken[0, :2].sum(), taken[1].sum()])

    run = lambda params: decode.score(make_model("lstm", params), ids)
    got, want = differentiated(run, params), differentiated(of_driver, params)
    assert_near(got, want, tolerance=1e-9)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(jax.device_get(got[1])))


def test_what_follows_the_end_has_no_effect():
    params = make_params("lstm", 4, 2)
    ids = np.array([[3, END, 0, 2], [2, 0, 3, END]])
    parts = enumerate(([3, END], [2, 0, 3, END]))
    want = [OneRow("lstm", params, row).score(part) for row, part in parts]
    score = jax.jit(lambda ids: decode.score(make_model("lstm", params), ids))
    for padding in (0, -1, 99):
        ids[0, 2:] = padding
        np.testing.assert_allclose(score(ids), want, atol=1e-12)
    for wrong in (-1, 4):
        ids[0, 0] = wrong
        assert np.isnan(score(ids)).tolist() == [True, False]


def test_ids_beyond_int32_are_outside_of_the_vocabulary():
    """2**32 is not the id 0, which it would be after a cast to int32."""
    model = make_model("gru", make_params("gru", 4, 0, dtype=np.float32))
    with jax.enable_x64(False):
        scores = jax.jit(lambda: decode.score(model, [[2, 2**32], [2, 0]]))()
    assert np.isnan(scores).tolist() == [True, False]


# Ensembles: the mean of the probabilities of their models.


class OneRowOfBoth(OneRow):
    """One row of several models."""

    def __init__(self, by_kind, row):
        self.models = [OneRow(kind, p, row) for kind, p in by_kind.items()]

    def start(self):
        return int(self.models[0].start()[0]), [m.start()[1] for m in self.models]

    def log_probs(self, last, state):
        pairs = zip(self.models, state, strict=True)
        log_probs, states = zip(*(m.log_probs(last, s) for m, s in pairs), strict=True)
        return np.log(np.mean(np.exp(log_probs), axis=0)), states


def test_an_ensemble_has_the_mean_of_the_probabilities():
    by_kind = {kind: make_params(kind, 3, 1) for kind in ("lstm", "gru")}
    together = decode.ensemble([make_model(*pair) for pair in by_kind.items()])
    models = [OneRowOfBoth(by_kind, row) for row in range(2)]
    sequences = [[2, 0, END], [0, 0, 2]]
    want = [model.score(ids) for model, ids in zip(models, sequences, strict=True)]

    @jax.jit
    def run():
        greedy = decode.greedy(together, max_length=6)
        return greedy.ids, decode.score(together, sequences)

    ids, scores = run()
    np.testing.assert_allclose(scores, want, atol=1e-12)
    assert ids.tolist() == [padded(model.beams(1, 6)[0][1], 6) for model in models]


def test_gradients_are_finite_where_an_id_is_impossible():
    """In all models of an ensemble."""
    params = make_params("gru", 3, 0)
    ids = jnp.array([[0, 0, END], [0, END, END]])

    def loss(params):
        model = make_model("gru", params)
        project = lambda output: model.project(output).at[:, 2].set(-jnp.inf)
        limited = dataclasses.replace(model, project=project)
        return decode.score(decode.ensemble([limited] * 2), ids).sum()

    gradient = jax.tree.leaves(jax.device_get(jax.jit(jax.grad(loss))(params)))
    assert all(np.isfinite(leaf).all() and leaf.any() for leaf in gradient)


# Refusals.


REAL = make_model("gru", make_params("gru", 4, 0))


def refuse(*models):
    return lambda: decode.ensemble([*models])


def with_real(**changed):
    return decode.ensemble([REAL, dataclasses.replace(REAL, **changed)])


def project(logits):
    model = with_real(project=lambda _: jnp.asarray(logits))
    return lambda: decode.greedy(model, max_length=2)


REFUSALS = [
    (ValueError, "`models`", refuse()),
    (ValueError, "`eos_id`", lambda: with_real(eos_id=None)),
    (ValueError, "`start_ids`", lambda: with_real(start_ids=[0, 2])),
    (ValueError, "same shape", project(np.zeros((2, 5)))),
]

test_refuses = refusals(REFUSALS)
