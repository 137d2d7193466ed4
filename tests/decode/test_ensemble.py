"""Ensembles: the mean of the probabilities of NumPy's models."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoders import (
    END,
    START,
    UNITS,
    InNumPy,
    arguments,
    make_params,
    padded,
)

import jaxrnn
from jaxrnn import contrib, decode

PARTS = ("cell", "embed", "project", "initial_state")
SHARED = {"start_ids": START, "end_id": END}


def member(kind, params, beams=1):
    given = arguments(kind, params, beams)
    return {name: given[name] for name in PARTS}


def two(beams=1, vocab=3):
    """Models with different cells: both as one, and their parameters by kind."""
    by_kind = {
        "lstm": make_params("lstm", vocab, 1),
        "gru": make_params("gru", vocab, 2),
    }
    models = [member(kind, params, beams) for kind, params in by_kind.items()]
    return decode.ensemble(models) | SHARED, by_kind


class MeanInNumPy(InNumPy):
    """One row of several models."""

    def __init__(self, by_kind, row):
        self.models = [InNumPy(kind, p, row) for kind, p in by_kind.items()]

    def start(self):
        return int(self.models[0].start()[0]), [m.start()[1] for m in self.models]

    def log_probs(self, last, state):
        pairs = zip(self.models, state, strict=True)
        log_probs, states = zip(*(m.log_probs(last, s) for m, s in pairs), strict=True)
        return np.log(np.mean(np.exp(log_probs), axis=0)), states


def test_an_ensemble_has_the_mean_of_the_probabilities():
    together, by_kind = two()
    models = [MeanInNumPy(by_kind, row) for row in range(2)]
    sequences = [[2, 0, END], [0, 0, 2]]
    want = [model.score(ids) for model, ids in zip(models, sequences, strict=True)]

    @jax.jit
    def run():
        greedy = decode.greedy(**together, max_time=6)
        return greedy.ids, decode.score(**together, ids=sequences)

    ids, scores = run()
    np.testing.assert_allclose(scores, want, atol=1e-12)
    assert ids.tolist() == [padded(model.greedy(6), 6) for model in models]


def test_an_ensemble_projects_to_log_probabilities():
    project = decode.ensemble([member("gru", make_params("gru", 3, 0))] * 2)["project"]
    output = np.ones((2, UNITS))
    log_probs = jax.jit(project)([output] * 2)
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1)


def attending(seed):
    """A model whose state holds a memory."""
    keys = jax.random.split(jax.random.key(seed), 4)
    cell = contrib.AttentionWrapper(
        jaxrnn.GRUCell(4), contrib.LuongAttention(4, memory_depth=3), 4
    )
    table = jax.random.normal(keys[0], (5, 4))
    memory = jax.random.normal(keys[1], (2, 6, 3))
    return {
        "cell": cell.bind(cell.init(keys[2], table[:2])),
        "embed": lambda ids: table[ids],
        "project": lambda output: 3 * output @ table.T,
        "initial_state": cell.initial_state(memory, jnp.array([6, 2])),
    }


def test_an_ensemble_of_cells_that_attend():
    """Beams share the memories, and the scores of the beams are those found."""
    together = decode.ensemble([attending(0), attending(1)]) | SHARED

    @jax.jit
    def run():
        beams = decode.beam_search(**together, max_time=4, beam_width=3)
        return beams.scores, decode.score(**together, ids=beams.ids)

    want, got = run()
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.fast("2")
@pytest.mark.parametrize("masked", [1, 2])
def test_gradients_are_finite_where_an_id_is_impossible(masked):
    params = make_params("gru", 3, 0)
    ids = jnp.array([[0, 0, END], [0, END, END]])

    def loss(params):
        models = [member("gru", params) for _ in range(2)]
        for model in models[:masked]:
            project = model["project"]
            model["project"] = lambda x, p=project: p(x).at[:, 2].set(-jnp.inf)
        return decode.score(**decode.ensemble(models), **SHARED, ids=ids).sum()

    gradient = jax.jit(jax.grad(loss))(params)
    chex.assert_tree_all_finite(gradient)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_members_of_few_bits_are_averaged_in_float32():
    narrow, wide = (make_params("gru", 4, 5, dtype=d) for d in ("bfloat16", "float32"))
    together = decode.ensemble([member("gru", p) for p in (narrow, wide)]) | SHARED
    ids = jnp.array([[0, END], [2, END]])
    score = jax.jit(lambda: decode.score(**together, ids=ids))()
    assert score.dtype == jnp.float32
    want = [InNumPy("gru", wide, row).score([2 * row, END]) for row in range(2)]
    np.testing.assert_allclose(score, want, rtol=0.1)


# Refusals.


REAL = member("gru", make_params("gru", 4, 0))


def refused(error, message):
    return pytest.raises(error, match=re.escape(message))


def test_refused_models():
    with refused(TypeError, "`models` must be a list of dicts, got dict."):
        decode.ensemble({})
    with refused(ValueError, "`models` must hold at least one model, got none."):
        decode.ensemble([])
    with refused(TypeError, "`models[0]` must be a dict, got 3. Pass its arguments as"):
        decode.ensemble([3])
    with refused(ValueError, "`initial_state`, got nothing."):
        decode.ensemble([{}])
    with refused(ValueError, "'end_id'. Pass other arguments, e.g. `start_ids`, to"):
        decode.ensemble([REAL | {"end_id": 0}])
    with refused(TypeError, "`models[0]['cell']` must be an RNNCell, got None"):
        decode.ensemble([REAL | {"cell": None}])
    with refused(TypeError, "`models[1]['embed']` must be a function, got 3."):
        decode.ensemble([REAL, REAL | {"embed": 3}])
    with refused(ValueError, "`models[1]['initial_state']` must be an array: None"):
        decode.ensemble([REAL, REAL | {"initial_state": None}])


def test_refused_logits():
    def run(logits):
        other = REAL | {"project": lambda _: jnp.asarray(logits)}
        decode.greedy(**decode.ensemble([REAL, other]), **SHARED, max_time=2)

    with refused(ValueError, "must be [2, 4] to match `models[0]`, got float64[2, 5]."):
        run(np.zeros((2, 5)))
    with refused(TypeError, "floating-point [batch, vocab], got int64[2, 4]."):
        run(np.zeros((2, 4), int))
