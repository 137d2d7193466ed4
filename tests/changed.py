"""Runs all tests, slow ones too, of what a change touches.

    python -m tests.changed          # what is not committed, or else the last commit
    python -m tests.changed main     # all that differs from the branch or commit `main`
    python -m tests.changed main -x  # further arguments are those of pytest

The tests are the changed ones, and those that `TESTS` lists for the changed files. If
code that cells share changed, also the laws of every kind of cell; if a cell changed,
its laws, and its goldens, which alone compare its equations with TensorFlow's. Of the
pages, only those that changed are run; of the docstrings, all if the package changed.
The fast tests come first. Most changes take a minute or two.

A file of the package or of the C++ without a test is an error. Other files without a
test, such as `tests/helpers.py`, which most tests import, are named.
"""

import fnmatch
import functools
import inspect
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
DECODERS = ["contrib/test_attention.py", "contrib/test_seq2seq.py"]
DIVIDED = "meshes/test_divided_time.py"
ENTRIES = "drivers/test_single_steps.py"
EXPLAINED = ["loops/test_implementations.py", "memory", "wrappers"]
GOLDEN = ["contrib/test_goldens.py", "convert/test_goldens.py", "tf1"]
# Patterns of files, where `*` also matches "/", and the tests of these files, as paths
# below `tests/`. A file has the tests of all patterns that match it.
TESTS = {
    "*.md": ["docs"],
    "benchmarks/*": ["benchmarks"],
    "docs/*": ["docs"],
    "examples/*": ["examples"],
    "jaxrnn/*__init__.py": ["package"],
    "jaxrnn/_base/*": ["base"],
    "jaxrnn/_base/arguments.py": ["drivers/test_validation.py"],
    "jaxrnn/_base/hints.py": ["package"],
    "jaxrnn/_base/inputs.py": ["drivers/test_validation.py"],
    "jaxrnn/_base/mesh.py": ["meshes"],
    "jaxrnn/_base/modules.py": ["package"],
    "jaxrnn/_base/unit_axes.py": ["cells"],
    "jaxrnn/_base/sharding.py": ["meshes"],
    "jaxrnn/_base/typing.py": ["package"],
    "jaxrnn/_batching/*": ["batching"],
    "jaxrnn/_cells/*": ["cells"],
    "jaxrnn/_cells/affine.py": ["loops", "native"],
    "jaxrnn/_cells/base.py": ["drivers/test_validation.py", "package"],
    "jaxrnn/_cells/composed.py": ["wrappers"],
    "jaxrnn/_cells/equations.py": ["loops", "native"],
    "jaxrnn/_cells/fields.py": ["package"],
    "jaxrnn/_cells/linear/*": [DIVIDED],
    "jaxrnn/_cells/matrix/*": [DIVIDED],
    "jaxrnn/_cells/short_conv.py": ["drivers/test_short_conv.py", DIVIDED],
    "jaxrnn/_cells/step_checks.py": ["drivers/test_validation.py"],
    "jaxrnn/_cells/wrappers/*": ["wrappers"],
    "jaxrnn/_drivers/*": ["drivers", "meshes/test_drivers.py"],
    "jaxrnn/_drivers/dynamic_rnn.py": EXPLAINED,
    "jaxrnn/_drivers/explain.py": EXPLAINED,
    "jaxrnn/_drivers/memory_plan.py": ["memory"],
    "jaxrnn/_drivers/short_conv.py": [DIVIDED],
    "jaxrnn/_flax/*": ["layers", "meshes/test_drivers.py", ENTRIES],
    "jaxrnn/_loops/*": ["cells", "drivers", "loops"],
    "jaxrnn/_loops/affine/*": ["native"],
    "jaxrnn/_loops/convolution.py": [DIVIDED],
    "jaxrnn/_loops/divided_time.py": [DIVIDED],
    "jaxrnn/_loops/linear/*": [DIVIDED],
    "jaxrnn/_loops/memories/*": [DIVIDED, "layers/test_linear_attention.py"],
    "jaxrnn/_run/*": ["drivers", "loops", "meshes/test_drivers.py", "run"],
    "jaxrnn/_run/arguments.py": ["base"],
    "jaxrnn/_run/layout.py": ["meshes"],
    "jaxrnn/_run/memory.py": ["memory"],
    "jaxrnn/_run/scans.py": ["memory"],
    "jaxrnn/_run/tensor_array/*": ["tensor_array"],
    "jaxrnn/_run/until_finished.py": ["decode", *DECODERS],
    "jaxrnn/contrib/*": ["contrib"],
    "jaxrnn/contrib/_fused.py": [ENTRIES],
    "jaxrnn/contrib/_wrappers.py": ["wrappers"],
    "jaxrnn/convert/*": ["convert"],
    "jaxrnn/convert/_flax.py": ["layers"],
    "jaxrnn/convert/_tf1.py": ["tf1"],
    "jaxrnn/convert/_transformers.py": ["layers"],
    "jaxrnn/decode/*": ["decode", "meshes/test_drivers.py", *DECODERS],
    "jaxrnn/export/*": ["export"],
    "jaxrnn/extend/*": ["package"],
    "jaxrnn/initializers.py": ["cells"],
    "jaxrnn/linen/*": ["layers"],
    "jaxrnn/lite.py": ["lite", ENTRIES],
    "jaxrnn/memory/*": ["memory"],
    "jaxrnn/nnx/*": ["layers"],
    "jaxrnn/py.typed": ["package/test_exports.py"],
    "jaxrnn/testing/*": ["testing"],
    "jaxrnn/typing.py": ["package"],
    "native/*": ["loops", "native"],
    "pyproject.toml": ["package/test_exports.py"],
    "tests/changed.py": ["tools"],
    "tests/compiler_cases.py": ["compilers"],
    "tests/compilers/h100.txtpb": ["compilers"],
    "tests/compilers/hlo.py": ["compilers", "meshes"],
    "tests/conformance/*": ["conformance"],
    "tests/conftest.py": ["tools"],
    "tests/decoders.py": ["decode"],
    "tests/docs/run_page.py": ["docs"],
    "tests/flax_modules.py": ["layers"],
    "tests/golden/*": GOLDEN,
    "tests/golden/attention*": ["contrib/test_attention.py"],
    "tests/golden/params.json": ["package"],
    "tests/golden/recurrentgemma.npz": ["wrappers"],
    "tests/golden/rg_lru.npz": ["cells/test_linear_cells.py"],
    "tests/golden/seq2seq/*": DECODERS,
    "tests/golden/xlstm.npz": ["cells/test_matrix_memory.py"],
    "tests/in_float64.py": ["conformance"],
    "tests/mesh.py": ["meshes"],
    "tests/mutants.json": ["tools"],
    "tests/mutations.py": ["tools"],
    "tests/sharded_programs.py": ["compilers", "meshes/test_sharding.py"],
    "tests/without_loops.py": ["tools"],
    "tests/native_cases.py": ["loops", "native"],
    "tests/package/*": ["package"],
}
# A change of these files may break any cell.
SHARED = [
    "jaxrnn/_base/*",
    "jaxrnn/_cells/affine.py",
    "jaxrnn/_cells/base.py",
    "jaxrnn/_cells/composed.py",
    "jaxrnn/_cells/equations.py",
    "jaxrnn/_cells/fields.py",
    "jaxrnn/_cells/linear/*",
    "jaxrnn/_cells/matrix/*",
    "jaxrnn/_cells/params.py",
    "jaxrnn/_cells/step_checks.py",
    "jaxrnn/_cells/wrappers/base.py",
    "jaxrnn/_drivers/*",
    "jaxrnn/_loops/*",
    "jaxrnn/_run/*",
    "jaxrnn/memory/*",
    "jaxrnn/testing/*",
    "tests/cases.py",
]
LAWS, GOLDENS = "tests/testing/test_conformance.py", "tests/tf1/test_goldens.py"


def matches(file, patterns):
    """Whether a pattern matches the path of a file."""
    return any(fnmatch.fnmatchcase(file, pattern) for pattern in patterns)


def is_source(file):
    """Whether a file must have tests. A deleted file needs none of its own."""
    return file.startswith(("jaxrnn/", "native/")) and (ROOT / file).exists()


def paths_of(files):
    """The folders and files of the tests that belong to the files."""
    listed = [
        p for f in files for key in TESTS if matches(f, [key]) for p in TESTS[key]
    ]
    own = {file for file in files if re.match(r"tests/.*\btest_\w+\.py$", file)}
    paths = {f"tests/{path}" for path in listed}
    return sorted(paths | {file for file in own if (ROOT / file).exists()})


def without_tests(files):
    """The files that have no tests."""
    return [file for file in files if not paths_of([file]) and not laws_of([file])]


@functools.cache
def cases():
    """The module with the table of cells."""
    sys.path.insert(0, str(ROOT / "tests"))
    import cases

    return cases


def laws_of(files):
    """The names of the rows of `cases.py` whose laws to check."""
    kinds = {*cases().KINDS.values()}
    found = {name for name, own in files_of_cells().items() if own & {*files}}
    if len(found) > len(kinds):  # Many cells derive from this one.
        found = kinds
    is_shared = any(matches(file, SHARED) for file in files)
    return found | kinds if is_shared else found


@functools.cache
def files_of_cells():
    """For each row of `cases.py`, the files that define the cell and its rule."""
    return {name: files_of(case.cell) for name, case in cases().CASES.items()}


def files_of(cell):
    """The files that define the methods of a cell's class, its bases and its rule."""
    classes = {*type(cell).__mro__, *type(getattr(cell, "rule", None)).__mro__}
    members = [value for base in classes for value in vars(base).values()]
    codes = [member.__code__ for member in members if inspect.isfunction(member)]
    paths = {pathlib.Path(code.co_filename).resolve() for code in codes}
    return {str(p.relative_to(ROOT)) for p in paths if p.is_relative_to(ROOT)}


@functools.cache
def goldens():
    """The names of the goldens, and the classes of their cells."""
    sys.path.insert(0, str(ROOT))
    from tests.golden import store

    families = (store.HERE / "contrib").glob("*.json")
    folders = [("tf1",), *(("contrib", path.stem) for path in families)]
    rows = [row for folder in folders for row in store.recorded(*folder)["cases"]]
    return [(row["name"], (row["cell"] or {}).get("class")) for row in rows]


def goldens_of(files):
    """The names of the goldens of the cells that the files define."""
    paths = [ROOT / file for file in files if file.startswith("jaxrnn/")]
    texts = [path.read_text() for path in paths if path.exists()]
    classes = set(re.findall(r"^class (\w+)", "\n".join(texts), re.MULTILINE))
    return {name for name, cell in goldens() if cell in classes}


def selection(files):
    """A function of the id of a test: whether the test belongs to the files."""
    paths, laws, names = paths_of(files), laws_of(files), goldens_of(files)
    has_source = any(file.startswith("jaxrnn/") for file in files)

    def is_selected(nodeid):
        name, _, test = nodeid.partition("::")
        parameter = test.partition("[")[2].rstrip("]")
        if name == LAWS and any(parameter.startswith(f"{law}-") for law in laws):
            return True
        if name == GOLDENS and any(parameter.startswith(golden) for golden in names):
            return True
        if name.startswith("jaxrnn/"):  # An example in a docstring.
            return has_source
        if test.startswith("test_page["):
            return bool({parameter, name, "tests/docs/run_page.py"} & {*files})
        return any(name == path or name.startswith(f"{path}/") for path in paths)

    return is_selected


def mark_touched(items, files):
    """Marks the tests of the files as touched, and sorts all tests.

    First come the fast ones of the files, then their slow ones, then all others.
    """
    is_selected = selection(files)
    for item in items:
        if is_selected(item.nodeid):
            item.add_marker("touched")

    def rank(item):
        if not item.get_closest_marker("touched"):
            return 2
        return 1 if item.get_closest_marker("slow") else 0

    items.sort(key=rank)


def options_of(files):
    """The arguments of pytest that run the tests of the files."""
    touched = [f"--touched={file}" for file in files]
    laws, names = laws_of(files) and [LAWS], goldens_of(files) and [GOLDENS]
    docstrings = ["jaxrnn"] if any(file.startswith("jaxrnn/") for file in files) else []
    return ["-m", "touched", *touched, *paths_of(files), *laws, *names, *docstrings]


def changed_files(base=None):
    """The paths of all files that differ from a commit, and of new files."""

    def git(*arguments):
        settings = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
        return subprocess.run(["git", *arguments], **settings).stdout.splitlines()

    new = git("ls-files", "--others", "--exclude-standard")
    edited = {*git("diff", "--name-only", base or "HEAD"), *new}
    return sorted(edited or git("diff", "--name-only", "HEAD~1"))


def run(files, *options):
    """Runs the tests of files, and returns the status of pytest."""
    print("The tests of", *files, sep="\n  ", flush=True)
    if untested := without_tests(files):
        print("No test belongs to", *untested, sep="\n  ", flush=True)
    if sources := [*filter(is_source, untested)]:
        return f"List the tests of {sources} in `TESTS` of tests/changed.py."
    if len(untested) == len(files):
        return 0
    call = [sys.executable, "-m", "pytest", *options_of(files), *options]
    return subprocess.call(call, cwd=ROOT)


if __name__ == "__main__":
    has_base = len(sys.argv) > 1 and not sys.argv[1].startswith("-")
    base, *options = sys.argv[1:] if has_base else [None, *sys.argv[1:]]
    sys.exit(run(changed_files(base), *options))
