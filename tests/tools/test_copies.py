"""`mutations.py` and `without_loops.py` find what changes in a copy of the checkout."""

import json
import pickle
import subprocess

import mutations
import numpy as np
import pytest
import without_loops
from mutations import Mutant

LINE = "return x + x"
PACKAGE = f"LIMIT = 3\n\n\ndef double(x):\n    {LINE}\n"
TEST = "from jaxrnn.one import double\n\n\ndef test_one():\n    assert double(2) == 4"
PROJECT = {
    "pytest.ini": "[pytest]\naddopts = -p xdist --import-mode=importlib\n",
    "jaxrnn/__init__.py": "",
    "jaxrnn/one.py": PACKAGE,
    "tests/test_one.py": TEST,
    "tests/test_two.py": TEST,
}


def mutant(new, old=LINE):
    return Mutant("jaxrnn/one.py", 5, old, new, "sign")


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return mutations.make_environment(tmp_path_factory.mktemp("environment"))


@pytest.fixture
def project(tmp_path, python, monkeypatch):
    """A function that makes a copy of a small project, with the options of a test."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # Importing takes long.
    for file, text in PROJECT.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    return lambda *options: mutations.Copy(tmp_path, python, 3, lambda file: [*options])


def tried(copy, one):
    found = copy.test(one, copy.selection(one.file))[0]
    assert (copy.root / "jaxrnn/one.py").read_text() == PACKAGE
    return found


@pytest.mark.fast("return x - x*")
@pytest.mark.parametrize(
    ("new", "stage"),
    [
        (LINE, ""),
        ("return x - x", "tests"),
        ("while True: pass", "tests"),
        ("return x +", "tests"),
    ],
)
def test_a_broken_line_is_caught_and_an_unchanged_line_escapes(new, stage, project):
    assert tried(project("tests"), mutant(new)) == stage


def test_a_module_that_cannot_be_imported_is_left_out(project):
    copy = project("tests", "tests/test_other.py")
    (copy.root / "tests/test_other.py").write_text("import missing")
    [copy] = mutations.without_missing([copy])
    assert copy.missing == ("tests/test_other.py",)
    assert [tried(copy, mutant(new)) for new in (LINE, "return 1")] == ["", "tests"]


def test_the_list_names_lines_once():
    rows = json.loads((mutations.ROOT / "tests/mutants.json").read_text())
    assert len({(row["file"], row["old"]) for row in rows}) == len(rows) == 100


# `without_loops.py`.

PROGRAM = """
import jax, jax.numpy as jnp, jaxrnn, jaxrnn.extend
from jaxrnn import *
cell, x = jaxrnn.LSTMCell(3), jnp.ones((2, 4, 3))
bound = cell.bind(cell.init(jax.random.key(0), x[:, 0]))
print(jaxrnn.explain(bound, x, dtype=x.dtype).loop)
"""


@pytest.mark.slow
def test_a_copy_has_no_loops(tmp_path, python):
    copy = without_loops.without_loops(tmp_path)
    run = [python, "-c", PROGRAM]
    done = subprocess.run(run, cwd=copy, capture_output=True, text=True, check=True)
    assert done.stdout == "scan\n"
    files = (copy / "jaxrnn").rglob("*.py")
    assert not [file for file in files if "import _loops" in file.read_text()]


def test_a_difference_is_found(tmp_path, monkeypatch):
    found = {"gru": ("xla", [np.ones(3)])}, {"gru": ("scan", [np.ones(3) + 1e-9])}
    answers = iter(found)

    def run(command, **options):
        (tmp_path / "results").write_bytes(pickle.dumps(next(answers)))

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(AssertionError, match="gru"):
        without_loops.compare(tmp_path / "copy", "python")
