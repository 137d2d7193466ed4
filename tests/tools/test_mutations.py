"""`tests/mutations.py` tells what tests notice from what they miss, and from errors."""

import json

import mutations
import pytest
from mutants import Mutant, is_gone, renewed

LINE = "return x + x"
PACKAGE = f"LIMIT = 3\n\n\ndef double(x):\n    {LINE}\n"
TEST = (
    "from jaxrnn.one import double\n\n\ndef test_one():\n    assert double({}) == {}\n"
)
PROJECT = {
    "pytest.ini": "[pytest]\naddopts = -p xdist --import-mode=importlib\n",
    "jaxrnn/__init__.py": "",
    "jaxrnn/one.py": PACKAGE,
    "tests/test_one.py": TEST.format(2, 4),
    "tests/test_zero.py": TEST.format(0, 0),
    "tests/first_failure.py": (mutations.ROOT / "tests/first_failure.py").read_text(),
}


def mutant(new, old=LINE):
    return Mutant("jaxrnn/one.py", 5, old, new, "sign")


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return mutations.make_environment(tmp_path_factory.mktemp("environment"))


@pytest.fixture
def project(tmp_path, python, monkeypatch):
    """A function that makes a copy of a small project, with the options of a test."""
    monkeypatch.setenv(
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"
    )  # Importing takes seconds.
    for file, text in PROJECT.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    return lambda *options: mutations.Copy(tmp_path, python, 3, lambda file: [*options])


def tried(copy, one):
    found = copy.test(one, copy.selection(one.file))[0]
    assert (copy.root / "jaxrnn/one.py").read_text() == PACKAGE
    return found


def test_an_unchanged_line_escapes(project):
    assert tried(project("tests"), mutant(LINE)) == ""


@pytest.mark.parametrize(
    ("new", "stage"),
    [
        ("return x - x", "tests"),
        ("import os; os.abort()", "tests"),
        ("while True: pass", "tests"),
        ("return x +", "import"),
    ],
)
def test_a_broken_line_is_caught(new, stage, project):
    assert tried(project("tests/test_one.py"), mutant(new)) == stage


def test_a_line_that_fails_at_import_is_caught(project):
    assert tried(project("tests"), mutant("LIMIT = 3 / 0", "LIMIT = 3")) == "import"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["tests/test_gone.py"], 4),
        (["tests/test_one.py::test_gone"], 4),
        (["--no-such-option"], 4),
        (["tests", "-k", "gone"], 5),
    ],
)
def test_tests_that_do_not_run_stop_the_tool(options, status, project):
    with pytest.raises(mutations.Stop, match=f"status {status}"):
        tried(project(*options), mutant("return x - x"))


def test_tests_that_cannot_be_imported_without_a_mutant_stop_the_tool(project):
    copy = project("tests")
    (copy.root / "tests/test_two.py").write_text("import jaxrnn.two\n")
    with pytest.raises(mutations.Stop, match="status 2"):
        tried(copy, mutant("return x - x"))


def test_tests_that_fail_without_a_mutant_stop_the_tool(project, monkeypatch):
    monkeypatch.setattr(mutations, "of_file", lambda one, copy, marks: ["tests"])
    copy = project("tests")
    one = mutant("return x - x")
    mutations.check_unchanged([one], copy)
    (copy.root / "tests/test_two.py").write_text("def test_two():\n    assert 0\n")
    with pytest.raises(mutations.Stop, match="unchanged"):
        mutations.check_unchanged([one], copy)


def test_all_fast_tests_find_the_mutants_that_their_own_tests_miss(project):
    """Together, then each alone."""
    copy = project("tests/test_zero.py")
    caught, same = mutant("return x - x"), mutant("LIMIT = 4", "LIMIT = 3")
    assert [tried(copy, one) for one in (caught, same)] == ["", ""]
    [row] = mutations.fast([caught, same], [copy], ["-n0"])
    assert (row["mutant"], row["stage"]) == (vars(caught), "fast")


def test_lines_that_are_gone_are_replaced(project):
    (root := project().root).joinpath("native/src").mkdir(parents=True)
    kept, gone = mutant("return x - x"), mutant("return x - y", "return x + y")
    new = renewed([gone, kept], root, seed=0)
    assert new[0] == kept
    assert [is_gone(one, root) for one in new] == [False, False]


def test_the_list_names_lines_once():
    rows = json.loads((mutations.ROOT / "tests/mutants.json").read_text())
    assert len({(row["file"], row["old"]) for row in rows}) == len(rows) == 100
