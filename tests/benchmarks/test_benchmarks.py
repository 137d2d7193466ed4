"""The races run, agree on the numbers, and say so."""

import importlib
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # The benchmarks are no part of the package.
command, quiet = (
    importlib.import_module(f"benchmarks.{name}") for name in ("__main__", "race")
)


@pytest.fixture
def race(monkeypatch, users_flags):
    """The command; the peers have processes of their own, as always."""
    monkeypatch.setattr(quiet, "LOOKS", 1)  # Beside other tests it is never quiet.
    return lambda *arguments: command.main(["--preset", "smoke", *arguments])


def test_a_small_race(race, tmp_path):
    where = ["--out", str(tmp_path), "--rounds", "2", "--only", "^lstm B3"]
    race(*where, "--peers", "jaxrnn,packed,scan")
    result = json.loads((tmp_path / "smoke.json").read_text())
    assert [row["name"] for row in result["cases"]] == [
        "lstm B3 T8 D4 H5 uniform forward",
        "lstm B3 T8 D4 H5 uniform train",
    ]
    for row in result["cases"]:
        for name in ("jaxrnn", "packed", "scan"):
            assert row["peers"][name]["agreement"]["same"], name
            assert len(row["peers"][name]["ms"]) == 2
    table = (tmp_path / "smoke.md").read_text()
    assert "same numbers: yes" in table
    assert (tmp_path / "smoke.png").stat().st_size > 10_000
    check_that_it_compares(tmp_path / "smoke.json")


def check_that_it_compares(old):
    """A race of one case, as a user starts it, with what was saved before."""
    where = ["--out", str(old.parent), "--name", "again", "--rounds", "1"]
    what = ["--only", "^lstm B3.*forward", "--peers", "jaxrnn", "--compare", str(old)]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--preset", "smoke", *where, *what],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    assert "lstm B3 T8 D4 H5 uniform forward: " in run.stdout


def test_the_gru_that_resets_after_is_the_same_equation_for_all(race, tmp_path):
    names = ["jaxrnn", "jaxrnn_linen", "jaxrnn_nnx", "linen", "nnx"]
    where = ["--out", str(tmp_path), "--rounds", "1"]
    race(*where, "--peers", ",".join(names), "--only", "^gru_after")
    (row,) = json.loads((tmp_path / "smoke.json").read_text())["cases"]
    for name, ran in row["peers"].items():
        assert ran["equation"] == "", name
        assert ran["agreement"]["same"], name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peers", "jaxrnn,caffe"], "unknown peer 'caffe'; known: jaxrnn"),
        (["--only", "^mamba"], "no case of 'smoke' matches '^mamba'"),
    ],
)
def test_wrong_arguments_name_what_there_is(race, arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        race(*arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
