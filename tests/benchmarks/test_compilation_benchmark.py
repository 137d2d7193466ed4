"""The compilation benchmark runs, as a user starts it."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_two_peers(tmp_path, users_flags):
    program = [sys.executable, "-m", "benchmarks.compilation", "--preset", "smoke"]
    options = ["--peers", "linen", "--rounds", "1", "--out", str(tmp_path)]
    run = subprocess.run(
        [*program, *options], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert run.returncode == 0, run.stderr
    assert "| lstm B3 T8 D4 H5 uniform" in run.stdout
    saved = json.loads((tmp_path / "compilation_smoke.json").read_text())
    [case] = saved["cases"]
    for name in ("jaxrnn", "linen"):
        result = case["peers"][name]
        parts = [result[part][0] for part in ("trace_s", "lower_s", "compile_s")]
        assert min(parts) > 0
        assert result["ms"][0] > 0
    assert (tmp_path / "compilation_smoke.png").stat().st_size > 10_000
