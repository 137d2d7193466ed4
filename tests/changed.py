"""Runs all tests, slow ones too, of the rooms that a change touches.

    python -m tests.changed          # what is not committed, or else the last commit
    python -m tests.changed main     # all that differs from the branch or commit `main`
    python -m tests.changed main -x  # further arguments are those of pytest

The tests are the changed ones, and those in the folders of the changed rooms. If a loop
or a driver changed, also the laws of every kind of cell; if a cell changed, its laws,
and its goldens, which alone compare its equations with TensorFlow's. Of the pages, only
those that changed are run; of the docstrings, all if the package changed. Most changes
take a minute or two.
"""

import inspect
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
# The tests of a room. The other rooms have a folder of their name, or none.
TESTS = {
    "affine": ["loops", "native"],
    "divided_time": ["meshes/test_divided_time.py"],
    "drivers": ["drivers", "meshes/test_drivers.py"],
    "extend": ["package"],
    "golden": ["tf1", "contrib/test_goldens.py", "convert/test_goldens.py"],
    "hints": ["base", "package"],
    "init": ["package"],
    "initializers": ["cells"],
    "flax": ["layers", "meshes/test_functions.py"],
    "linear": ["meshes/test_divided_time.py"],
    "linen": ["layers"],
    "loops": ["loops", "cells", "drivers"],
    "matrix": ["meshes/test_divided_time.py"],
    "memories": ["meshes/test_divided_time.py"],
    "nnx": ["layers"],
    "run": ["run", "loops", "drivers", "meshes/test_drivers.py"],
    "src": ["native"],
    "transformers": ["layers"],
    "typing": ["package"],
}
# A change in these rooms may break any cell.
SHARED = {"affine", "base", "drivers", "loops", "memory", "run", "testing"}
LAWS, GOLDENS = "tests/testing/test_conformance.py", "tests/tf1/test_goldens.py"
# The examples in docstrings, and those that are written for the other cells.
DOCSTRINGS = "jaxrnn/", "tests/docs/test_docs.py::test_the_examples_of_cells_run"
NO_TESTS = 5  # The exit status of pytest if it selects no test.


def rooms_of(file):
    """The names of a file of the package or of the C++, and of its folders."""
    top, *inner = pathlib.PurePath(file).with_suffix("").parts
    return {name.strip("_") for name in inner} if top in ("jaxrnn", "native") else set()


def tests_of(file):
    """The tests of a file, as paths below `tests/`, of which some do not exist."""
    top, *inner = pathlib.PurePath(file).parts
    if top == "tests":
        is_test = inner[-1].startswith("test_")
        return ["/".join(inner)] if is_test else TESTS.get(inner[0], inner[:1])
    if top in ("benchmarks", "docs", "examples"):
        return ["docs" if file.endswith(".md") else top]
    return [path for room in rooms_of(file) for path in TESTS.get(room, [room])]


def paths_of(files):
    """The folders and files of the tests that belong to the files."""
    paths = {f"tests/{path}" for file in files for path in tests_of(file)}
    return sorted(path for path in paths if (ROOT / path).exists())


def laws_of(files):
    """The names of the rows of `cases.py` whose laws to check."""
    sys.path.insert(0, str(ROOT / "tests"))
    from cases import CASES, KINDS

    found = {name for name, case in CASES.items() if files_of(case.cell) & {*files}}
    is_shared = any(SHARED & rooms_of(file) for file in files)
    return {*KINDS.values()} if is_shared or len(found) > len(KINDS) else found


def files_of(cell):
    """The files that define the methods of a cell's class and of its bases.

    The rules of a kind of cells are in the folder of the kind.
    """
    members = [value for base in type(cell).__mro__ for value in vars(base).values()]
    codes = [member.__code__ for member in members if inspect.isfunction(member)]
    paths = {pathlib.Path(code.co_filename).resolve() for code in codes}
    kinds = {path.parent for path in paths if path.parent.name in ("linear", "matrix")}
    paths = paths.union(*(kind.glob("*.py") for kind in kinds))
    return {str(p.relative_to(ROOT)) for p in paths if p.is_relative_to(ROOT)}


def goldens_of(files):
    """The names of the goldens of the cells that the files define."""
    sys.path.insert(0, str(ROOT))
    from tests.golden import store

    paths = [ROOT / file for file in files if file.startswith("jaxrnn/")]
    texts = [path.read_text() for path in paths if path.exists()]
    classes = set(re.findall(r"^class (\w+)", "\n".join(texts), re.MULTILINE))
    families = (store.HERE / "contrib").glob("*.json")
    folders = [("tf1",), *(("contrib", path.stem) for path in families)]
    cases = [case for folder in folders for case in store.recorded(*folder)["cases"]]
    return {
        case["name"] for case in cases if (case["cell"] or {}).get("class") in classes
    }


def selection(files):
    """A function of the id of a test: whether the test belongs to the files."""
    paths, laws, goldens = paths_of(files), laws_of(files), goldens_of(files)
    has_source = any(file.startswith("jaxrnn/") for file in files)

    def is_selected(nodeid):
        name, _, test = nodeid.partition("::")
        parameter = test.partition("[")[2].rstrip("]")
        if name == LAWS and any(parameter.startswith(f"{law}-") for law in laws):
            return True
        if name == GOLDENS and any(parameter.startswith(golden) for golden in goldens):
            return True
        if nodeid.startswith(DOCSTRINGS) and has_source:
            return True
        if test.startswith("test_page["):
            return bool({parameter, name, "tests/docs/run_page.py"} & {*files})
        return any(name == path or name.startswith(f"{path}/") for path in paths)

    return is_selected


def options_of(files):
    """The arguments of pytest that run the tests of the files."""
    touched = [f"--touched={file}" for file in files]
    docstrings = ["jaxrnn", DOCSTRINGS[1]]
    return ["-m", "touched", *touched, *paths_of(files), LAWS, GOLDENS, *docstrings]


def changed_files(base=None):
    """The paths of all files that differ from a commit, and of new files."""

    def git(*arguments):
        settings = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
        return subprocess.run(["git", *arguments], **settings).stdout.splitlines()

    new = git("ls-files", "--others", "--exclude-standard")
    edited = {*git("diff", "--name-only", base or "HEAD"), *new}
    return sorted(edited or git("diff", "--name-only", "HEAD~1"))


def main(base=None, *options):
    """Runs the tests."""
    files = changed_files(base)
    print("The tests of", *files, sep="\n  ", flush=True)
    call = [sys.executable, "-m", "pytest", *options_of(files), *options]
    status = subprocess.call(call, cwd=ROOT)
    return 0 if status == NO_TESTS else status


if __name__ == "__main__":
    has_base = len(sys.argv) > 1 and not sys.argv[1].startswith("-")
    sys.exit(main(*(sys.argv[1:] if has_base else [None, *sys.argv[1:]])))
