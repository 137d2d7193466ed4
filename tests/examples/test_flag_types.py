"""Every flag refuses what it does not accept, by its name and with the reason."""

import importlib
import re

import pytest
import tyro

SCRIPTS = (
    "attention",
    "decoder",
    "draw_lengths",
    "flax_linen",
    "flax_nnx",
    "japanese_vowels",
    "long_memory",
)
COUNT, FINITE = "an integer, at least 1", "a finite number"


@pytest.mark.parametrize(
    ("script", "flag", "value", "wanted"),
    [
        ("attention", "--steps", "-1", f"{COUNT}, got '-1'"),
        ("decoder", "--examples", "3999", "an integer from 1 to 3989, got '3999'"),
        ("decoder", "--sampling", "nan", "a number from 0 to 1, got 'nan'"),
        ("flax_linen", "--units", "0", f"{COUNT}, got '0'"),
        ("flax_nnx", "--epochs", "many", f"{COUNT}, got 'many'"),
        ("japanese_vowels", "--units", "abc", f"{COUNT}, got 'abc'"),
        ("japanese_vowels", "--epochs", "0", f"{COUNT}, got '0'"),
        ("japanese_vowels", "--batch-size", "2.5", f"{COUNT}, got '2.5'"),
        ("japanese_vowels", "--seed", "-1", "an integer from 0 to 2147483647"),
        ("japanese_vowels", "--learning-rate", "nan", f"{FINITE} above 0, got 'nan'"),
        ("japanese_vowels", "--learning-rate", "-1", f"{FINITE} above 0, got '-1'"),
        ("japanese_vowels", "--dropout", "1.5", "a number from 0 to 1, got '1.5'"),
        ("japanese_vowels", "--smoothing", "2", "a number from 0 to 1, got '2'"),
        ("japanese_vowels", "--noise", "-1", f"{FINITE}, at least 0, got '-1'"),
        ("japanese_vowels", "--shift", "inf", f"{FINITE}, at least 0, got 'inf'"),
        ("long_memory", "--steps", "1", "an integer, at least 2, got '1'"),
        ("long_memory", "--limit-gb", "0", f"{FINITE} above 0, got '0'"),
    ],
)
def test_a_bad_number(script, flag, value, wanted, refusal):
    main = importlib.import_module(script).main
    assert f"Error parsing {flag}: must be {wanted}" in refusal(main, flag, value)


@pytest.mark.parametrize(
    ("script", "flag", "choices"),
    [
        (
            "japanese_vowels",
            "--cell",
            ("BasicLSTMCell", "BasicRNNCell", "GRUCell", "LSTMCell"),
        ),
        ("long_memory", "--strategy", ("keep", "recompute", "nested", "offload")),
    ],
)
def test_a_wrong_choice_names_the_right_ones(script, flag, choices, refusal):
    printed = refusal(importlib.import_module(script).main, flag, "LSTM")
    assert f"invalid choice 'LSTM' for argument '{flag}'" in printed
    for name in choices:
        assert name in printed


@pytest.mark.parametrize("script", ["attention", "draw_lengths", "long_memory"])
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a.doc", "must end in one of"),
        ("nowhere/a.png", "cannot write to nowhere/a.png: No such file or directory"),
        ("folder.png", "folder.png is a folder"),
    ],
)
def test_a_picture_is_refused_before_the_training(
    script, name, wanted, refusal, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    flag = "--figure" if script == "long_memory" else "--output"
    printed = refusal(importlib.import_module(script).main, flag, name)
    assert f"Error parsing {flag}: {wanted}" in printed


@pytest.mark.parametrize("name", ["taken", "taken/below"])
def test_a_folder_is_made_before_the_training(name, refusal, tmp_path, monkeypatch):
    import japanese_vowels

    monkeypatch.delattr(japanese_vowels, "fit")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    printed = refusal(japanese_vowels.main, "--output", name)
    assert f"Error parsing --output: cannot write to {name}: " in printed


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains_every_flag(script, capsys):
    module = importlib.import_module(script)
    with pytest.raises(SystemExit) as exit_info:
        tyro.cli(module.main, args=["--help"], description=module.__doc__)
    assert exit_info.value.code == 0
    printed = capsys.readouterr().out
    assert module.__doc__.splitlines()[0] in " ".join(printed.split())
    helps = re.split(r"\n\W+--(?=\w)", printed)[1:]
    assert helps
    for text in helps:
        flag, *words = text.replace("│", " ").split()
        assert len(words) > 5, flag
        assert "(default:" in text
