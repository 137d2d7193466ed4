"""Runs all tests, slow ones too, of the rooms that a change touches.

    python -m tests.changed          # the last commit, and what is not committed
    python -m tests.changed main     # all that differs from the branch or commit `main`
    python -m tests.changed main -x  # further arguments are those of pytest

The tests are the changed ones, and those in the folders of the changed rooms. If a loop
or a driver changed, also the laws of every kind of cell; if a cell changed, its laws,
and its goldens, which alone compare its equations with TensorFlow's. Most changes take
a minute or two.
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
    "engine": ["engine", "drivers", "meshes/test_drivers.py"],
    "extend": ["package"],
    "hints": ["base", "package"],
    "init": ["package"],
    "initializers": ["cells"],
    "layers": ["layers", "meshes/test_functions.py"],
    "linear": ["meshes/test_divided_time.py"],
    "linen": ["layers"],
    "loops": ["loops", "drivers/test_masks.py"],
    "matrix": ["meshes/test_divided_time.py"],
    "nnx": ["layers"],
    "src": ["native"],
    "typing": ["package"],
}
# A change in these rooms may break any cell.
SHARED = {"affine", "base", "drivers", "engine", "loops", "memory", "testing"}


def changed_files(base):
    """The paths of all files that differ from `base`, and of new files."""
    calls = (
        ["diff", "--name-only", base],
        ["ls-files", "--others", "--exclude-standard"],
    )
    settings = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
    runs = [subprocess.run(["git", *call], **settings) for call in calls]
    return sorted({file for run in runs for file in run.stdout.splitlines()})


def rooms_of(file):
    """The names of a file of the package or of the C++, and of its folders."""
    top, *inner = pathlib.PurePath(file).with_suffix("").parts
    return {name.strip("_") for name in inner} if top in ("jaxrnn", "native") else set()


def tests_of(file):
    """The tests of a file, as paths below `tests/`, of which some do not exist."""
    top, *inner = pathlib.PurePath(file).parts
    if top == "tests":
        return ["/".join(inner)] if inner[-1].startswith("test_") else inner[:1]
    if top in ("benchmarks", "docs", "examples"):
        return [top]
    return [path for room in rooms_of(file) for path in TESTS.get(room, [room])]


def laws_of(files):
    """The names of the rows of `cases.py` whose laws to check."""
    sys.path.insert(0, str(ROOT / "tests"))
    from cases import CASES, KINDS

    found = {name for name, case in CASES.items() if files_of(case.cell) & {*files}}
    is_shared = any(SHARED & rooms_of(file) for file in files)
    return {*KINDS.values()} if is_shared or len(found) > len(KINDS) else found


def files_of(cell):
    """The files that define the methods of a cell's class and of its bases.

    The rules and the loops of a kind of cells are in the folder of the kind.
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


def main(base="HEAD~1", *options):
    """Prints the tests, and runs them."""
    files = changed_files(base)
    paths = {path for file in files for path in tests_of(file)}
    folders = [f"tests/{p}" for p in sorted(paths) if (ROOT / "tests" / p).exists()]
    calls = [folders] if folders else []
    if laws := laws_of(files):
        names = " or ".join(f"{name}-" for name in sorted(laws))
        calls.append(["tests/testing/test_conformance.py", "-k", names])
    if goldens := goldens_of(files):
        calls.append(["tests/tf1/test_goldens.py", "-k", " or ".join(sorted(goldens))])
    if not calls:
        print(f"No test belongs to what differs from {base}.")
    for arguments in calls:
        print("pytest -m ''", *arguments, flush=True)
        call = [sys.executable, "-m", "pytest", "-m", "", *arguments, *options]
        subprocess.run(call, cwd=ROOT, check=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
