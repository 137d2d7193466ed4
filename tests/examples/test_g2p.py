"""The example of letters and sounds, in small: it learns, goes on, and pronounces."""

import dataclasses
import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from g2p import (
    baseline,
    data,
    decoding,
    evaluate,
    flax_net,
    hybrid,
    log,
    model,
    pronounce,
    scores,
    time_epoch,
    train,
)
from helpers import assert_near

pytestmark = pytest.mark.usefixtures("users_settings")
KEY = jax.random.key(1)
SMALL = model.Net(embedding=12, units=24, layers=2, decoder_units=20)


@pytest.fixture(scope="module")
def words():
    """Some with several pronunciations."""
    return dict(list(data.load().items())[5000:5400])


@pytest.fixture(scope="module")
def short_words():
    """The batches of one bucket, so that little is compiled."""
    fits = lambda item: {data.bucket_of(item[0], p) for p in item[1]} == {5}
    return dict(list(filter(fits, data.load().items()))[1000:1080])


@pytest.fixture
def params():
    """Parameters that are not near zero, so that what is written varies."""
    params = model.init(SMALL, jax.random.key(0))
    return jax.tree.map(lambda x: 2 * x, params)


@pytest.mark.parametrize(
    ("a", "b", "edits"), [("kitten", "sitting", 3), ("", "abc", 3), ("flaw", "lawn", 2)]
)
def test_edit_distance(a, b, edits):
    assert scores.edit_distance(a, b) == scores.edit_distance(b, a) == edits


def test_a_word_is_right_if_any_of_its_pronunciations_is():
    words = {"a": [("AH",), ("EY",)], "cat": [("K", "AE", "T")], "i": [("AY",)]}
    found = {"a": ("EY",), "cat": ("K", "AE", "T", "S"), "i": ("AY",)}
    assert scores.words_wrong(found, words).tolist() == [False, True, False]
    assert scores.words_wrong_by_first(found, words).tolist() == [True, True, False]
    edits, counts = scores.phonemes_wrong(found, words)
    assert (edits.tolist(), counts.tolist()) == ([0, 1, 0], [1, 3, 1])


@pytest.mark.slow
def test_what_is_written_does_not_depend_on_padding(params, words):
    words = list(words)[:40]
    found = decoding.pronounce((SMALL,), (params,), words)
    assert len(set(found.values())) > 10
    batch = data.make_batch([(word, ()) for word in words], 20, 50)
    ids = decoding.greedy((SMALL,), (params,), batch.letters, batch.letter_count)
    for word, row in zip(words, ids, strict=False):
        assert data.to_phonemes(np.asarray(row)) == found[word]


@pytest.mark.slow
def test_the_folder_can_be_copied_out(tmp_path):
    """What it imports are its own files and packages that are installed."""
    folder = Path(model.__file__).parent
    shutil.copytree(folder, tmp_path / "sounds")
    names = "pronounce, train, evaluate, baseline, time_epoch"
    command = [sys.executable, "-c", f"from sounds import {names}"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def config(net=SMALL, **fields):
    return train.Config(net, rows=16, save_every=5, **fields)


@pytest.mark.slow
def test_it_learns(short_words, tmp_path):
    net = dataclasses.replace(SMALL, dropout=0.0)
    settings = config(net, epochs=40, learning_rate=2e-2, averaging=0.9, smoothing=0.0)
    _, entries = train.fit(settings, short_words, short_words, tmp_path)
    assert entries[-1]["loss"] < 0.3 * entries[0]["loss"]
    assert entries[-1]["dev"] < 0.6 < entries[0]["dev"]


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_killed(short_words, tmp_path, monkeypatch):
    fit = lambda folder: train.fit(config(epochs=3), short_words, short_words, folder)
    whole, expected = fit(tmp_path / "whole")
    steps, update = expected[-1]["step"], train.update

    def killed(config, steps, state, batch, n):
        if n == 8:
            raise KeyboardInterrupt
        return update(config, steps, state, batch, n)

    monkeypatch.setattr(train, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "parts")
    monkeypatch.setattr(train, "update", update)
    resumed, entries = fit(tmp_path / "parts")
    assert 8 < steps
    assert [e["step"] for e in entries] == [e["step"] for e in expected]
    assert entries[-1]["dev"] == expected[-1]["dev"]
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    lines = (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == entries


@pytest.fixture
def saved(params, tmp_path):
    model.save(tmp_path / "model.npz", SMALL, params)
    return tmp_path / "model.npz"


@pytest.mark.slow
def test_evaluation_prints_its_tables(saved, capsys, words, monkeypatch):
    monkeypatch.setattr(data, "split", lambda _: ({}, {}, words))
    rates = evaluate.main((saved,), beams=2, wrong=3)
    assert list(rates) == ["greedy", "2 beams"]
    rate, low, high = rates["greedy"]["words wrong"]
    assert 0.9 < low <= rate <= high <= 1
    assert capsys.readouterr().out.count("; right: ") == 3


@pytest.mark.slow
def test_words_are_pronounced_and_drawn(saved, tmp_path, capsys):
    picture = tmp_path / "figure.png"
    flags = ["Cat", "o'clock", "--path", str(saved), "--figure", str(picture)]
    found = tyro.cli(pronounce.main, args=flags)
    assert list(found) == ["cat", "o'clock"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"cat: {' '.join(found['cat'])}\n" in capsys.readouterr().out


def test_files_that_hold_no_net_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(2))
    (tmp_path / "text.npz").write_text("no arrays")
    (tmp_path / "part.npz").write_bytes(model.COMMITTED.read_bytes()[:100_000])
    for path in tmp_path.iterdir():
        with pytest.raises(SystemExit, match=r"not a complete file from g2p\.train"):
            model.load(path)


def flags(*words):
    return lambda: tyro.cli(train.main, args=words)


REFUSALS = {
    "none.npz is not a file": lambda: model.load("none.npz"),
    "one or more files": lambda: model.load_all(()),
    "one or more words": lambda: pronounce.main(()),
    "must be 1 to 29 characters .*'naïve'": lambda: pronounce.main(("cat", "naïve")),
    "each word must be 1 to 29 characters .*, got ''": lambda: pronounce.main(("",)),
    "got 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'": lambda: pronounce.main(("a" * 30,)),
    "drop the other flags": lambda: train.main(config(), quick=True),
    "--units must be at least 1, got 0": flags("--units", "0"),
    r"--dropout must be from 0 to below 1, got 1\.0": flags("--dropout", "1"),
    "--learning-rate must be finite and above 0": flags("--learning-rate", "nan"),
    r"--smoothing must be from 0 to 1, got 2\.0": flags("--smoothing", "2"),
    "--seed must be from 0 to 2147483647, got -1": flags("--seed", "-1"),
}


@pytest.mark.parametrize("message", REFUSALS)
def test_wrong_arguments_are_refused(message):
    with pytest.raises(SystemExit, match=message):
        REFUSALS[message]()


def test_a_folder_holds_one_training(tmp_path):
    train.claim(tmp_path, config())
    train.claim(tmp_path, dataclasses.replace(config(), save_every=7))
    with pytest.raises(SystemExit, match="holds another training"):
        train.claim(tmp_path, config(seed=1))
    (tmp_path / "config.json").unlink()
    train.claim(tmp_path, config(seed=1))


def test_a_log_that_a_kill_cut_goes_on(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 5, "seconds": 1.0}\n{"step": 10, "sec')
    log.Log(path, 10).add(step=10)
    steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert steps == [5, 10]


def test_a_batch_must_be_filled():
    with pytest.raises(ValueError, match=r"`rows` must be at most 1, .* got 2"):
        data.Training({"a": [("AH",)]}, 2, seed=0)


@pytest.mark.slow
def test_the_committed_net_pronounces_words_that_it_was_not_trained_on():
    net, params = model.load(model.COMMITTED)
    _, dev, _ = data.split(data.load())
    some = dict(list(dev.items())[:600])
    search = functools.partial(decoding.beam_search, beams=4)
    found = decoding.pronounce((net,), (params,), some, search)
    assert scores.words_wrong(found, some).mean() < 0.3


@pytest.mark.slow
def test_the_net_in_flax_is_the_same(params, words):
    net = dataclasses.replace(SMALL, dropout=0.0)
    batch = data.Training(words, 16, seed=0)[0]
    flax, of_flax = flax_net.FlaxNet(net), flax_net.from_ours(net, params)
    fresh = jax.eval_shape(lambda key: flax.init(key, batch, train=False), KEY)
    assert jax.tree.map(jnp.shape, fresh["params"]) == jax.tree.map(jnp.shape, of_flax)
    expected = model.compute_logits(net, params, batch, KEY)
    logits = flax.apply({"params": of_flax}, batch, train=False)
    is_valid = jnp.arange(logits.shape[1]) < batch.phoneme_count[:, None]
    assert_near(logits[is_valid], expected[is_valid], tolerance=1e-4)
    dropped = time_epoch.flax_logits(SMALL, of_flax, batch, KEY)
    assert not np.allclose(dropped, logits)


@pytest.mark.slow
def test_an_epoch_is_timed(words, monkeypatch, capsys):
    monkeypatch.setattr(data, "split", lambda _: (words, {}, {}))
    monkeypatch.setattr(data, "BUCKETS", (10, 29))
    trainings = time_epoch.main(config(), rounds=2)
    printed = capsys.readouterr().out
    assert printed.count(" s per epoch, median ") == printed.count(" MB\n") == 2
    assert {len(t.seconds[10]) for t in trainings.values()} == {3}
    batches = {10: 20, 29: 1}
    for training in trainings.values():
        training.seconds = {10: [9.0, 2.0, 1.0], 29: [9.0, 5.0, 6.0]}
        assert training.of_epoch(min, batches) == 25.0


def test_mcnemar():
    """The p-value by hand: 1 or fewer, or 7 or more, of 8 throws of a coin."""
    wrong, other = np.zeros((2, 100), bool)
    wrong[:20], other[19:21] = True, True
    wrong[7:19] = False  # 7 of one alone, 1 of the other alone, 1 of both.
    difference, half, p = scores.paired(wrong, other)
    assert difference == pytest.approx(0.06)
    assert p == pytest.approx((1 + 8) * 2 / 2**8)
    assert half == pytest.approx(1.96 * np.std(wrong.astype(int) - other) / 10)
    assert scores.paired(wrong, wrong)[2] == 1


def fake_phonetisaurus(*command):
    """Learns the lexicon by heart, and proposes a wrong pronunciation as the second."""
    if "train" in command:
        *_, model, lexicon = command
        return model.write_text(lexicon.read_text())
    flags = dict(flag.split("=", 1) for flag in command if "=" in flag)
    known = dict(
        line.split("\t") for line in Path(flags["--model"]).read_text().splitlines()
    )
    words = Path(flags["--wordlist"]).read_text().splitlines()
    return "".join(
        f"{w}\t0.5\t{known[w]}\n{w}\t900\tAA\n" if w in known else f"{w}\t0\t\n"
        for w in words
    )


@pytest.fixture
def baseline_folder(words, tmp_path, monkeypatch):
    """What Phonetisaurus writes, if it knows all but 100 of the words."""
    monkeypatch.setattr(baseline, "run", fake_phonetisaurus)
    known = dict(list(words.items())[100:])
    part = dict(list(words.items())[50:150])
    monkeypatch.setattr(data, "split", lambda _: (known, part, words))
    rates = baseline.main(tmp_path / "baseline")
    assert rates["Phonetisaurus, test"]["words wrong"][0] == 100 / 400
    assert rates["Phonetisaurus, dev"]["words wrong"][0] == 50 / 100
    return tmp_path / "baseline"


@pytest.mark.slow
def test_systems_are_compared_word_by_word_and_combined(saved, baseline_folder, capsys):
    """An untrained net adds nothing to a system that knows words by heart."""
    file = baseline_folder / "net.tsv"
    evaluate.main((saved,), beams=2, against=baseline_folder / "test.tsv", save=file)
    assert "minus the other system's 25.00 %: +7" in capsys.readouterr().out
    evaluate.main((saved,), beams=2, against=file)
    assert "+0.00 ± 0.00 points, p = 1.000 (McNemar)" in capsys.readouterr().out
    rates = hybrid.main((saved,), baseline_folder, beams=2)
    assert "The weight is" in capsys.readouterr().out
    assert rates["hybrid, dev"]["words wrong"][0] == pytest.approx(0.5, abs=0.02)
