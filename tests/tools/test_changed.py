"""`tests/changed.py` finds tests of every file, and all that it names exists."""

import pathlib
import subprocess
import sys

import changed
import pytest

ROOT = changed.ROOT
SOURCES = [*ROOT.glob("jaxrnn/**/*.py"), *ROOT.glob("native/src/*")]
SOURCES = sorted(str(path.relative_to(ROOT)) for path in SOURCES)
LISTED = {path for paths in changed.TESTS.values() for path in paths}


@pytest.fixture(scope="module")
def ids():
    """The ids of all tests but the examples in docstrings, which every file selects."""
    call = [sys.executable, *"-m pytest --collect-only -q -n 0 -m".split(), "", "tests"]
    settings = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
    lines = subprocess.run(call, **settings).stdout.splitlines()
    return [line for line in lines if "::" in line]


def test_every_file_of_the_package_has_tests(ids):
    files = {nodeid.partition("::")[0] for nodeid in ids}
    has_tests = lambda p: any(f == p or f.startswith(f"{p}/") for f in files)
    assert [p for p in changed.paths_of(SOURCES) if not has_tests(p)] == []
    is_tested = lambda file: any(map(changed.selection([file]), ids))
    assert [file for file in SOURCES if not is_tested(file)] == []
    assert changed.without_tests(SOURCES) == []


@pytest.mark.parametrize("cell", ["basic_rnn", "lstm", "gru"])
def test_a_cell_has_its_laws_and_its_goldens(cell, ids):
    is_selected = changed.selection([f"jaxrnn/_cells/{cell}.py"])
    files = {nodeid.partition("::")[0] for nodeid in filter(is_selected, ids)}
    assert {changed.LAWS, changed.GOLDENS} <= files


def test_a_file_of_cells_has_their_goldens_and_laws_but_no_others():
    goldens = changed.goldens_of(["jaxrnn/contrib/_small_cells.py"])
    assert {"indy_lstm-whole-f32", "sru-whole-f32"} <= goldens
    assert "nas-whole-f32" not in goldens
    assert not changed.goldens_of(["jaxrnn/_run/masking.py", "README.md"])
    laws = changed.laws_of(["jaxrnn/_cells/gru.py", "README.md"])
    assert laws == {"gru", "gru_sigmoid", "gru_cudnn"}


@pytest.mark.parametrize(
    ("file", "row"),
    [
        ("_cells/linear/lru.py", "rg_lru"),
        ("_cells/linear/element.py", "min_gru"),
        ("_cells/matrix/delta_rule.py", "delta_memory"),
        ("_cells/matrix/rule.py", "mlstm_memory"),
        ("_loops/memories/delta.py", "mlstm"),
        ("_run/masking.py", "function_nested"),
    ],
)
def test_shared_code_has_the_laws_of_the_cells_that_use_it(file, row, ids):
    is_selected = changed.selection([f"jaxrnn/{file}"])
    assert any(f"[{row}-" in i for i in filter(is_selected, ids) if changed.LAWS in i)


class Item:
    """A collected test, as far as `mark_touched` reads it."""

    def __init__(self, nodeid, is_slow=False):
        self.nodeid, self.marks = nodeid, ["slow"] * is_slow
        self.path = pathlib.PurePath(nodeid.partition("::")[0])
        self.add_marker = self.marks.append
        self.get_closest_marker = lambda mark: mark if mark in self.marks else None


def test_touched_tests_are_first_and_among_them_those_of_the_same_name():
    want = [
        Item("tests/run/test_masking.py::test_x", is_slow=True),
        Item("tests/run/test_run_cell.py::test_x"),
        Item("tests/run/test_bounded_loop.py::test_x", is_slow=True),
        Item("tests/export/test_onnx.py::test_x"),
    ]
    items = want[::-1]
    changed.mark_touched(items, ["jaxrnn/_run/masking.py"])
    assert items == want
    assert ["touched" in item.marks for item in items] == [True, True, True, False]


def test_a_folder_of_the_package_needs_a_row(monkeypatch):
    monkeypatch.delitem(changed.TESTS, "jaxrnn/export/*")
    monkeypatch.setattr(subprocess, "call", lambda call, **options: call)
    new = "jaxrnn/export/_graph.py"
    assert new in changed.run(["README.md", new])
    assert "tests/docs" in changed.run(["README.md", "jaxrnn/gone/deleted.py"])
    assert changed.run(["LICENSE"]) == 0


@pytest.mark.parametrize("path", sorted(LISTED))
def test_a_listed_path_exists(path):
    where = ROOT / "tests" / path
    assert where.is_file() or [*where.rglob("test_*.py")]


def test_a_pattern_matches_a_file():
    folders = {key.partition("/")[0] for key in changed.TESTS if "/" in key}
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    files = [str(p.relative_to(ROOT)) for p in [*paths, *ROOT.glob("*.*")]]
    patterns = [*changed.TESTS, *changed.SHARED]
    matched = lambda pattern: any(changed.matches(file, [pattern]) for file in files)
    assert [pattern for pattern in patterns if not matched(pattern)] == []
