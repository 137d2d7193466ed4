"""The example of letters and sounds, in small: it learns, goes on, and pronounces.

Its dictionary holds words with their pronunciations, from which it makes batches.
"""

import dataclasses
import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro
from g2p import baseline, data, decoding, evaluate, model, pronounce, scores, train
from g2p.make_cmudict import PRONUNCIATIONS, WORDS, read
from helpers import assert_same

pytestmark = [pytest.mark.in_thirds, pytest.mark.usefixtures("users_settings")]
SMALL = model.Net(embedding=12, units=24, layers=2, decoder_units=20)


@pytest.fixture(scope="module")
def dictionary():
    return data.load()


@pytest.fixture(scope="module")
def words(dictionary):
    """Some with several pronunciations."""
    return dict(list(dictionary.items())[5000:5400])


@pytest.fixture(scope="module")
def short_words(dictionary):
    """The batches of one bucket, so that little is compiled."""
    fits = lambda item: {data.bucket_of(item[0], p) for p in item[1]} == {5}
    return dict(list(filter(fits, dictionary.items()))[1000:1080])


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
    names = "pronounce, train, evaluate, baseline"
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
    assert_same(resumed, whole)
    lines = (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == entries


@pytest.fixture
def saved(params, tmp_path):
    model.save(tmp_path / "model.npz", SMALL, params)
    return tmp_path / "model.npz"


@pytest.mark.slow
def test_words_are_pronounced_and_drawn(saved, picture, capsys):
    flags = ["Cat", "o'clock", "--path", str(saved), "--figure", str(picture)]
    found = tyro.cli(pronounce.main, args=flags)
    assert list(found) == ["cat", "o'clock"]
    assert f"cat: {' '.join(found['cat'])}\n" in capsys.readouterr().out


def test_files_that_hold_no_net_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(2))
    (tmp_path / "text.npz").write_text("no arrays")
    (tmp_path / "part.npz").write_bytes(model.COMMITTED.read_bytes()[:100_000])
    for path in tmp_path.iterdir():
        with pytest.raises(SystemExit, match=r"not a complete file from g2p\.train"):
            model.load(path)


def flags(text):
    return lambda: tyro.cli(train.main, args=text.split())


REFUSALS = {
    "none.npz is not a file": lambda: model.load("none.npz"),
    "one or more files": lambda: model.load_all(()),
    "one or more words": lambda: pronounce.main(()),
    "must be 1 to 29 characters .*'naïve'": lambda: pronounce.main(("cat", "naïve")),
    "drop the other flags": lambda: train.main(config(), quick=True),
    "--units must be at least 1, got 0": flags("--units 0"),
    r"--dropout must be from 0 to below 1, got 1\.0": flags("--dropout 1"),
    "--learning-rate must be finite and above 0": flags("--learning-rate nan"),
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
    train.Log(path, 10).add(step=10)
    steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert steps == [5, 10]


def test_a_batch_must_be_filled():
    with pytest.raises(ValueError, match=r"`rows` must be at most 1, .* got 2"):
        data.Training({"a": [("AH",)]}, 2, seed=0)


@pytest.mark.slow
def test_the_committed_net_pronounces_words_that_it_was_not_trained_on(dictionary):
    net, params = model.load(model.COMMITTED)
    _, dev, _ = data.split(dictionary)
    some = dict(list(dev.items())[:600])
    search = functools.partial(decoding.beam_search, beams=4)
    found = decoding.pronounce((net,), (params,), some, search)
    assert scores.words_wrong(found, some).mean() < 0.3


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
    """Learns the lexicon by heart."""
    if "train" in command:
        *_, model, lexicon = command
        return model.write_text(lexicon.read_text())
    flags = dict(flag.split("=", 1) for flag in command if "=" in flag)
    lines = lambda flag: Path(flags[flag]).read_text().splitlines()
    known = dict(line.split("\t") for line in lines("--model"))
    found = lambda w: f"0.5\t{known[w]}" if w in known else "0\t"
    return "".join(f"{word}\t{found(word)}\n" for word in lines("--wordlist"))


@pytest.mark.slow
def test_evaluation_prints_its_tables(saved, words, tmp_path, monkeypatch, capsys):
    """And compares with Phonetisaurus, which knows all but 100 of the words."""
    monkeypatch.setattr(baseline, "run", fake_phonetisaurus)
    known = dict(list(words.items())[100:])
    part = dict(list(words.items())[50:150])
    monkeypatch.setattr(data, "split", lambda _: (known, part, words))
    rates = baseline.main(tmp_path)
    assert rates["Phonetisaurus, test"]["words wrong"][0] == 100 / 400
    assert rates["Phonetisaurus, dev"]["words wrong"][0] == 50 / 100
    other = tmp_path / "test.tsv"
    rates = evaluate.main((saved,), beams=2, wrong=3, against=other)
    assert list(rates) == ["greedy", "2 beams"]
    rate, low, high = rates["greedy"]["words wrong"]
    assert 0.9 < low <= rate <= high <= 1
    printed = capsys.readouterr().out
    assert printed.count("; right: ") == 3
    assert "minus the other system's 25.00 %: +7" in printed


# The dictionary.

SOURCE = """\
'tis T IH1 Z
a AH0
a(2) EY1
a.d. EY2 D IY1
aalborg AO1 L B AO0 R G # place, danish
abstract AE0 B S T R AE1 K T
abstract(2) AE1 B S T R AE2 K T
wi-fi W AY1 F AY0
"""


def test_what_is_kept_of_the_source():
    assert read(SOURCE.splitlines()) == [
        "'tis T IH Z",
        "a AH",
        "a EY",
        "aalborg AO L B AO R G",
        "abstract AE B S T R AE K T",
    ]


def test_the_dictionary(dictionary):
    assert len(dictionary) == WORDS
    assert sum(map(len, dictionary.values())) == PRONUNCIATIONS
    tomatoes = [" ".join(phonemes) for phonemes in dictionary["tomato"]]
    assert tomatoes == ["T AH M EY T OW", "T AH M AA T OW"]
    written = {p for each in dictionary.values() for p in sum(each, ())}
    assert written == set(data.PHONEMES)
    assert set("".join(dictionary)) == set(data.LETTERS)


@pytest.mark.slow
def test_no_word_is_in_two_parts(dictionary):
    train, dev, test = data.split(dictionary)
    assert (len(train), len(dev), len(test)) == (110_256, 2_670, 12_000)
    assert {**train, **dev, **test} == dictionary
    # As it was when the committed model was trained.
    assert list(test)[:3] == ["dismore", "evander", "vantrease"]
    assert data.split(dict(sorted(dictionary.items(), reverse=True)))[2] == test


@pytest.fixture(scope="module")
def training(dictionary):
    some = dict(list(dictionary.items())[:3000])
    return some, data.Training(some, 16, seed=3)


def test_a_batch_holds_words_with_their_pronunciations(training):
    words, batches = training
    for n in range(5):
        batch = batches[n]
        assert batch.letters.shape == batch.phonemes.shape
        assert batch.letters.shape[0] == 16
        assert batch.letters.shape[1] in data.BUCKETS
        for letters, letter_count, phonemes, count in zip(*batch, strict=True):
            word = "".join(data.LETTERS[k - 1] for k in letters[:letter_count])
            assert data.to_phonemes(phonemes) in words[word]
            assert phonemes[count - 1] == data.END
            assert phonemes[: count - 1].all()
            assert not letters[letter_count:].any()
            assert not phonemes[count:].any()


def test_an_epoch_reads_each_pair_once_at_most(training):
    words, batches = training
    rows = [
        (*letters.tolist(), -1, *phonemes.tolist())
        for n in range(batches.per_epoch)
        for letters, _, phonemes, _ in zip(*batches[n], strict=True)
    ]
    pairs = sum(map(len, words.values()))
    assert len(set(rows)) == len(rows) > pairs - 16 * len(data.BUCKETS)


def test_a_batch_depends_on_its_number_and_the_seed_alone(training):
    words, batches = training
    n = batches.per_epoch + 2
    assert_same(data.Training(words, 16, seed=3)[n], batches[n])
    other = data.Training(words, 16, seed=4)[n]
    assert not np.array_equal(batches[n].letters, other.letters)
    assert not np.array_equal(batches[n].letters, batches[2].letters)
