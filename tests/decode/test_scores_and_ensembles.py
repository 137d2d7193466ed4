"""Scores of given sequences and of what was found; ensembles of models."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoders import END, START, OneRow, every_sequence, make_model, make_params, padded
from helpers import assert_near, bound, differentiated, refusals

import jaxrnn
from jaxrnn import contrib, decode


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
    assert all(np.any(leaf) for leaf in jax.tree.leaves(got[1]))


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


@pytest.mark.fast("list-False")
@pytest.mark.parametrize(
    ("convert", "x64"), [(list, False), (np.array, False), (jnp.asarray, True)]
)
def test_ids_beyond_int32_are_outside_of_the_vocabulary(convert, x64):
    """2**32 is not the id 0, which it would be after a cast to int32."""
    model = make_model("gru", make_params("gru", 4, 0, dtype=np.float32))
    with jax.enable_x64(x64):
        scores = decode.score(model, convert([[2, 2**32], [2, -(2**32)]]))
        inside = decode.score(model, convert([[2, 0]] * 2))
    assert np.isnan(scores).all()
    assert np.isfinite(inside).all()


@pytest.mark.parametrize(
    ("convert", "wrong"),
    [(list, 2**31), (np.array, 2**32 + 1), (jnp.asarray, -(2**31) - 1)],
)
def test_start_ids_beyond_int32(convert, wrong):
    params = make_params("gru", 4, 0)
    with pytest.raises(ValueError, match=rf"that fit int32, got {wrong}\."):
        make_model("gru", params, start_ids=convert([1, wrong]))


def test_traced_start_ids_beyond_int32_do_not_wrap():
    @jax.jit
    def start(ids):
        helper = contrib.GreedyEmbeddingHelper(lambda ids: ids, ids, 0)
        return helper.initialize()[1]

    assert start(jnp.array([1, 2**32 + 1])).tolist() == [1, 2**31 - 1]


def test_rows_interact_in_an_ensemble_if_they_do_in_a_model():
    """`dynamic_rnn` masks the rows of such a cell in another way."""
    models = [make_model("gru", make_params("gru", 4, 0))] * 2
    assert not decode.ensemble(models).cell.rows_interact
    crowd = jaxrnn.FunctionCell(lambda x, state: (x, state), 3, 3, rows_interact=True)
    state = jnp.zeros((2, 3))
    models[1] = dataclasses.replace(models[0], cell=crowd.bind({}), initial_state=state)
    assert decode.ensemble(models).cell.rows_interact


def test_no_steps():
    model = make_model("gru", make_params("gru", 4, 0))
    assert decode.score(model, np.zeros((2, 0), int)).tolist() == [0, 0]
    assert decode.score(model, np.zeros((2, 1, 0), int)).tolist() == [[0], [0]]


def test_cells_that_run_on_beams_are_told_of_the_rows():
    project = lambda _: jnp.zeros((2, 4))
    model = make_model("gru", make_params("gru", 4, 0), project=project)
    with pytest.raises(ValueError, match=r"floating-point \[6, vocab\]") as caught:
        decode.score(model, np.zeros((2, 3, 2), int))
    notes = "".join(caught.value.__notes__)
    assert "run on 6 rows" in notes
    assert "tile_beams" in notes


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


def test_an_ensemble_projects_to_log_probabilities():
    project = decode.ensemble([make_model("gru", make_params("gru", 3, 0))] * 2).project
    log_probs = jax.jit(project)([np.ones((2, 4))] * 2)
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1)


def attending(seed):
    """A model whose state holds a memory."""
    rng = np.random.default_rng(seed)
    mechanism = contrib.LuongAttention(4, memory_depth=3)
    cell = contrib.AttentionWrapper(jaxrnn.GRUCell(4), mechanism, 4)
    table, memory = jnp.asarray(rng.normal(size=(5, 4))), rng.normal(size=(2, 6, 3))
    return decode.Model(
        bound(cell, 4, seed=seed),
        embed=lambda ids: table[ids],
        project=lambda output: 3 * output @ table.T,
        initial_state=cell.initial_state(memory, jnp.array([6, 2])),
        start_ids=START,
        eos_id=END,
    )


@pytest.mark.slow
def test_an_ensemble_of_cells_that_attend():
    """Beams share the memories, and the scores of the beams are those found."""
    together = decode.ensemble([attending(0), attending(1)])

    @jax.jit
    def run():
        beams = decode.beam_search(together, max_length=4, num_beams=3)
        return beams.scores, decode.score(together, beams.ids)

    want, got = run()
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.fast("2")
@pytest.mark.parametrize("masked", [1, 2])
def test_gradients_are_finite_where_an_id_is_impossible(masked):
    params = make_params("gru", 3, 0)
    ids = jnp.array([[0, 0, END], [0, END, END]])

    def loss(params):
        model = make_model("gru", params)
        project = lambda output: model.project(output).at[:, 2].set(-jnp.inf)
        limited = dataclasses.replace(model, project=project)
        models = [limited] * masked + [model] * (2 - masked)
        return decode.score(decode.ensemble(models), ids).sum()

    gradient = jax.jit(jax.grad(loss))(params)
    chex.assert_tree_all_finite(gradient)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_members_of_few_bits_are_averaged_in_float32():
    narrow, wide = (make_params("gru", 4, 5, dtype=d) for d in ("bfloat16", "float32"))
    together = decode.ensemble([make_model("gru", p) for p in (narrow, wide)])
    ids = jnp.array([[0, END], [2, END]])
    score = jax.jit(lambda: decode.score(together, ids))()
    assert score.dtype == jnp.float32
    want = [OneRow("gru", wide, row).score([2 * row, END]) for row in range(2)]
    np.testing.assert_allclose(score, want, rtol=0.1)


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
    (TypeError, "`models`", lambda: decode.ensemble({})),
    (ValueError, "`models`", refuse()),
    (TypeError, r"`models\[1\]`", refuse(REAL, {"cell": REAL.cell})),
    (ValueError, "`eos_id`", lambda: with_real(eos_id=None)),
    (ValueError, "`start_ids`", lambda: with_real(start_ids=[0, 2])),
    (ValueError, "same shape", project(np.zeros((2, 5)))),
    (TypeError, "`logits`", project(np.zeros((2, 4), int))),
]

test_refuses = refusals(REFUSALS)
