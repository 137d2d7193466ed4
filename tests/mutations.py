"""Breaks lines of the package, one at a time, and counts those that the tests notice.

    python tests/mutations.py --seed 57 --list mutants.json --results mutants.jsonl

draws lines of `jaxrnn/` and `native/src`, breaks each in one way in a copy of the
working tree, and runs the fast tests there: first those of the folders that belong to
the line's room, then all. A mutant is caught if it does not build, or if a test fails
or never ends. The list is stored, and read if the file exists, so that the same mutants
can be tried on a later version: each is found by its function and its text. A run with
results in its file goes on after them.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import mutants

ROOT = pathlib.Path(__file__).parents[1]
# The folders of tests that run first. Another room has a folder of its name, or none.
FOLDERS = {
    "__init__": ["package"],
    "_base": ["base", "package"],
    "_layers": ["layers"],
    "extend": ["package"],
    "initializers": ["cells"],
    "linen": ["layers"],
    "native": ["native"],
    "nnx": ["layers"],
    "typing": ["package"],
}
IGNORED = (".git", ".venv", "__pycache__", "build", "_build", ".*_cache")
NO_TESTS = 5  # The exit status of pytest if a folder has only slow tests.
BUILD = "native/build/mutations"


class Copy:
    """A copy of the working tree, whose tests run with limits of time."""

    def __init__(self, folder: str):
        self.root = pathlib.Path(folder) / "copy"
        shutil.copytree(ROOT, self.root, ignore=shutil.ignore_patterns(*IGNORED))
        self.environment = os.environ | {"PYTHONPATH": str(self.root)}
        place = "import jaxrnn; print(jaxrnn.__file__)"
        found = self.run([sys.executable, "-c", place], 60)[1]
        if str(self.root) not in found:
            raise SystemExit(f"The copy would not be tested, but {found}")

    def run(self, command: list[str], limit: float) -> tuple[bool, str]:
        """Whether a command succeeds in time, and what it prints."""
        process = subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            text = process.communicate(timeout=limit)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return False, "FAILED (no end)"
        return process.returncode in (0, NO_TESTS), text

    def test(self, folders: list[str], limit: float) -> str:
        """The name of the first test that fails: empty if all pass."""
        command = [sys.executable, *"-m pytest -x -q -p no:cacheprovider".split()]
        workers = "-n0" if folders else "-n2"  # A folder ends soon in one process.
        succeeds, text = self.run([*command, workers, *folders], limit)
        if succeeds:
            return ""
        failed = re.findall(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", text, re.MULTILINE)
        return failed[0] if failed else text[-300:]

    def build(self, limit: float) -> str:
        """What fails when the native loops are built and their C++ tests run."""
        make = ["cmake", "-S", "native", "-B", BUILD, "-DSKBUILD_STATE=editable"]
        make += ["-DJAXRNN_NATIVE_TESTS=ON", f"-DPython_EXECUTABLE={sys.executable}"]
        for command in (
            make,
            ["cmake", "--build", BUILD, "--parallel", "2"],
            ["ctest", "--test-dir", BUILD, "--stop-on-failure"],
        ):
            succeeds, text = self.run(command, limit)
            if not succeeds:
                failed = re.search(r"error: .*|\d+ - \w+ \(.*\)|FAILED.*", text)
                return f"{command[0]}: {failed.group() if failed else text[-300:]}"
        return ""

    def catch(self, mutant: mutants.Mutant, stage: str, limit: float) -> str:
        """What a mutant breaks in a stage of the tests: empty if nothing."""
        file, text = mutants.apply(mutant, self.root)
        # Python would take a file of the same size and second for unchanged.
        cached = pathlib.Path(importlib.util.cache_from_source(str(file)))
        cached.unlink(missing_ok=True)
        try:
            if stage == "native":
                return self.build(limit)
            names = FOLDERS.get(mutant.room, [mutant.room.removeprefix("_")])
            folders = [f"tests/{name}" for name in names] if stage == "room" else []
            exist = all((self.root / folder).is_dir() for folder in folders)
            return self.test(folders, limit) if exist else ""
        finally:
            file.write_text(text)
            cached.unlink(missing_ok=True)


def table(rows: list[dict]) -> str:
    """How many mutants of each room were caught, and those that escaped."""
    tried, caught = collections.Counter(), collections.Counter()
    escaped = []
    for row in rows:
        mutant = mutants.Mutant(**row["mutant"])
        tried[mutant.room] += 1
        if row["result"] not in ("escaped", "gone"):
            caught[mutant.room] += 1
            continue
        where = f"{mutant.file}:{mutant.line} {mutant.function}"
        escaped.append(f"\n{row['result']} ({mutant.kind}): {where}")
        escaped += [f"  - {mutant.old}", f"  + {mutant.new}"]
    lines = ["| room | mutants | caught |", "|---|--:|--:|"]
    lines += [f"| {room} | {tried[room]} | {caught[room]} |" for room in sorted(tried)]
    lines.append(f"| all | {tried.total()} | {caught.total()} |")
    return "\n".join(lines + escaped)


def work(share: list[mutants.Mutant], options: argparse.Namespace) -> None:
    """Try mutants in a copy, and store the result of each that is caught or escapes.

    The stages that take long come last, for the mutants that are left. A library with a
    mutant stays in the copy, so native mutants come after all others.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Copy(folder)
        native = [mutant for mutant in share if mutant.room == "native"]
        left = [mutant for mutant in share if mutant.room != "native"]
        for stage in ("room", "all"):
            left = [m for m in left if not attempt(tree, m, (stage,), options)]
        for mutant in native:
            attempt(tree, mutant, ("native", "room", "all"), options)


def attempt(
    tree: Copy,
    mutant: mutants.Mutant,
    stages: tuple[str, ...],
    options: argparse.Namespace,
) -> bool:
    """Whether the result of a mutant is known after some stages. Stores the result."""
    start = time.monotonic()
    result, by = "", ""
    try:
        for stage in stages:
            by = tree.catch(mutant, stage, options.limit)
            if by or stage == "all":
                result = stage if by else "escaped"
                break
    except LookupError:
        result = "gone"
    place = f"{mutant.file}:{mutant.line} ({mutant.kind})"
    seconds = time.monotonic() - start
    print(f"{seconds:.0f} s, {place}: {result or 'passes'} {by}", flush=True)
    if result:
        row = {"mutant": dataclasses.asdict(mutant), "result": result, "by": by}
        with options.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return bool(result)


def main(arguments: list[str] | None = None) -> None:
    """Draw or read the list, try each mutant, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--seed", type=int, default=0)
    add("--count", type=int, default=60)
    add("--list", type=pathlib.Path, required=True)
    add("--results", type=pathlib.Path, required=True)
    add("--limit", type=float, default=1200, help="seconds for one run of tests")
    add("--workers", type=int, default=1, help="mutants that are tried at once")
    options = parser.parse_args(arguments)
    if options.list.exists():
        rows = json.loads(options.list.read_text())
        chosen = [mutants.Mutant(**row) for row in rows]
    else:
        chosen = mutants.draw(ROOT, options.seed, options.count)
        rows = [dataclasses.asdict(mutant) for mutant in chosen]
        options.list.write_text(json.dumps(rows, indent=1) + "\n")
    if not options.results.exists():
        with tempfile.TemporaryDirectory() as folder:
            if failed := Copy(folder).test([], options.limit):
                raise SystemExit(f"The tests fail without a mutant: {failed}")
        options.results.touch()
    rows = [json.loads(line) for line in options.results.open()]
    done = [mutants.Mutant(**row["mutant"]) for row in rows]
    left = [mutant for mutant in chosen if mutant not in done]
    shares = [left[start :: options.workers] for start in range(options.workers)]
    with concurrent.futures.ThreadPoolExecutor(options.workers) as threads:
        list(threads.map(lambda share: work(share, options), shares))
    print(table([json.loads(line) for line in options.results.open()]))


if __name__ == "__main__":
    main()
