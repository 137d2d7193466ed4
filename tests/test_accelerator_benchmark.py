"""The benchmark of kernels runs, says what it left out, and computes what it says."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # The benchmarks are no part of the package.
bounds, cases, command, in_jax, plot, presets, report, seats = (
    importlib.import_module(f"benchmarks.accelerator.{name}")
    for name in (
        "bounds",
        "cases",
        "__main__",
        "in_jax",
        "plot",
        "presets",
        "report",
        "seats",
    )
)
built = importlib.import_module("benchmarks.built")

KERNEL = "pallas_mosaic_tpu"
LSTM = cases.Case("lstm", 16, 1024, 768, 768, arithmetic="bfloat16")


def measure(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.accelerator", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""},
    )


def test_a_small_race(tmp_path, users_flags):
    where = ["--preset", "smoke", "--out", str(tmp_path), "--rounds", "1"]
    peers = ["--peers", f"{KERNEL},scan,torch", "--only", "^gru_after"]
    run = measure(*where, *peers, "--machines", "v5e")
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "accelerator_cpu.json").read_text())
    names = [c.name for c in presets.PRESETS["smoke"] if c.cell == "gru_after"]
    assert [row["name"] for row in result["cases"]] == names
    for row in result["cases"]:
        assert list(row["peers"]) == ["xla", KERNEL, "scan"]
        for name, ran in row["peers"].items():
            assert ran["agreement"]["same"], (row["name"], name)
            assert len(ran["ms"]) == 1
            assert ran["facts"]["temp_bytes"] > 0
    table = (tmp_path / "accelerator_cpu.md").read_text()
    assert "Device: cpu." in table
    for name in names:
        assert table.count(f"\n| {name} | ") == 4, name  # Time, memory, numbers, bound.
    assert table.count("‡ |") == 2 * len(names)  # Time and memory, without a ratio.
    assert "‡;" not in table
    assert "**No kernel was measured here: this is a CPU.**" in table
    assert "\n1 case, 1 round each." in table
    assert "\n- torch: " in table
    assert (tmp_path / "accelerator_cpu.png").stat().st_size > 10_000


def test_what_cannot_be_is_said(capsys):
    run = measure("--preset", "quick", "--peers", "xla")
    assert run.returncode == 1
    assert "JAX sees no accelerator" in run.stderr
    for arguments, message in (
        (["--peers", "caffe"], "unknown peer 'caffe'; known: xla, "),
        (["--machines", "h1"], "unknown machine 'h1'; known: v4, "),
    ):
        with pytest.raises(SystemExit) as caught:
            command.main(arguments)
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


def test_a_kernel_that_declines_or_runs_elsewhere_says_why(monkeypatch):
    large = cases.Case("lstm", 8, 4, 16, 65536)
    kernel = in_jax.find(KERNEL)
    with pytest.raises(built.LeftOutError, match="declines: the smallest tile needs"):
        in_jax.build_ours(kernel, large, None)
    monkeypatch.setattr(in_jax.device, "platform", lambda: "cuda")
    with pytest.raises(built.LeftOutError, match="runs on tpu, and this is cuda"):
        in_jax.find(KERNEL)


def test_cudnn_is_left_out_where_it_cannot_be_asked(monkeypatch):
    with pytest.raises(built.LeftOutError, match="runs on cuda, and this is cpu"):
        in_jax.find("cudnn")
    monkeypatch.setattr(in_jax.device, "platform", lambda: "cuda")
    found = in_jax.find("cudnn")
    for case, reason in (
        (LSTM, "declines: it computes in float32, got bfloat16"),
        (cases.Case("gru_after", 2, 3, 4, 5), "Cudnn.*Cell is none"),
    ):
        with pytest.raises(built.LeftOutError, match=reason):
            in_jax.build_ours(found, case, None)


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
    text = report.write_report(result)
    assert f"| {LSTM.name} | 20 | 10†; 0.50 (0.38-0.75) |" in text
    assert f"| {LSTM.name} | 3 | 3 |" in text  # MiB, results included.
    measured = f"{20 / best['xla']:.2f} | {10 / best['ahead']:.2f} |"
    assert f"| {best['xla']:.3g} | {best['ahead']:.3g} | {measured}" in text
    for line in (
        "driver: 580",
        "- linen: No module named 'flax'",
        f"- {KERNEL}: declines: too large",
        "- scan: out of memory",
    ):
        assert line in text
    plot.draw(result, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_bounds_of_another_machine_stand_alone():
    text = report.write_report(made_up("v5e", xla=ran(1.0, 1.0, 1.0)))
    assert "## At best on v5e" in text
    assert "÷ best" not in text


def test_bounds_by_default_are_those_of_the_device():
    known = {"platform": "cuda", "machine": "h200"}
    assert list(command._machines(known)) == ["h200"]
    assert command._machines(known | {"machine": None}) == bounds.USUAL
    assert not command._machines({"platform": "cpu", "machine": None})


def test_the_head_says_whether_a_kernel_was_measured():
    def head(**peers):
        return report.write_report(made_up(xla=ran(1.0), **peers)).partition("##")[0]

    assert "**No kernel was measured here: none ran on this device.**" in head()
    assert "No kernel" in head(pallas_triton=ran(1.0, variant="interpreted, no YNN"))
    assert "No kernel" not in head(pallas_triton=ran(1.0))


def test_where_something_is_said_is_told_unless_it_is_everywhere():
    said = [("a", "x", "1"), ("a", "x", "2"), ("b", "y", "1"), ("c", "z", "2")]
    assert report._lines(said[:2], 2) == "- a: x"
    assert report._lines(said, 3).splitlines() == [
        "- a in 2 of 3 cases (1 and 1 more): x",
        "- b in 1 of 3 cases (1): y",
        "- c in 1 of 3 cases (2): z",
    ]


def test_panels_without_a_case_are_not_drawn():
    of = lambda cell, mode: {"case": {"cell": cell, "mode": mode}}
    rows = [of("lstm", "train"), of("gru", "forward"), of("gru", "train")]
    assert plot._panels([*rows, rows[0]]) == [[[rows[0]] * 2], [[rows[1]], [rows[2]]]]


def test_help_says_what_presets_take(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, chosen in presets.PRESETS.items():
        assert f"{name} has {len(chosen)} and takes {presets.TAKES[name]}" in text
    assert "its times mean nothing there" in text


class FakeProcess:
    """Counts itself; answers for a device of some platform."""

    def __init__(self, started, platform):
        started.append(self)
        self.platform = platform

    def ask(self, do, peer, what, request):
        assert (do, request) == ("relay", {})
        if what == "device":
            return {"platform": self.platform}
        return {"missing": "no such peer"} if peer == "linen" else {"versions": {}}

    def close(self):
        pass


@pytest.mark.parametrize(("platform", "count"), [("tpu", 1), ("cuda", 3)])
def test_a_tpu_belongs_to_one_process(monkeypatch, platform, count):
    started = []
    make = lambda *_: FakeProcess(started, platform)
    monkeypatch.setattr(seats, "PeerProcess", make)
    found = seats.Seats(["xla", "scan", "linen"], {})
    assert len(started) == count
    assert [p.missing for p in found.peers.values()] == [None, None, "no such peer"]
