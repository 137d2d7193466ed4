"""The benchmark of kernels runs, and its report names what it left out."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # The benchmarks are not part of the package.
accelerator, bounds, cases, command, ours, tables = (
    importlib.import_module(f"benchmarks.accelerator{name}")
    for name in ("", ".bounds", ".cases", ".__main__", ".ours", ".tables")
)
built, core_cases, process, report = (
    importlib.import_module(f"benchmarks.core.{name}")
    for name in ("built", "cases", "process", "report")
)

KERNEL = "pallas_mosaic_tpu"
LSTM = core_cases.Case(
    "lstm", 16, 1024, 768, 768, group="accelerator", arithmetic="bfloat16"
)


def measure(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.accelerator", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""},
    )


@pytest.mark.slow
def test_a_small_race(tmp_path, users_flags):
    where = ["--preset", "smoke", "--out", str(tmp_path), "--rounds", "1"]
    peers = ["--peers", f"{KERNEL},scan,torch", "--only", "^gru_after"]
    run = measure(*where, *peers, "--machines", "v5e")
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "accelerator_cpu.json").read_text())
    names = [c.name for c in cases.PRESETS["smoke"] if c.cell == "gru_after"]
    assert [row["name"] for row in result["cases"]] == names
    for row in result["cases"]:
        assert list(row["peers"]) == ["xla", KERNEL, "scan"]
        assert "runs on tpu" in row["peers"].pop(KERNEL)["left_out"]
        for name, ran in row["peers"].items():
            assert ran["agreement"]["same"], (row["name"], name)
            assert len(ran["ms"]) == 1
            assert ran["facts"]["temp_bytes"] > 0
    table = (tmp_path / "accelerator_cpu.md").read_text()
    assert "Device: cpu." in table
    for name in names:
        assert table.count(f"\n| {name} | ") == 3, name  # Memory, numbers, bound.
    assert "**No kernel was measured here: this is a CPU.**" in table
    assert "\n1 case, 1 round each." in table
    assert "\n- torch: " in table
    assert (tmp_path / "accelerator_cpu.png").stat().st_size > 10_000


@pytest.mark.slow
def test_without_an_accelerator_only_smoke_runs():
    run = measure("--preset", "quick", "--peers", "xla")
    assert run.returncode == 1
    assert "JAX sees no accelerator" in run.stderr


def test_wrong_arguments_name_what_there_is(capsys):
    for arguments, message in (
        (["--peers", "caffe"], "unknown peer 'caffe'; known: xla, "),
        (["--machines", "h1"], "`machine` must be one of v4, "),
    ):
        with pytest.raises(SystemExit) as caught:
            command.main(arguments)
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


def test_the_names_are_all_that_explain_knows():
    verdicts = bounds.explain(LSTM, "v5e").verdicts
    on_one = [v.implementation for v in verdicts if v.reason != "runs on cpu"]
    assert accelerator.IMPLEMENTATIONS == tuple(on_one)


@pytest.mark.parametrize(
    ("kernel", "case", "reason"),
    [
        (KERNEL, ("lstm", 8, 4, 16, 65536), "the smallest tile needs"),
        (KERNEL, ("lstm", 2, 3, 4, 5), "runs on tpu, and this is compiled for cpu"),
        ("pallas_triton", ("lstm", 2, 3, 4, 5), "runs on cuda, and this is"),
        ("cudnn", ("lstm", 2, 3, 4, 5), "finds no NVIDIA GPU here"),
        ("cudnn", ("gru_after", 2, 3, 4, 5), "CudnnCompatibleGRUCell is not one"),
    ],
)
def test_a_kernel_that_cannot_run_says_why(kernel, case, reason):
    case = core_cases.Case(*case, group="accelerator")
    assert reason in ours.why_not(case, kernel)
    with pytest.raises(built.LeftOutError, match=reason):
        ours.build(case, None, kernel)


def test_cudnn_names_the_dtype_that_it_declines():
    reason = ours.why_not(LSTM, "cudnn")
    assert reason.endswith("it computes in float32, got bfloat16.")


def ran(*ms, variant="", same=True):
    """A peer that took so many milliseconds in each round."""
    return {
        "ms": list(ms),
        "variant": variant,
        "equation": "",
        "facts": {"temp_bytes": 2**20, "output_bytes": 2**21},
        "agreement": {"reference": "xla", "deviation": 0.5, "same": same},
    }


def made_up(machine="h100", **peers):
    """A result of one case on a device that the planner knows."""
    row = {"name": LSTM.name, "case": LSTM.as_dict(), "busy": [], "peers": peers}
    device = {
        "platform": "cuda",
        "kind": "NVIDIA H100",
        "machine": "h100",
        "software": {"driver": "580"},
    }
    return {
        "name": "accelerator_nvidia_h100",
        "rounds": 3,
        "date": "2026-01-01",
        "machine": {},
        "device": device,
        "versions": {"xla": {"jax": "1"}},
        "missing": {"linen": "No module named 'flax'"},
        "cases": [row],
        "bounds": {machine: bounds.bounds([row], machine)},
    }


def test_ratios_of_made_up_times(tmp_path):
    result = made_up(
        xla=ran(20.0, 40.0, 20.0),
        pallas_mosaic_tpu={"left_out": "declines: too large"},
        scan={"failed": "RESOURCE_EXHAUSTED: of 99 bytes\nand more"},
        torch=ran(5.0, 40.0, 10.0, same=False),
    )
    [best] = result["bounds"]["h100"].values()
    assert 0 < best["ahead"] < best["xla"]
    text = tables.write_report(result)
    assert f"| {LSTM.label} | 20 | failed | 0.50 (0.38-0.75)† |" in text
    assert f"| {LSTM.name} | 3 | 1.00 |" in text  # MiB, results included.
    measured = f"{20 / best['xla']:.2f} | {10 / best['ahead']:.2f} |"
    assert f"| {best['xla']:.3g} | {best['ahead']:.3g} | {measured}" in text
    for line in (
        "driver: 580",
        "- linen: No module named 'flax'",
        f"- {KERNEL}: declines: too large",
        "- scan: out of memory",
    ):
        assert line in text
    tables.draw(result, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_bounds_of_another_machine_stand_alone():
    text = tables.write_report(made_up("v5e", xla=ran(1.0, 1.0, 1.0)))
    assert "## At best on v5e" in text
    assert "÷ best" not in text


def test_bounds_by_default_are_those_of_the_device():
    known = {"platform": "cuda", "machine": "h200"}
    assert list(command.default_machines(known)) == ["h200"]
    assert command.default_machines(known | {"machine": None}) == command.USUAL
    assert not command.default_machines({"platform": "cpu", "machine": None})


def test_the_head_says_whether_a_kernel_was_measured():
    def head(**peers):
        return tables.write_report(made_up(xla=ran(1.0), **peers)).partition("##")[0]

    assert "**No kernel was measured here: none ran on this device.**" in head()
    assert "No kernel" not in head(pallas_triton=ran(1.0))


def test_a_reason_names_its_cases_unless_they_are_all():
    said = [("a", "x", "1"), ("a", "x", "2"), ("b", "y", "1"), ("c", "z", "2")]
    assert report.by_reason(said[:2], 2) == "- a: x"
    assert report.by_reason(said, 3).splitlines() == [
        "- a in 2 of 3 cases (1 and 1 more): x",
        "- b in 1 of 3 cases (1): y",
        "- c in 1 of 3 cases (2): z",
    ]


def test_panels_without_a_case_are_not_drawn():
    of = lambda cell, mode: {"case": {"cell": cell, "mode": mode}}
    rows = [of("lstm", "train"), of("gru", "forward"), of("gru", "train")]
    lines = tables.lines_of({"cases": [*rows, rows[0]]})
    assert lines == [[[rows[0]] * 2], [[rows[1]], [rows[2]]]]


def test_help_says_what_presets_take(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, chosen in cases.PRESETS.items():
        assert f"{name} has {len(chosen)} and takes {cases.TAKES[name]}" in text
    assert "no kernel runs there" in text


class FakeProcess:
    """Counts itself, and answers."""

    def __init__(self, started):
        started.append(self)

    def ask(self, peer, do):
        assert do == "hello"
        return {"missing": "no such peer"} if peer == "linen" else {"versions": {}}

    def close(self):
        self.closed = True


@pytest.mark.parametrize(("shared", "count"), [(True, 1), (False, 3)])
def test_a_tpu_belongs_to_one_process(monkeypatch, shared, count):
    made = []
    monkeypatch.setattr(process, "Process", lambda *_: FakeProcess(made))
    with process.started(["xla", "scan", "linen"], "a.worker", {}, shared) as peers:
        assert len(made) == count
    assert [p.missing for p in peers.values()] == [None, None, "no such peer"]
    assert all(one.closed for one in made)
