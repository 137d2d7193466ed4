"""The memory benchmark runs, and its strategies agree on the gradients."""

import contextlib
import dataclasses
import importlib
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # The benchmarks are not part of the package.
command, cases, measure_module, peak, rounds = (
    importlib.import_module(f"benchmarks.{name}")
    for name in (
        "memory.__main__",
        "memory.cases",
        "memory.measure",
        "memory.peak",
        "core.rounds",
    )
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


@pytest.mark.slow
def test_strategies_and_then_a_few_more(tmp_path, monkeypatch, users_flags):
    monkeypatch.setattr(rounds, "LOOKS", 1)  # Beside other tests it is never quiet.
    names = f"^({'|'.join(STRATEGIES)})$"
    where = ["--preset", "smoke", "--out", str(tmp_path)]
    command.main([*where, "--steps", "128", "--only", names])
    table = (tmp_path / "memory_smoke.md").read_text()
    for name in STRATEGIES:
        assert table.count(f"\n| {name} | ") == 1, name
    assert (tmp_path / "memory_smoke.png").stat().st_size > 10_000

    # `keep` needs more than 50 kB; the saved case is kept.
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


@pytest.mark.slow
def test_the_peak_of_a_process_that_trains(monkeypatch):
    small = dataclasses.replace(peak.CASE, steps=64, units=8)
    monkeypatch.setattr(peak, "CASE", small)
    found = peak.train()
    assert found["steps"] == 64
    assert len(found["losses"]) == found["training_steps"]
    assert found["losses"][-1] < found["losses"][0]
    assert found["peak_rss"] >= found["start_rss"] > 0


def test_sizes_of_a_preset_can_be_changed():
    options = command.parse(["--preset", "full", "--steps", "20000", "--units", "9"])
    [case] = options.cases
    assert case.name == "T20000 B8 D2 H9 final"  # Narrow inputs, as at 31,623 steps.
    assert case.rounds == 1
    with pytest.raises(SystemExit):
        command.parse(["--rounds", "0"])


class FakeWorker:
    """Answers as a worker; dies at strategies that are called so."""

    def ask(self, do, name="", **request):
        if name == "dies":
            return {"failed": "the process died: killed", "died": True}
        sizes = dict.fromkeys(("temp_bytes", "argument_bytes", "output_bytes"), 1)
        return {
            "compile": {"program": name, **sizes},
            "first": {"ms": 2.0, "peak_bytes": None},
            "time": {"ms": 1.0},
            "differences": {"keep": 0.0, "sqrt": 1e-7},
        }.get(do, {})


def test_a_case_starts_again_without_what_ended_its_process(monkeypatch):
    monkeypatch.setattr(rounds, "wait_for_quiet", lambda: 0.0)
    started = []

    @contextlib.contextmanager
    def worker():
        started.append(FakeWorker())
        yield started[-1]

    monkeypatch.setattr(measure_module, "worker", worker)
    case = cases.PRESETS["smoke"].case(64, loss="final", dtype="float32")
    names = ["keep", "dies", "sqrt"]
    row = measure_module.run_case(case, names, limit=10, tick=lambda what: None)
    assert len(started) == 2
    assert list(row["strategies"]) == names
    assert row["strategies"]["dies"] == {"failed": "the process died: killed"}
    for name in ("keep", "sqrt"):
        assert row["strategies"][name]["ms"] == [1.0]
        assert row["strategies"][name]["reference"] == "keep"
