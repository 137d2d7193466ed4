"""The main example, in small: it trains, tests, draws, saves, and repeats."""

import json

import japanese_vowels
import japanese_vowels_data
import numpy as np
import pytest
from japanese_vowels import Config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_settings")]
SMALL = {"epochs": 2, "units": 16}
WRITTEN = "japanese_vowels.png", "checkpoint", "results.json"


def test_two_epochs(tmp_path, capsys):
    config = Config(**SMALL, learning_rate=0.01)
    results = japanese_vowels.main(config, seeds=3, output=tmp_path / "out")
    printed = capsys.readouterr().out
    assert len(results["accuracies"]) == 3
    assert min(results["accuracies"]) > 0.5  # One guess in nine is right by chance.
    assert "Seed 1: test accuracy" in printed
    assert "standard deviation" in printed
    assert results["ensemble"] >= min(results["accuracies"])
    assert "Ensemble of 3" in printed
    written = [str(tmp_path / "out" / name) for name in WRITTEN]
    assert printed.splitlines()[-3:] == written
    picture = tmp_path / "out" / "japanese_vowels.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
    # Weights are read as they were written, and the files contain no code.
    files = [p for p in (tmp_path / "out" / "checkpoint").rglob("*") if p.is_file()]
    assert files
    assert not any(p.suffix in {".pkl", ".pickle"} for p in files)


def test_same_seed_same_result(tmp_path):
    config = Config(**SMALL, cell="GRUCell", direction="forward")

    def run(name, seed=0):
        return japanese_vowels.main(config, 2, seed, output=tmp_path / name)

    first, second = run("first"), run("second")
    assert first == second
    assert first != run("other", seed=7)


def test_cross_validation_never_reads_the_test_set(monkeypatch, tmp_path):
    train, test = japanese_vowels_data.load()
    test.frames[:] = np.nan
    test.labels[:] = -1
    monkeypatch.setattr(japanese_vowels_data, "load", lambda: (train, test))
    results = japanese_vowels.main(
        Config(epochs=1, units=16), seeds=1, cross_validate=True, output=tmp_path
    )
    assert 0 < results["held_out"] < 1
    assert 0 < results["log_loss"] < np.inf
    [written] = tmp_path.iterdir()  # No flag is ignored: seeds and output count here.
    assert json.loads(written.read_text()) == results


def test_a_batch_larger_than_the_training_set_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="--batch-size: at most 270, got 300"):
        japanese_vowels.main(Config(batch_size=300), output=tmp_path)


def test_the_data_are_those_of_the_paper():
    train, test = japanese_vowels_data.load()
    assert [len(part.labels) for part in (train, test)] == [270, 370]
    assert np.bincount(train.labels).tolist() == [30] * 9
    assert np.bincount(test.labels).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert (train.lengths.min(), train.lengths.max()) == (7, 26)
    assert (test.lengths.min(), test.lengths.max()) == (7, 29)


def test_batches_go_through_all_utterances_once_an_epoch():
    first, second, again = (
        japanese_vowels_data.batches(23, 5, epochs=2, seed=seed) for seed in (0, 1, 0)
    )
    assert [rows.shape for rows in first] == [(5,)] * 8
    for epoch in (first[:4], first[4:]):
        assert len(np.unique(epoch)) == 20
    np.testing.assert_array_equal(first, again)
    assert np.any(np.array(first) != np.array(second))
    with pytest.raises(ValueError, match="at most 4 utterances, got 5"):
        japanese_vowels_data.batches(4, 5, epochs=2, seed=0)
