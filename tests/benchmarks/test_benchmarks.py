"""The race runs, and its peers agree on the numbers."""

import importlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # The benchmarks are not part of the package.
(
    command,
    rounds,
    layouts,
    race_tables,
    memory_tables,
    compilation_tables,
    recurrence_tables,
) = (
    importlib.import_module(f"benchmarks.{name}")
    for name in (
        "race.__main__",
        "core.rounds",
        "core.layouts",
        "race.tables",
        "memory.tables",
        "compilation.tables",
        "recurrences.tables",
    )
)


@pytest.fixture
def race(monkeypatch, users_flags):
    """The command; the peers have processes of their own, as always."""
    monkeypatch.setattr(rounds, "LOOKS", 1)  # Beside other tests it is never quiet.
    return lambda *arguments: command.main(["--preset", "smoke", *arguments])


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("two_cores", race_tables),
        ("modules", race_tables),
        ("native", race_tables),
        ("memory", memory_tables),
        ("compilation_full", compilation_tables),
        ("recurrences", recurrence_tables),
    ],
)
def test_saved_results_give_the_saved_tables(name, tables, tmp_path):
    file = ROOT / "benchmarks" / "results" / f"{name}.json"
    result = json.loads(file.read_text())
    lines = lambda text: [line for line in text.splitlines() if line.startswith("|")]
    assert lines(tables.write_report(result)) == lines(
        file.with_suffix(".md").read_text()
    )
    tables.draw(result, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_a_reader_inverts_a_layout_with_flipped_signs_and_constants():
    rng = np.random.default_rng(0)
    layers = [
        {"kernel": rng.standard_normal((5, 8)), "bias": rng.standard_normal(8)}
        for _ in range(2)
    ]

    def to_params(layers):
        return [
            {"w": [layer["kernel"].T, -layer["bias"]], "b": np.ones(3)}
            for layer in layers
        ]

    read = layouts.reader(to_params, layers)
    for layer, again in zip(layers, read(to_params(layers)), strict=True):
        for name in layer:
            np.testing.assert_array_equal(layer[name], again[name])


def test_a_reader_of_gates_adds_the_forget_bias_as_the_peer_does():
    weights = {"kernel": np.zeros((3, 4)), "bias": np.zeros(4)}

    def to_params(layers):
        gates = layouts.to_gates("lstm", layers[0], 1)
        return dict(zip("xhb", layouts.side_by_side(gates, "ifgo"), strict=True))

    [read] = layouts.reader(to_params, [weights])(to_params([weights]))
    np.testing.assert_array_equal(read["bias"], [0, 0, 1, 0])  # Blocks i, g, f, o.
