"""Decoding: ids and scores against lists of ids, and against the draws of JAX."""
# ruff: noqa: E501 (One refusal a row.)

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoders import END, START, OneRow, make_model, make_params, padded
from helpers import refusals

import jaxrnn
from jaxrnn import GRUCell, decode
from jaxrnn.testing._oracle import TOLERANCE

KEY = jax.random.key(7)


def check_beams(decoded, row, want):
    """One example's beams are `want`, `[(score, ids)]`, and then none."""
    ids, scores, lengths = (np.asarray(x[row]) for x in decoded)
    n, max_length = len(want), ids.shape[-1]
    np.testing.assert_allclose(scores[:n], [score for score, _ in want], atol=1e-12)
    assert ids[:n].tolist() == [padded(i, max_length) for _, i in want]
    assert lengths[:n].tolist() == [len(i) for _, i in want]
    assert np.isneginf(scores[n:]).all()
    assert (lengths[n:] == 0).all()
    assert (ids[n:] == END).all()


@pytest.mark.fast("gru-4-6-3-3")
@pytest.mark.parametrize(
    ("kind", "vocab", "max_length", "width", "count"),
    [("lstm", 4, 6, 1, 1), ("gru", 4, 6, 3, 3), ("gru", 4, 3, 42, 40)],
)
def test_beams_equal_lists(kind, vocab, max_length, width, count):
    @functools.partial(jax.jit, static_argnums=2)
    def run(params, penalty, form):
        options = {"length_penalty": penalty, "length_penalty_form": form}
        model = make_model(kind, params, width)
        return decode.beam_search(model, max_length, width, **options)

    waited, rules = False, [(0.0, "power"), (1.2, "power"), (1.2, "gnmt")]
    for seed, rule in itertools.product(range(4), rules):
        params = make_params(kind, vocab, seed)
        decoded = run(params, *rule)
        for row in range(2):
            want = OneRow(kind, params, row).beams(width, max_length, *rule)
            assert len(want) == count
            check_beams(decoded, row, want)
        one, other = decoded.lengths.max(axis=1).tolist()
        waited |= one != other
    assert waited == (width == count)  # One example waits for the other.


DECODERS = {
    "greedy": {},
    "sample": {"key": KEY, "top_p": 0.8},
    "beam_search": {"num_beams": 2},
}


def decoded_by(name, params, max_length, **changed):
    """The result of a decoder for a model in which some fields are changed."""
    options = DECODERS[name]
    model = make_model("gru", params, options.get("num_beams", 1), **changed)
    return getattr(decode, name)(model, max_length, **options)


def test_a_vocabulary_without_an_end():
    params = make_params("gru", 4, 0)
    found = jax.jit(lambda: decoded_by("greedy", params, 9, eos_id=None))()
    found = jax.device_get(found)
    assert found.lengths.tolist() == [9, 9]
    assert (found.ids == END).any()
    for row in range(2):
        want = OneRow("gru", params, row).score(found.ids[row].tolist())
        np.testing.assert_allclose(found.scores[row], want, atol=1e-12)
    model = make_model("gru", params, eos_id=None)
    scores = jax.jit(lambda ids: decode.score(model, ids))(found.ids)
    np.testing.assert_allclose(scores, found.scores)


@pytest.mark.fast("greedy")
@pytest.mark.parametrize("name", DECODERS)
def test_the_loop_stops_with_the_longest_row(name):
    """Each step calls `project` once."""
    params, max_length, calls = make_params("gru", 4, 3), 20, []
    project = make_model("gru", params, DECODERS[name].get("num_beams", 1)).project

    def count(output):
        jax.debug.callback(lambda: calls.append(None))
        return project(output)

    run = lambda: decoded_by(name, params, max_length, project=count)
    found = jax.device_get(jax.jit(run)())
    jax.effects_barrier()
    steps = found.lengths.max()
    assert 1 < steps < max_length
    assert len(calls) == steps


@pytest.mark.fast("0-5-beam_search")
@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize(("rows", "max_length"), [(0, 5), (2, 0)])
def test_no_rows_and_no_steps(name, rows, max_length):
    params, start = make_params("gru", 4, 0, batch=rows), START[:rows]
    run = lambda: decoded_by(name, params, max_length, start_ids=start)
    ids, scores, lengths = jax.jit(run)()
    shape = (rows, 2) if name == "beam_search" else (rows,)
    assert ids.shape == (*shape, max_length)
    assert scores.shape == lengths.shape == shape
    assert not lengths.any()
    assert not scores[..., :1].any()


DEAD = np.array([[True, True, True], [False, True, True], [False, False, False]])
ALONE = jnp.log(jnp.array([[0.5, 0.2, 0.3], [0.6, 0.1, 0.3], [0.2, 0.7, 0.1]]))


def dead_ends(weights, beams=1):
    """A model whose logits at step t are `weights[t]`, or -inf where a row is dead."""

    def step(params, inputs, state, key=None):
        return state, state + 1

    def project(count):
        at = count[:, 0].astype(int)
        dead = decode.tile_beams(jnp.asarray(DEAD), beams)
        is_dead = jnp.take_along_axis(dead, at[:, None], axis=1)
        return jnp.where(is_dead, -jnp.inf, weights[at])

    return decode.Model(
        jaxrnn.FunctionCell(step, 1, 1).bind({}),
        embed=lambda ids: jnp.zeros((len(ids), 1)),
        project=project,
        initial_state=jnp.zeros((3, 1)),
        start_ids=np.zeros(3, int),
        eos_id=END,
    )


FOUND = [[], [], [0, 0, END]]  # Nothing for rows without a sequence.
BEAMS = [[], [], [], [END], [], [], [0, 0, END], [END], [2, 0, END]]
DEAD_ENDS = {
    "greedy": (decode.greedy, {"max_length": 3}, FOUND),
    "sample": (decode.sample, {"max_length": 3, "key": KEY, "temperature": 1e-3}, FOUND),
    "beam_search": (decode.beam_search, {"max_length": 3, "num_beams": 3}, BEAMS),
    "score": (decode.score, {"ids": [[0, 0, END]] * 3}, FOUND),
}  # fmt: skip


@pytest.mark.fast("beam_search", "score")
@pytest.mark.parametrize("name", DEAD_ENDS)
def test_rows_in_which_no_id_is_possible(name):
    decoder, options, want = DEAD_ENDS[name]

    def run(weights):
        model = dead_ends(weights, options.get("num_beams", 1))
        decoded = decoder(model, **options)
        scores = decoded if name == "score" else decoded.scores
        return jnp.sum(jnp.where(jnp.isneginf(scores), 0, scores)), decoded

    gradient, decoded = jax.device_get(jax.jit(jax.grad(run, has_aux=True))(ALONE))
    probs, want_gradient = np.exp(ALONE), np.zeros((3, 3))
    for ids in want:
        want_gradient[: len(ids)] -= probs[: len(ids)]
        want_gradient[np.arange(len(ids)), ids] += 1
    np.testing.assert_allclose(gradient, want_gradient, atol=1e-12)
    score = lambda ids: np.sum(ALONE[np.arange(len(ids)), ids]) if ids else -np.inf
    scores = decoded if name == "score" else decoded.scores
    np.testing.assert_allclose(scores.ravel(), [*map(score, want)], atol=1e-12)
    if name != "score":
        assert decoded.ids.reshape(-1, 3).tolist() == [padded(ids, 3) for ids in want]
        assert decoded.lengths.ravel().tolist() == [*map(len, want)]


def test_scores_are_summed_in_float32():
    params = make_params("gru", 4, 5, dtype=jnp.bfloat16)
    wide = jax.tree.map(lambda x: x.astype(jnp.float64), params)
    run = lambda p: decode.greedy(make_model("gru", p), max_length=5)
    ids, scores, lengths = jax.jit(run)(params)
    assert scores.dtype == jnp.float32
    assert (ids.dtype, lengths.dtype) == (jnp.int32, jnp.int32)
    parts = [row[:n].tolist() for row, n in zip(ids, lengths, strict=True)]
    want = [OneRow("gru", wide, row).score(part) for row, part in enumerate(parts)]
    tolerance = TOLERANCE["bfloat16"]
    np.testing.assert_allclose(scores, want, rtol=tolerance, atol=tolerance)


# Draws.

LOGITS = np.array([0.3, -np.inf, 1.2, -0.7, 0.9, 0.1])  # No row ever ends.


def draw(key, logits=LOGITS, rows=9, max_length=3, **options):
    """Ids `[rows, max_length]` whose distribution is the same everywhere."""
    project = lambda output: jnp.tile(jnp.asarray(logits), (rows, 1))
    params, start = make_params("gru", 6, 0, batch=rows), jnp.zeros(rows, jnp.int32)
    model = make_model("gru", params, project=project, start_ids=start)
    return decode.sample(model, max_length, key, **options)


def check_scores(decoded, logits):
    log_probs = logits - np.log(np.sum(np.exp(logits)))
    want = log_probs[np.asarray(decoded.ids)].sum(axis=1)
    np.testing.assert_allclose(decoded.scores, want, atol=1e-12)


def kept_probs(temperature, top_k, top_p):
    """The distribution that is drawn from."""
    probs = np.exp(LOGITS / temperature)
    order = np.argsort(-probs, kind="stable")
    probs[order[top_k:]] = 0
    probs /= probs.sum()
    before = np.cumsum(probs[order]) - probs[order]
    probs[order[before >= top_p]] = 0
    return probs / probs.sum()


@pytest.mark.fast("1.5-4-*")
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "count"),
    [
        (2.5, None, None, 5),
        (1.5, 4, 0.8, 3),
        (1.0, None, 1e-9, 1),
    ],
)
def test_draws_are_those_of_jax_from_the_ids_that_are_kept(
    temperature, top_k, top_p, count
):
    """With the key of the position, and with the noise of an id, whatever is left."""
    probs, rows = kept_probs(temperature, top_k or 99, top_p or 2), 200
    assert np.count_nonzero(probs) == count
    # The scalars come traced, as numbers and as arrays.
    run = jax.jit(functools.partial(draw, rows=rows, top_k=top_k))
    decoded = run(KEY, temperature=temperature, top_p=top_p and np.float32(top_p))
    with np.errstate(divide="ignore"):
        logits = np.tile(np.log(probs), (rows, 1))
    for t in range(3):
        want = jax.random.categorical(jax.random.fold_in(KEY, t), logits)
        np.testing.assert_array_equal(decoded.ids[:, t], want)
    assert set(np.unique(decoded.ids)) == set(np.flatnonzero(probs))
    check_scores(decoded, LOGITS)  # Scores are the model's, at any temperature.


def test_the_smallest_set_and_the_first_of_equals():
    """The first two of four equal logits; quarters are exact."""
    cut = functools.partial(draw, KEY, np.zeros(4), max_length=1, top_p=0.5)
    ids, _, lengths = jax.jit(cut)()
    assert set(np.unique(ids)) == {0, 1}
    assert set(np.asarray(lengths)) == {1}


def test_scores_are_nan_if_a_traced_number_is():
    run = jax.jit(lambda number: draw(KEY, np.arange(5.0), temperature=number))
    assert np.isnan(run(np.nan).scores).all()
    assert np.isfinite(run(0.5).scores).all()


# Shapes and refusals.


def test_tile_beams():
    tree = {"a": np.arange(4).reshape(2, 2), "count": np.int32(3)}
    tiled = decode.tile_beams(tree, 2)
    assert tiled["a"].tolist() == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert tiled["count"].shape == ()
    with pytest.raises(ValueError, match="`num_beams` must be at"):
        decode.tile_beams(tree, 0)


def bad(value):
    return lambda _: value


def call(name, **changed):
    def run():
        options = {"ids": [[0, 1]] * 2}
        if name != "score":
            options = DECODERS[name] | {"max_length": 3}
        names = [name for name in changed if name in decode.Model.__match_args__]
        fields = {name: changed.pop(name) for name in names}
        beams = options.get("num_beams", 1)
        model = make_model("gru", make_params("gru", 4, 0), beams, **fields)
        getattr(decode, name)(**{"model": model} | options | changed)

    return run


greedy, sample, score = (
    functools.partial(call, n) for n in ("greedy", "sample", "score")
)
beam_search = functools.partial(call, "beam_search")
REFUSALS = [
    (TypeError, "`start_ids`", greedy(start_ids=np.zeros(2, np.float32))),
    (TypeError, "`cell`", greedy(cell=GRUCell(4))),
    (ValueError, r"`embed\(ids\)`", greedy(embed=bad(np.zeros((3, 3))))),
    (ValueError, "`logits`", greedy(project=bad(np.zeros((2, 4, 1))))),
    (ValueError, "`eos_id`", greedy(eos_id=4)),
    (ValueError, "`key`", sample(key=jax.random.split(KEY))),
    (ValueError, "`temperature`", sample(temperature=0)),
    (ValueError, "`top_p`", sample(top_p=0.0)),
    (ValueError, "`length_penalty_form`", beam_search(length_penalty_form="mean")),
    (ValueError, "`ids`", score(ids=[1, 2])),
]  # fmt: skip

test_refuses = refusals(REFUSALS)
