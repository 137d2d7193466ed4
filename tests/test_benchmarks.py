"""The races run, agree on the numbers, and say so."""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def race(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "--preset", "smoke", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def test_a_small_race(tmp_path):
    where = ["--out", str(tmp_path), "--rounds", "2", "--only", "^lstm B3"]
    run = race(*where, "--peers", "jaxrnn,packed,scan")
    assert run.returncode == 0, run.stderr
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
    again = race(*where, "--peers", "jaxrnn", "--compare", str(tmp_path / "smoke.json"))
    assert again.returncode == 0, again.stderr


def test_the_gru_that_resets_after_is_the_same_equation_for_all(tmp_path):
    names = ["jaxrnn", "jaxrnn_linen", "jaxrnn_nnx", "linen", "nnx"]
    where = ["--out", str(tmp_path), "--rounds", "1"]
    run = race(*where, "--peers", ",".join(names), "--only", "^gru_after")
    assert run.returncode == 0, run.stderr
    (row,) = json.loads((tmp_path / "smoke.json").read_text())["cases"]
    for name, ran in row["peers"].items():
        assert ran["equation"] == "", name
        assert ran["agreement"]["same"], name


def test_wrong_arguments_name_what_there_is():
    for arguments, message in (
        (["--peers", "jaxrnn,caffe"], "unknown peer 'caffe'; known: jaxrnn"),
        (["--only", "^mamba"], "no case of 'smoke' matches '^mamba'"),
    ):
        run = race(*arguments)
        assert run.returncode == 2
        assert message in run.stderr
