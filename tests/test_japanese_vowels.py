"""The main job, in small: it trains, tests, draws, saves, reads back, and repeats."""

import json

import japanese_vowels
import japanese_vowels_data
import jax
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def usual_settings():
    """A user's JAX, not the suite's."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        with jax.numpy_rank_promotion("allow"):
            yield


def run(tmp_path, *flags):
    return japanese_vowels.main(["--output", str(tmp_path / "out"), *flags])


SHORT = ("--epochs", "2", "--seeds", "2", "--units", "16")


def test_two_epochs(tmp_path, capsys):
    results = run(tmp_path, *SHORT, "--learning-rate", "0.01")
    said = capsys.readouterr().out
    assert len(results["accuracies"]) == 2
    assert min(results["accuracies"]) > 0.5  # One guess in nine is right by chance.
    assert "Seed  1: test accuracy" in said
    assert "standard deviation" in said
    picture = tmp_path / "out" / "japanese_vowels.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
    # Weights are read back as they were, and hold no code.
    files = [p for p in (tmp_path / "out" / "checkpoint").rglob("*") if p.is_file()]
    assert files
    assert not any(p.suffix in {".pkl", ".pickle"} for p in files)


def test_same_seed_same_result(tmp_path):
    flags = (*SHORT, "--cell", "GRUCell", "--direction", "forward")
    first, second = (run(tmp_path / str(i), *flags) for i in range(2))
    assert first == second
    assert first != run(tmp_path / "other", *flags, "--seed", "7")


def test_ensemble_averages(tmp_path, capsys):
    results = run(tmp_path, *SHORT, "--ensemble", "3")
    assert len(results["accuracies"]) == 3
    assert results["ensemble"] >= min(results["accuracies"])
    assert "Ensemble of 3" in capsys.readouterr().out


def test_cross_validation_never_sees_the_test_set(monkeypatch):
    train, test = japanese_vowels_data.load()
    test.frames[:] = np.nan
    test.labels[:] = -1
    monkeypatch.setattr(japanese_vowels, "load", lambda: (train, test))
    results = japanese_vowels.main(["--cross-validate", "1", "--epochs", "1"])
    assert 0 < results["held_out"] < 1


def test_an_unknown_cell_is_told_the_choices(capsys):
    with pytest.raises(SystemExit):
        japanese_vowels.main(["--cell", "LSTM"])
    said = capsys.readouterr().err
    for name in ("BasicLSTMCell", "BasicRNNCell", "GRUCell", "LSTMCell"):
        assert name in said


def test_the_data_are_those_of_the_paper():
    train, test = japanese_vowels_data.load()
    assert [len(part.labels) for part in (train, test)] == [270, 370]
    assert np.bincount(train.labels).tolist() == [30] * 9
    assert np.bincount(test.labels).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert (train.lengths.min(), train.lengths.max()) == (7, 26)
    assert (test.lengths.min(), test.lengths.max()) == (7, 29)
