"""Each program runs in small and learns, and what its page claims is measured right.

`tests/conformance` compares the networks of `forecasting` and `g2p` with PyTorch and
with g2p_en's own code.
"""

import dataclasses
import json
import re
import shutil
from functools import partial

import flax_nnx
import hybrid_lm
import japanese_vowels
import japanese_vowels_data
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quickstart
import tyro
from compilers.hlo import collectives
from distributed import compare, datasets, kill, pipelined_rnn, train
from forecasting import data as pedestrians, forecast, model as forecaster
from g2p import data as letters, finetune, model as g2p, scores
from g2p.make_cmudict import WORDS
from helpers import assert_near, assert_same
from rl import ppo
from seq2seq import dates

from jaxrnn import GRUCell, LSTMCell, MultiRNNCell, dynamic_rnn

pytestmark = pytest.mark.slow
as_a_user = pytest.mark.usefixtures("users_settings")


def flags(main, text):
    """A call of `main` with these flags."""
    return lambda: tyro.cli(main, args=text.split())


def falls(losses):
    """Whether the last quarter of the losses is lower than the first."""
    size = max(len(losses) // 4, 1)
    return np.mean(losses[-size:]) < np.mean(losses[:size])


def rises(printed):
    """Whether the accuracy was that of guesses, and is high at the end."""
    first, last = map(float, re.findall(r"accuracy ([\d.]+)%", printed))
    return first < 60 and last > 90


LANGUAGE_MODEL = hybrid_lm.Config(
    steps=16, rows=4, row_length=64, depth=16, heads=2, lstm_units=16, remat=True
)
# By name: a small run, and what must hold of its result and of what it prints.
RUNS = {
    "quickstart": (lambda: quickstart.main(steps=100), lambda _, text: rises(text)),
    "japanese_vowels": (  # One guess in nine is right by chance.
        lambda: japanese_vowels.main(seeds=2, epochs=3, units=8),
        lambda found, printed: found[0] != found[1] and min(found) > 0.2,
    ),
    "flax_nnx": (
        lambda: flax_nnx.main(epochs=2, seeds=2, units=8),
        lambda found, printed: all(map(falls, found["losses"])),
    ),
    "hybrid_lm": (
        lambda: hybrid_lm.main(LANGUAGE_MODEL),
        lambda found, printed: all(map(falls, found.values())) and "bits" in printed,
    ),
    "seq2seq": (lambda: dates.main(steps=20), lambda found, _: falls(found["losses"])),
    "forecasting": (
        flags(
            forecast.main,
            "--seeds 2 --units 8 --updates 60 --batch 8 --learning-rate 0.03 --paths 4",
        ),
        # 23 is the score of the forecast by the last week.
        lambda found, _: 13 < max(crps for crps, _ in found["network"]) < 23,
    ),
    "rl": (
        flags(
            ppo.main, "--seeds 2 --rows 8 --updates 12 --learning-rate 0.03 --units 8"
        ),
        lambda found, printed: all(falls(-returns) for returns in found.values()),
    ),
}


@as_a_user
@pytest.mark.parametrize(("run", "is_right"), RUNS.values(), ids=RUNS)
def test_a_small_run(run, is_right, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)  # It writes its picture.
    found = run()
    assert is_right(found, capsys.readouterr().out)


@as_a_user
def test_weights_of_pytorch():
    pytest.importorskip("torch")
    from_torch = pytest.importorskip("from_torch")
    found = from_torch.main(torch_epochs=1, epochs=2, units=8)
    assert found["difference"] < 1e-5
    assert 0.15 < found["before"] < found["after"]  # It continues from there.


# What is tested is not what was trained on.


def test_the_vowels_are_those_of_the_paper():
    train, test = japanese_vowels_data.load()
    assert np.bincount(train.labels).tolist() == [30] * 9
    assert np.bincount(test.labels).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]


def test_dates_are_held_out():
    parts = dates.split_dates(2000)
    days = [{dates.to_text(row) for row in x.iso} for x in parts]
    assert [len(x) for x in days] == [dates.DAYS - 2000, 2000]
    assert not days[0] & days[1]


def test_words_are_held_out():
    dictionary = letters.load()
    assert len(dictionary) == WORDS
    parts = letters.split(dictionary)
    assert [len(part) for part in parts] == [110_256, 2_670, 12_000]
    assert parts[0] | parts[1] | parts[2] == dictionary
    # As it was when the rates of the page were measured.
    assert list(parts[2])[:3] == ["dismore", "evander", "vantrease"]


def test_validation_leaves_out_the_test_weeks():
    everything, _ = pedestrians.load()
    used, _ = pedestrians.load(leave_out=pedestrians.TEST_WEEKS)
    end = -pedestrians.TEST_WEEKS * pedestrians.WEEK
    np.testing.assert_array_equal(used.counts, everything.counts[:end])
    weeks = used.counts[:end].reshape(-1, pedestrians.WEEK, pedestrians.PLACES)
    mean = np.nanmean(weeks, axis=0)
    np.testing.assert_allclose(used.usual[: pedestrians.WEEK], mean, 1e-6)


# Scores.


def test_rates_of_words_and_phonemes():
    words = {"a": [("AH",), ("EY",)], "cat": [("K", "AE", "T")], "i": [("AY",)]}
    found = {"a": ("EY",), "cat": ("K", "AE", "T", "S"), "i": ("AY",)}
    assert scores.words_wrong(found, words).tolist() == [False, True, False]
    edits, counts = scores.phonemes_wrong(found, words)
    assert (edits.tolist(), counts.tolist()) == ([0, 1, 0], [1, 3, 1])
    share, low, high = scores.bootstrap(np.arange(400) < 100, np.ones(400))
    half = 1.96 * np.sqrt(0.25 * 0.75 / 400)  # Of a binomial distribution.
    np.testing.assert_allclose([low, high], [share - half, share + half], atol=0.005)


def test_scores_of_forecasts():
    rng = np.random.default_rng(0)
    counts, paths = rng.normal(50, 9, (40, 30)), rng.normal(50, 9, (40, 4000, 30))
    counts[3, 4] = np.nan
    crps, inside = forecast.score(paths, counts)
    # The expected CRPS of a normal forecast is its deviation over the root of pi.
    np.testing.assert_allclose(crps, 100 * 9 / np.sqrt(np.pi) / 50, rtol=0.05)
    np.testing.assert_allclose(inside, 80, atol=3)


@as_a_user
def test_a_forecast_does_not_read_the_future():
    cell, context = LSTMCell(5), 7
    counts, sizes = pedestrians.load()[0], (pedestrians.PLACES, pedestrians.COVARIATES)
    params = forecaster.init(cell, *sizes, jax.random.key(0))
    hours = np.array([[100], [300]]) + np.arange(12)
    window = pedestrians.cut(counts, np.array([2, 3]), hours, context)
    other = window._replace(roots=window.roots.at[:, context:].set(0.5))
    draw = partial(forecaster.draw_paths, cell, params, paths=4, key=jax.random.key(3))
    want, got = (draw(each, context) for each in (window, other))
    np.testing.assert_array_equal(got, want)


# Letters to sounds: g2p_en is stood in for by random parameters.


@as_a_user
def test_g2p_learns(monkeypatch, tmp_path):
    fits = lambda item: {letters.bucket_of(item[0], p) for p in item[1]} == {5}
    items = list(filter(fits, letters.load().items()))[1000:1032]
    words, params = dict(items), g2p.init(jax.random.key(0))
    settings = [(finetune, "ROWS", 32), (finetune, "POINTS", 1)]
    settings += [(g2p, "package_file", lambda: None), (g2p, "load", lambda _: params)]
    parts = words, dict(items[:20]), dict(items[5:])
    for module, name, value in [*settings, (letters, "split", lambda _: parts)]:
        monkeypatch.setattr(module, name, value)
    monkeypatch.chdir(tmp_path)
    networks = flags(finetune.main, "Cat --epochs 60 --rate 3e-3 --output g2p.npz")()
    before, *after = (finetune.wrong(each, words) for each in networks.values())
    assert max(after) < 0.8 < before


# Policies.

SMALL = ppo.Config(rows=8, steps=70, units=16)


@pytest.fixture(scope="module")
def rollouts():
    """A policy, and two rollouts, each with the training before it."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        policy = ppo.ActorCritic(ppo.ResetRNN, SMALL.units)
        training = ppo.start(SMALL, policy, jax.random.key(0))
        params = jax.tree.map(lambda p: 3 * p + 0.1, training.params)
        training = training._replace(params=params)  # Its logits differ.
        collect, parts = jax.jit(ppo.collect, static_argnums=(0, 1)), []
        for n in range(2):
            before = training
            training, part = collect(SMALL, policy, before, jax.random.key(n))
            parts.append((before, part))
    return policy, parts


@as_a_user
def test_what_is_trained_is_what_acted(rollouts):
    ours, parts = rollouts
    for before, part in parts:
        inputs = before.state, part.observation, part.first
        _, logits, values = ours.apply(before.params, *inputs)
        found = ppo.log_prob_of(logits, part.action), values
        assert_near(found, (part.log_prob, part.value), tolerance=1e-5)


@as_a_user
def test_the_rewards_are_those_of_popgym(rollouts):
    """By the suits that the policy saw since the deck began."""
    _, ((_, part), (_, last)) = rollouts
    part = jax.tree.map(lambda a, b: np.concatenate([a, b]), part, last)
    np.testing.assert_array_equal(part.first[1:], part.done[:-1])
    for row in range(SMALL.rows):
        begin, *_ = np.flatnonzero(part.done[:, row]) + 1
        seen = part.observation[begin : begin + 51, row].argmax(-1)
        right = part.action[begin + 3 : begin + 51, row] == seen[:-3]
        want = [0, 0, 0, *(np.where(right, 1, -1) / 48)]
        np.testing.assert_allclose(part.reward[begin : begin + 51, row], want)
        np.testing.assert_array_equal(part.done[begin : begin + 51, row].nonzero(), 50)


# Several devices.


def test_processes_train_as_one_device_does_also_after_a_kill(fast_to_compile):
    """One of two processes is killed, and one device continues the run."""
    assert 0 < kill.main(1, "2 processes", "1 device", patience=0.1) < 1e-6
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(compare.PRECISIONS, "float32")
        found = compare.main("vowels", 4, 8, 8, ("1 device", "2 processes"))
    assert 0 < max(found["float64"]["2 processes"]) < 1e-14


@as_a_user
def test_every_mesh_has_the_same_losses_also_after_a_restart(tmp_path):
    recall = datasets.load("recall", np.float32)
    small = {"steps": 4, "units": 4, "batch_size": 8, "data": "recall", "save_every": 2}
    lines = lambda mesh: (tmp_path / mesh / "losses.jsonl").read_text().splitlines()
    losses = lambda mesh: np.array([json.loads(line)["loss"] for line in lines(mesh)])
    results = []
    for mesh in ("auto", "explicit", "shard_map"):
        (tmp_path / mesh).mkdir()
        config = train.Config(**small, mesh=mesh)
        params = train.fit(config, recall, tmp_path / mesh)
        results.append((losses(mesh), params))
        assert_near(results[-1], results[0], tolerance=1e-6)
    shutil.rmtree(tmp_path / mesh / "checkpoints" / "4")
    again = train.fit(config, recall, tmp_path / mesh)
    assert_same((losses(mesh), again), results[-1])


@pytest.mark.parametrize(
    ("cell", "stages", "parts", "chunk"),
    [(LSTMCell(4, use_peepholes=True), 4, 1, 3), (GRUCell(4), 2, 2, 20)],
)
def test_a_pipeline_is_the_stack_and_sends_chunks(cell, stages, parts, chunk):
    """Compared with `MultiRNNCell` on one device, for 4 layers and 11 steps."""
    data = pipelined_rnn.make_data(cell, 4, time=11, dtype=jnp.float64)
    mesh = jax.make_mesh((stages, parts), ("stage", "data"))
    run = partial(pipelined_rnn.pipelined_rnn, cell, mesh=mesh, chunk=chunk)
    gradient = jax.jit(partial(pipelined_rnn.differentiate, run))
    placed = pipelined_rnn.place(mesh, *data)

    def stack(params, inputs, lengths, state):
        layer = lambda tree, i: jax.tree.map(lambda leaf: leaf[i], tree)
        cells = MultiRNNCell([dataclasses.replace(cell) for _ in range(4)])
        bound = cells.bind({f"cell_{i}": layer(params, i) for i in range(4)})
        state = tuple(layer(state, i) for i in range(4))
        outputs, state = dynamic_rnn(bound, inputs, lengths, state, time_major=True)
        return outputs, jax.tree.map(lambda *leaves: jnp.stack(leaves), *state)

    want = pipelined_rnn.differentiate(stack, *data)
    assert_near(gradient(*placed), want, tolerance=1e-10)
    inside, _ = collectives(gradient.lower(*placed).compile().as_text())
    assert inside == ["collective-permute"] * 2
