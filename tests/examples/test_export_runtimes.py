"""The three files of the example, in the runtimes that are installed."""

import re

import export_runtimes
import pytest

pytestmark = pytest.mark.slow


def test_all_runtimes_agree(tmp_path, capsys, users_settings):
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("onnxruntime")
    export_runtimes.main(tmp_path, epochs=3)
    printed = capsys.readouterr().out
    rows = dict(re.findall(r"^\| (\w+) \| (\d.*) \|$", printed, re.MULTILINE))
    assert {"JAX", "LiteRT", "onnxruntime"} <= rows.keys()
    columns = [row.split(" | ") for row in rows.values()]
    assert len({accuracy for accuracy, *_ in columns}) == 1
    assert all(float(deviation) < 1e-4 for _, deviation, *_ in columns)
    assert (tmp_path / "runtimes.png").read_bytes().startswith(b"\x89PNG")
