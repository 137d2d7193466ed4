"""`tests/changed.py` finds tests of every file, and all that it names exists."""

import subprocess

import changed
import pytest

ROOT = changed.ROOT
SOURCES = [*ROOT.glob("jaxrnn/**/*.py"), *ROOT.glob("native/src/*")]
SOURCES = sorted(str(path.relative_to(ROOT)) for path in SOURCES)
LISTED = {path for paths in changed.TESTS.values() for path in paths}
LAWS = "tests/testing/test_conformance.py::test_law"
GOLDENS = "tests/tf1/test_goldens.py::test_golden"


def test_every_file_of_the_package_has_tests():
    assert changed.without_tests(SOURCES) == []


def test_every_listed_path_exists():
    paths = [ROOT / "tests" / path for path in LISTED]
    missing = [p for p in paths if not (p.is_file() or [*p.rglob("test_*.py")])]
    assert missing == []


def test_a_pattern_matches_a_file():
    folders = {key.partition("/")[0] for key in changed.TESTS if "/" in key}
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    files = [str(p.relative_to(ROOT)) for p in [*paths, *ROOT.glob("*.*")]]
    matched = lambda pattern: any(changed.matches(file, [pattern]) for file in files)
    patterns = [*changed.TESTS, *changed.SHARED]
    assert [pattern for pattern in patterns if not matched(pattern)] == []


# A file of the package, tests that it selects, and others.
SELECTED = [
    (
        "_cells/gru.py",
        f"{LAWS}[gru-resumes] {GOLDENS}[gru-whole-f32]",
        f"{LAWS}[lstm-x]",
    ),
    ("_cells/linear/lru.py", f"{LAWS}[lru-x] {LAWS}[mlstm-x]", f"{LAWS}[gru-x]"),
    ("_loops/memories/delta.py", f"{LAWS}[mlstm-x]", f"{GOLDENS}[gru-whole-f32]"),
    (
        "_run/masking.py",
        "tests/run/test_masking.py::x jaxrnn/a.py::x",
        f"{LAWS}[gru-x]",
    ),
]


@pytest.mark.parametrize(("file", "tests", "others"), SELECTED)
def test_a_file_has_its_laws_and_goldens_and_no_others(file, tests, others):
    is_selected = changed.selection([f"jaxrnn/{file}"])
    assert all(map(is_selected, tests.split()))
    assert not any(map(is_selected, others.split()))


class Item:
    """A collected test, as far as `mark_touched` reads it."""

    def __init__(self, nodeid, is_slow=False):
        self.nodeid, self.marks = nodeid, ["slow"] * is_slow
        self.add_marker = self.marks.append
        self.get_closest_marker = lambda mark: mark if mark in self.marks else None


def test_touched_tests_are_first_and_among_them_fast_ones():
    want = [
        Item("tests/run/test_results.py::test_x"),
        Item("tests/run/test_bounded_loop.py::test_x", is_slow=True),
        Item("tests/export/test_onnx.py::test_x"),
    ]
    items = want[::-1]
    changed.mark_touched(items, ["jaxrnn/_run/masking.py"])
    assert items == want
    assert ["touched" in item.marks for item in items] == [True, True, False]


def test_a_folder_of_the_package_needs_a_row(monkeypatch):
    monkeypatch.delitem(changed.TESTS, "jaxrnn/export/*")
    monkeypatch.setattr(subprocess, "call", lambda call, **options: call)
    new = "jaxrnn/export/_graph.py"
    assert new in changed.run(["README.md", new])
    assert "tests/docs" in changed.run(["README.md", "jaxrnn/gone/deleted.py"])
    assert changed.run(["LICENSE"]) == 0
