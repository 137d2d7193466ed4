"""Tests the law of the package: without `jaxrnn/_loops`, all results stay the same.

    python tests/without_loops.py            # results in float64, then fast tests
    python tests/without_loops.py --results  # only the results

A copy of the working tree loses the folder, and the lines that import the folder. There
and in the package, each class of cells in `cases.py` that has a loop runs with lengths,
resets and all states. Outputs, states and gradients must be equal to rounding. Then the
fast tests of drivers, cells, wrappers, layers and TensorFlow's goldens run in the copy,
but for those that name a loop: files that import one, and tests with the mark `loops`.
"""

import argparse
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import sys
import tempfile

from mutations import IGNORED, make_environment

ROOT = pathlib.Path(__file__).parents[1]
TESTS = "drivers cells wrappers layers tf1 contrib/test_goldens.py".split()
TOLERANCE = 1e-12


def without_loops(folder: pathlib.Path) -> pathlib.Path:
    """Copies the working tree into the folder `copy`, and deletes the loops."""
    copy = folder / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*IGNORED))
    shutil.rmtree(copy / "jaxrnn/_loops")
    for name in ("jaxrnn/__init__.py", "jaxrnn/extend/__init__.py"):
        file = copy / name
        text = file.read_text().replace("import _loops as _loops, ", "import ")
        pattern = r"from \.+_loops\.\S+ import (\w+)\n"
        for public in re.findall(pattern, text):
            text = text.replace(f'"{public}",', "")
        file.write_text(re.sub(pattern, "", text))
    return copy


def results(root: pathlib.Path) -> dict[str, tuple[str, list]]:
    """The loop and the results of each class that has one, of the package in `root`.

    The environment variable `NAMES` has the rows of `cases.py`; by default, the first
    row of each class.
    """
    sys.path[:0] = [str(root), str(root / "tests")]
    import cases
    import jax
    import jax.numpy as jnp
    import numpy as np

    import jaxrnn
    from jaxrnn._run.loops import loops_of
    from jaxrnn.testing import _oracle

    jax.config.update("jax_enable_x64", True)
    assert pathlib.Path(jaxrnn.__file__).parents[1] == root
    classes = {type(case.cell): name for name, case in reversed(cases.CASES.items())}
    names = os.environ.get("NAMES", "").split() or [
        name for cls, name in reversed(classes.items()) if loops_of(cls)
    ]
    found = {}
    for name in names:
        case = cases.CASES[name]
        setup = _oracle.make_setup(
            case.cell, case.inputs, jnp.float64, case.key, case.state
        )
        resets = np.arange(_oracle.TIME) == np.arange(len(setup.lengths))[:, None] % 3

        def run(setup, params, xs, state, lengths, resets=resets):
            options = {"resets": resets, "return_states": True}
            return setup.run(params, xs, state, lengths, **options)

        explained = jaxrnn.explain(setup.bind(), setup.xs, dtype=jnp.float64)
        values = _oracle.differentiated(setup, run, setup.lengths)
        found[name] = explained.loop, [*map(np.asarray, jax.tree.leaves(values))]
    return found


def compare(copy: pathlib.Path, python: str) -> None:
    """Raises AssertionError unless all results of the copy are those of the package."""
    import numpy as np

    def run(root: pathlib.Path, names: str = "") -> dict:
        file = copy.parent / "results"
        command = [python, __file__, "--write", str(file), "--of", str(root)]
        subprocess.run(command, check=True, env=os.environ | {"NAMES": names})
        return pickle.loads(file.read_bytes())

    want = run(ROOT)
    got = run(copy, " ".join(want))
    worst = 0.0
    for name in want:
        assert got[name][0] in ("scan", "step"), f"{name} runs in a loop in the copy"
        for x, y in zip(want[name][1], got[name][1], strict=True):
            np.testing.assert_allclose(x, y, TOLERANCE, TOLERANCE, err_msg=name)
            difference = np.max(np.abs(x - y) / (1 + np.abs(y)), initial=0)
            worst = max(worst, float(difference))
    loops = sum(loop not in ("scan", "step") for loop, _ in want.values())
    print(f"{len(want)} cells, {loops} in loops; largest difference {worst:.1e}")


def run_tests(copy: pathlib.Path, python: str) -> int:
    """The status of the fast tests in the copy that name no loop."""
    files = (copy / "tests").rglob("test_*.py")
    pattern = re.compile(r"^from jaxrnn\._loops", re.MULTILINE)
    named = [file for file in files if pattern.search(file.read_text())]
    ignored = [f"--ignore={file}" for file in named]
    paths = [f"tests/{name}" for name in TESTS]
    command = [python, "-m", "pytest", "-q", "-m", "not slow and not loops"]
    env = os.environ | {"PYTHONPATH": str(copy)}
    return subprocess.run([*command, *ignored, *paths], cwd=copy, env=env).returncode


def main() -> None:
    """Compares results, and runs the tests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", action="store_true", help="run no tests")
    parser.add_argument("--write", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--of", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        options.write.write_bytes(pickle.dumps(results(options.of)))
        return
    with tempfile.TemporaryDirectory() as folder:
        python = make_environment(pathlib.Path(folder) / "environment")
        copy = without_loops(pathlib.Path(folder))
        compare(copy, python)
        status = 0 if options.results else run_tests(copy, python)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
