"""The main job, in small: it trains, tests, draws, saves, reads back, and repeats."""

import dataclasses
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


SHORT = ("--epochs", "2", "--units", "16")
TWO = (*SHORT, "--seeds", "2")


def test_two_epochs(tmp_path, capsys):
    results = run(tmp_path, *TWO, "--learning-rate", "0.01")
    said = capsys.readouterr().out
    assert len(results["accuracies"]) == 2
    assert min(results["accuracies"]) > 0.5  # One guess in nine is right by chance.
    assert "Seed 1: test accuracy" in said
    assert "standard deviation" in said
    picture = tmp_path / "out" / "japanese_vowels.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
    # Weights are read back as they were, and hold no code.
    files = [p for p in (tmp_path / "out" / "checkpoint").rglob("*") if p.is_file()]
    assert files
    assert not any(p.suffix in {".pkl", ".pickle"} for p in files)


def test_same_seed_same_result(tmp_path):
    flags = (*TWO, "--cell", "GRUCell", "--direction", "forward")
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


@pytest.mark.parametrize(
    ("flag", "value", "wanted"),
    [
        ("--units", "abc", "an integer, at least 1, got 'abc'"),
        ("--epochs", "0", "an integer, at least 1, got '0'"),
        ("--batch-size", "2.5", "an integer, at least 1, got '2.5'"),
        ("--seed", "-1", "an integer from 0"),
        ("--learning-rate", "nan", "a finite number above 0, got 'nan'"),
        ("--learning-rate", "-1", "a finite number above 0, got '-1'"),
        ("--dropout", "1.5", "a number from 0 to 1, got '1.5'"),
        ("--smoothing", "2", "a number from 0 to 1, got '2'"),
        ("--noise", "-1", "a finite number, at least 0, got '-1'"),
        ("--shift", "inf", "a finite number, at least 0, got 'inf'"),
    ],
)
def test_a_bad_value_is_refused_by_its_flag(flag, value, wanted, capsys):
    with pytest.raises(SystemExit):
        japanese_vowels.main([flag, value])
    assert f"argument {flag}: must be {wanted}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ("--seeds", "5", "--ensemble", "2"),  # Five is the default, but it is given.
        ("--seeds", "3", "--cross-validate"),
        ("--ensemble", "--cross-validate"),
        ("--output", "anywhere", "--cross-validate"),
    ],
)
def test_no_flag_is_ignored(flags, capsys):
    with pytest.raises(SystemExit):
        japanese_vowels.main(flags)
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["taken", "taken/below"])
def test_the_folder_is_made_before_the_training(name, tmp_path, monkeypatch, capsys):
    monkeypatch.delattr(japanese_vowels, "fit")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SystemExit):
        japanese_vowels.main(["--output", str(tmp_path / name)])
    assert f"--output: cannot write to {tmp_path / name}: " in capsys.readouterr().err


def test_help_explains_every_flag(capsys):
    with pytest.raises(SystemExit):
        japanese_vowels.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for item in dataclasses.fields(japanese_vowels.Config):
        assert item.metadata["help"] in said
    assert "default: japanese_vowels_output" in said


def test_the_data_are_those_of_the_paper():
    train, test = japanese_vowels_data.load()
    assert [len(part.labels) for part in (train, test)] == [270, 370]
    assert np.bincount(train.labels).tolist() == [30] * 9
    assert np.bincount(test.labels).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert (train.lengths.min(), train.lengths.max()) == (7, 26)
    assert (test.lengths.min(), test.lengths.max()) == (7, 29)
