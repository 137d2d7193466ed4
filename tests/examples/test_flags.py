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
    "mnist_1d",
    "state_tracking",
)


def refusal_of(script, flags, capsys):
    """What a script prints, on one line, as it exits because of its flags."""
    main = importlib.import_module(script).main
    with pytest.raises(SystemExit) as exit_info:
        tyro.cli(main, args=flags.split())
    assert exit_info.value.code == 2
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("script", "flag", "wanted"),
    [
        ("attention", "--steps -1", "must be an integer, at least 1, got '-1'"),
        ("decoder", "--examples 3999", "must be an integer from 1 to 3989, got '3999'"),
        ("decoder", "--sampling nan", "must be a number from 0 to 1, got 'nan'"),
        ("flax_nnx", "--epochs many", "must be an integer, at least 1, got 'many'"),
        ("japanese_vowels", "--seed -1", "must be an integer from 0 to 2147483647"),
        ("japanese_vowels", "--learning-rate nan", "must be a finite number above 0"),
        ("japanese_vowels", "--dropout 1.5", "must be a number from 0 to 1, got '1.5'"),
        ("japanese_vowels", "--shift inf", "must be a finite number, at least 0, got"),
        ("long_memory", "--steps 1", "must be an integer, at least 2, got '1'"),
        ("long_memory", "--limit-gb 0", "must be a finite number above 0, got '0'"),
        ("attention", "--output a.doc", "must end in one of"),
        ("draw_lengths", "--output no/a.png", "cannot write to no/a.png: No such file"),
        ("long_memory", "--figure folder.png", "must be a file, but folder.png is a"),
        ("japanese_vowels", "--output taken", "cannot write to taken: "),
        ("japanese_vowels", "--output taken/below", "cannot write to taken/below: "),
    ],
)
def test_a_bad_value(script, flag, wanted, capsys, tmp_path, monkeypatch):
    """Files and folders are refused before the training, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "taken").write_text("a file")
    printed = refusal_of(script, flag, capsys)
    assert f"Error parsing {flag.split()[0]}: {wanted}" in printed


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
