"""The memory benchmark runs, agrees on the gradients, and says so."""

import importlib
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # The benchmarks are no part of the package.
command, quiet = (
    importlib.import_module(f"benchmarks.{name}")
    for name in ("memory.__main__", "race")
)
STRATEGIES = [
    "keep",
    "sqrt",
    "offload keep",
    "True",
    "by hand, chunks",
]


def measure(folder, *arguments):
    """As a user starts it."""
    program = [sys.executable, "-m", "benchmarks.memory", "--preset", "smoke"]
    return subprocess.run(
        [*program, "--out", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def test_strategies_and_then_a_few_more(tmp_path, monkeypatch, users_flags):
    monkeypatch.setattr(quiet, "LOOKS", 1)  # Beside other tests it is never quiet.
    names = f"^({'|'.join(STRATEGIES)})$"
    where = ["--preset", "smoke", "--out", str(tmp_path)]
    command.main([*where, "--steps", "128", "--only", names])
    table = (tmp_path / "memory_smoke.md").read_text()
    for name in STRATEGIES:
        assert table.count(f"\n| {name} | ") == 1, name
    assert (tmp_path / "memory_smoke.png").stat().st_size > 10_000

    # Of `keep` 50 kB are too much; what is saved stays.
    run = measure(tmp_path, "--resume", "--only", "^sqrt$", "--limit", "0.00005")
    assert run.returncode == 0, run.stderr
    assert "`keep`: compiled, not run: needs" in run.stdout
    few, all_of_them = json.loads((tmp_path / "memory_smoke.json").read_text())["cases"]
    check_few(few)
    check_all(all_of_them)


def check_all(row):
    assert row["case"]["steps"] == 128
    assert list(row["strategies"]) == STRATEGIES
    ran = {n: r for n, r in row["strategies"].items() if "same_as" not in r}
    assert {"keep", "sqrt", "by hand, chunks"} <= ran.keys()
    for name, strategy in ran.items():
        assert strategy["difference"] < 1e-5, name
        assert len(strategy["ms"]) == 1, name
    assert ran["sqrt"]["temp_bytes"] < ran["keep"]["temp_bytes"] / 2


def check_few(row):
    assert row["case"]["steps"] == 64
    assert list(row["strategies"]) == ["keep", "sqrt"]
    keep, sqrt = row["strategies"].values()
    assert "more than 5e-05 GB" in keep["left_out"]
    assert sqrt["reference"] == "sqrt"
