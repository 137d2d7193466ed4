"""Breaks lines of the package, one at a time, and counts those that the tests notice.

    python tests/mutations.py --seed 57 --list mutants.json --results mutants.jsonl

draws lines of `jaxrnn/` and `native/src`, breaks each in one way in a copy of the
working tree, and runs there the fast tests that `python -m tests.changed` runs for the
file of the line, until one fails. All lines that no test has noticed are then broken
together for one run of all fast tests, since one run for each would take hours. Each
line is tried alone on the tests that fail, and those noticed are mended, until all fast
tests pass. With `--slow`, the slow tests of the lines that are left run last.

A result says in which stage the mutant was caught, if it was:

    build      the C++ does not compile
    import     modules or tests cannot be imported, and without the mutant they can
    selection  a test of the C++ or of the file of the line fails, crashes or never ends
    fast       another fast test does
    slow       a slow test of the file of the line does
    escaped    none does
    gone       no file has the line any more

Any other end of the tests, such as a test that does not exist, says nothing about the
mutant, and stops the program. So do tests that fail without a mutant: the first line of
each language is tried unchanged before all others, on the tests of its file (all fast
tests would take too long, and run at the end anyway), and must escape.

The list is stored, and read if the file exists, so that the same mutants can be tried
on a later version: each is found by its text. New lines replace those that are gone. A
run with results in its file goes on after them.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator

import changed
from mutants import Mutant, draw, is_gone, place, renewed

ROOT = pathlib.Path(__file__).parents[1]
IGNORED = (".git", ".venv", "__pycache__", "build", "_build", ".*_cache")
BUILD = "native/build/mutations"
# The statuses of pytest: tests failed; the collection failed; a hook failed.
FAILED, NOT_COLLECTED, INTERNAL = 1, 2, 3
CTEST_FAILED = 8
CRASHES = [-signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL]
CRASHES += [-signal.SIGSEGV]


class Stop(Exception):
    """The tests ended in a way that says nothing about the mutant."""

    def __init__(self, command: list[str], status: int | None, text: str) -> None:
        super().__init__(f"{text[-3000:]}\n{command} ended with status {status}.")


@dataclasses.dataclass(frozen=True)
class Copy:
    """A copy of the checkout.

    Attributes:
        root: The folder.
        python: The interpreter.
        limit: The seconds after which a test is taken to have no end.
        selection: The arguments of pytest for the tests of a file.
    """

    root: pathlib.Path
    python: str
    limit: float
    selection: Callable[[str], list[str]] = lambda file: changed.options_of([file])

    @contextlib.contextmanager
    def broken(self, *mutants: Mutant) -> Iterator[None]:
        """Breaks lines, and mends them."""
        texts = {}
        try:
            for mutant in mutants:
                file, number = place(mutant, self.root)
                lines = file.read_text().splitlines(keepends=True)
                texts.setdefault(file, "".join(lines))
                lines[number] = lines[number].replace(mutant.old, mutant.new)
                file.write_text("".join(lines))
            yield
        finally:
            for file, text in texts.items():
                file.write_text(text)

    def run(self, *command: str) -> tuple[int | None, str]:
        """The status of a command, None if it has no end, and what it prints."""
        # Without files of bytecode: those of a mutant would seem to be up to date if it
        # has the size and the second of the file before.
        own = {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        settings = {"cwd": self.root, "env": os.environ | own, "text": True}
        settings |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, start_new_session=True, **settings)
        try:
            text = process.communicate(timeout=20 * self.limit)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, process.communicate()[0]
        return process.returncode, text

    def pytest(self, *options: str) -> tuple[int | None, str]:
        """The status of a run of tests, and what it prints."""
        ends = ["-o", f"faulthandler_timeout={self.limit}"]
        ends += ["-o", "faulthandler_exit_on_timeout=true"]
        return self.run(self.python, "-m", "pytest", "-q", *ends, *options)

    def build(self, *mutants: Mutant) -> str:
        """Compiles the C++ if it is broken or was, and returns the errors."""
        is_native = [mutant.is_native for mutant in mutants]
        if not any(is_native) and not (self.root / BUILD).exists():
            return ""
        make = ["cmake", "-S", "native", "-B", BUILD, "-DSKBUILD_STATE=editable"]
        make += ["-DJAXRNN_NATIVE_TESTS=ON", f"-DPython_EXECUTABLE={self.python}"]
        status, text = self.run(*make)
        if status != 0:
            raise Stop(make, status, text)
        status, text = self.run("cmake", "--build", BUILD, "--parallel", "2")
        return text if status else ""

    def test(self, mutant: Mutant, options: list[str]) -> tuple[str, str]:
        """What catches a mutant ("tests" or what precedes them), and its text.

        Both are empty if the tests pass.
        """
        native = ["ctest", "--test-dir", BUILD, "--stop-on-failure"]
        # One process, because pytest-xdist ends with other statuses.
        tests = "-n0 -p no:cacheprovider -p tests.first_failure".split() + options
        with self.broken(mutant):
            if errors := self.build(mutant):
                return "build", errors
            if mutant.is_native:
                status, text = self.run(*native)
                if status in (CTEST_FAILED, None):
                    return "tests", text
                if status != 0:
                    raise Stop(native, status, text)
            status, text = self.pytest(*tests)
        if status == 0:
            return "", ""
        if status in (FAILED, None, *CRASHES):
            return "tests", text
        if status in (NOT_COLLECTED, INTERNAL):
            unchanged, _ = self.pytest(*tests, "--collect-only")
            if unchanged == 0:
                return "import", text
        raise Stop(tests, status, text)


def result(mutant: Mutant, stage: str, text: str, start: float) -> dict:
    """A row of the results."""
    pattern = r"\w*[eE]rror: .*|\d+ - \w+ \(.*\)|(?:FAILED|ERROR) .*|Timeout .*"
    found = re.findall(pattern, text)
    by = found[-1] if found else text[-300:]
    seconds = round(time.monotonic() - start, 1)
    print(f"{seconds:.0f} s, {mutant.file}:{mutant.line}: {stage} {by}", flush=True)
    return {"mutant": vars(mutant), "stage": stage, "by": by, "seconds": seconds}


def alone(mutant: Mutant, copy: Copy, stage: str, options: list[str]) -> dict:
    """The result of some tests of one mutant; the stage is empty if they pass."""
    start = time.monotonic()
    found, text = copy.test(mutant, options)
    return result(mutant, found.replace("tests", stage), text, start)


def select(mutant: Mutant, copy: Copy) -> dict:
    """The result of the fast tests of the mutant's file."""
    if is_gone(mutant, copy.root):
        return result(mutant, "gone", "", time.monotonic())
    return alone(mutant, copy, "selection", of_file(mutant, copy, "not slow"))


def slow(mutant: Mutant, copy: Copy) -> dict:
    """The result of the slow tests of the mutant's file."""
    return alone(mutant, copy, "slow", of_file(mutant, copy, "slow"))


def of_file(mutant: Mutant, copy: Copy, marks: str) -> list[str]:
    """The arguments of pytest for the tests of the mutant's file with these marks."""
    file = place(mutant, copy.root)[0].relative_to(copy.root)
    return [*copy.selection(str(file)), "-m", f"touched and {marks}"]


def check_unchanged(mutants: list[Mutant], copy: Copy) -> None:
    """Try mutants that change nothing, of one line of each language.

    Raises:
        Stop: If one does not escape.
    """
    present = [mutant for mutant in mutants if not is_gone(mutant, copy.root)]
    first = {mutant.is_native: mutant for mutant in reversed(present)}
    for mutant in first.values():
        row = select(dataclasses.replace(mutant, new=mutant.old), copy)
        if row["stage"]:
            raise Stop(["an unchanged line"], None, json.dumps(row, indent=1))


def run_fast(mutants: list[Mutant], copy: Copy, options: list[str]) -> list[str]:
    """The ids of all fast tests that fail if all mutants are in the copy at once."""
    cache = copy.root / ".pytest_cache/v/cache/lastfailed"
    cache.unlink(missing_ok=True)
    with copy.broken(*mutants):
        if errors := copy.build(*mutants):
            raise Stop(["cmake"], None, errors)
        status, text = copy.pytest("-m", "not slow", *options)
    if status not in (0, FAILED):
        raise Stop(["all fast tests", *map(str, mutants)], status, text)
    return [*json.loads(cache.read_text())] if status else []


def fast(
    mutants: list[Mutant], copies: list[Copy], options: list[str]
) -> Iterator[dict]:
    """The results of mutants that all fast tests notice."""
    while failed := run_fast(mutants, copies[0], options):
        rows = [*each(lambda *given: alone(*given, "fast", failed), mutants, copies)]
        caught = [row for row in rows if row["stage"]]
        if not caught:
            # They fail without a mutant, or only with several.
            raise Stop(["no mutant alone, all fast tests"], FAILED, "\n".join(failed))
        yield from caught
        found = [Mutant(**row["mutant"]) for row in caught]
        mutants = [mutant for mutant in mutants if mutant not in found]


def each(
    function: Callable, mutants: list[Mutant], copies: list[Copy]
) -> Iterator[dict]:
    """The results of a function of a mutant and a copy, as they come."""
    free = queue.SimpleQueue()
    for one in copies:
        free.put(one)

    def task(mutant: Mutant) -> dict:
        copy = free.get()
        try:
            return function(mutant, copy)
        finally:
            free.put(copy)

    with concurrent.futures.ThreadPoolExecutor(len(copies)) as pool:
        tasks = [pool.submit(task, mutant) for mutant in mutants]
        try:
            for done in concurrent.futures.as_completed(tasks):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def make_environment(folder: pathlib.Path) -> str:
    """Create an environment with all packages of this one but jaxrnn.

    An editable install of jaxrnn would be tested in place of the copy. Python reads its
    `.pth` file only in its own environment.
    """
    venv.create(folder)
    [packages] = folder.glob("lib/*/site-packages")
    folders = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "all.pth").write_text("\n".join(folders))
    return str(folder / "bin" / "python")


def table(rows: list[dict]) -> str:
    """How many mutants of each room were caught, in which stage, and the others."""
    tried, stages = collections.Counter(), collections.Counter()
    caught, others = collections.Counter(), []
    for row in rows:
        mutant = Mutant(**row["mutant"])
        tried[mutant.room] += 1
        stages[row["stage"]] += 1
        is_caught = row["stage"] not in ("", "escaped", "gone")
        caught[mutant.room] += is_caught
        if not is_caught:
            others.append(f"\n{row['stage']} ({mutant.kind}): {mutant.file}")
            others += [f"  - {mutant.old}", f"  + {mutant.new}"]
    lines = ["| room | mutants | caught |", "|---|--:|--:|"]
    lines += [f"| {room} | {tried[room]} | {caught[room]} |" for room in sorted(tried)]
    lines.append(f"| all | {tried.total()} | {caught.total()} |")
    lines.append(", ".join(f"{stage}: {stages[stage]}" for stage in sorted(stages)))
    return "\n".join(lines + others)


def main() -> None:
    """Draw or read the list, try each mutant, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seed", type=int, default=0)
    add("--count", type=int, default=60)
    add("--list", type=pathlib.Path, required=True)
    add("--results", type=pathlib.Path, required=True)
    add("--limit", type=float, default=120, help="seconds for one test")
    add("--jobs", type=int, default=2, help="mutants at once, each in a copy")
    add("--slow", action="store_true", help="run slow tests too")
    options = parser.parse_args()
    if options.list.exists():
        read = [Mutant(**row) for row in json.loads(options.list.read_text())]
        mutants = renewed(read, ROOT, options.seed)
    else:
        mutants = draw(ROOT, options.seed, options.count)
    text = json.dumps([*map(dataclasses.asdict, mutants)], indent=1)
    options.list.write_text(f"{text}\n")
    options.results.touch()
    done = map(json.loads, options.results.open())
    rows = {Mutant(**row["mutant"]): row for row in done}

    def keep(row: dict) -> None:
        rows[Mutant(**row["mutant"])] = row
        with options.results.open("a") as file:
            file.write(json.dumps(row) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        python = make_environment(pathlib.Path(folder) / "environment")
        copies = []
        for number in range(options.jobs):
            root = pathlib.Path(folder) / f"copy{number}"
            shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(*IGNORED))
            copies.append(Copy(root, python, options.limit))
        at = lambda *stages: [m for m in mutants if rows[m]["stage"] in stages]
        try:
            check_unchanged(mutants, copies[0])
            # The library is compiled anew after each native mutant, so these come last.
            new = [mutant for mutant in mutants if mutant not in rows]
            new.sort(key=lambda mutant: mutant.is_native)
            for row in each(select, new, copies):
                keep(row)
            for row in fast(at(""), copies, ["-n", str(options.jobs)]):
                keep(row)
            for row in each(slow, at("", "escaped") if options.slow else [], copies):
                keep(row)
        except Stop as stop:
            raise SystemExit(str(stop)) from stop
    for mutant in at(""):
        keep(rows[mutant] | {"stage": "escaped"})
    print(table([rows[mutant] for mutant in mutants]))


if __name__ == "__main__":
    main()
