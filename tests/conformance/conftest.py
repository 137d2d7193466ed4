"""Prints how many cases of each suite passed, after the tests of this folder."""

import collections
import importlib.metadata
import pathlib

# The package of each suite, by the file that replays it.
PACKAGES = {
    "test_jax_lstm": "jax",
    "test_onnx_nodes": "onnx",
    "test_sequence_layers": "sequence-layers",
}


def pytest_terminal_summary(terminalreporter):
    counts = collections.defaultdict(collections.Counter)
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(outcome):
            file, _, case = report.nodeid.partition("[")
            if case:  # Tests without parameters are not cases of a suite.
                counts[pathlib.Path(file.split("::")[0]).stem][outcome] += 1
    terminalreporter.section("suites of other projects")
    for name in sorted(counts.keys() & PACKAGES.keys()):
        package = PACKAGES[name]
        numbers = ", ".join(f"{n} {outcome}" for outcome, n in counts[name].items())
        terminalreporter.write_line(f"{package} {version(package)}: {numbers}")


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
