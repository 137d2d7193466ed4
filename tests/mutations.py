"""Breaks lines of the package, one at a time, and counts those that the tests notice.

    python tests/mutations.py --seed 57 --list mutants.json --results mutants.jsonl

draws lines of `jaxrnn/`, breaks each in one way in a copy of the working tree, and runs
there the fast tests that `python -m tests.changed` runs for the file of the line, until
one fails. A line that none of them notices is tried again with all fast tests, which
takes minutes for each. A list may also have lines of `native/src`, broken by hand.

A result says in which stage the mutant was caught, if it was:

    build      the C++ does not compile
    selection  a test of the C++ or of the file of the line fails, crashes or never ends
    fast       another fast test does
    escaped    none does
    gone       no file has the line any more

A module of tests that cannot be imported here, without a mutant, is named and left out.
Any other end of the tests, such as a test that does not exist, says nothing about the
mutant, and stops the program. So do tests that fail without a mutant: the first line of
each language is tried unchanged before all others, on the tests of its file, and must
escape.

The list is stored, and read if the file exists, so that the same mutants can be tried
on a later version: each is found by its text. A run with results in its file goes on
after them.
"""

import argparse
import ast
import collections
import concurrent.futures
import contextlib
import copy
import dataclasses
import json
import os
import pathlib
import queue
import random
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

ROOT = pathlib.Path(__file__).parents[1]
IGNORED = (".git", ".venv", "__pycache__", "build", "_build", ".*_cache")
BUILD = "native/build/mutations"
# pytest ends so too if a module cannot be imported.
FAILED = 1
NONE_COLLECTED = 5
CTEST_FAILED = 8
CRASHES = [-signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL]
CRASHES += [-signal.SIGSEGV]


# Mutants.

PAIRS = {ast.Lt: ast.LtE, ast.Gt: ast.GtE, ast.Eq: ast.NotEq, ast.Is: ast.IsNot}
PAIRS |= {ast.In: ast.NotIn, ast.Add: ast.Sub, ast.And: ast.Or}
OPPOSITES = PAIRS | {second: first for first, second in PAIRS.items()}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A broken line.

    Attributes:
        file: The path from the root of the checkout.
        line: The number of the line when the mutant was drawn.
        old: The text of the line, without its indent.
        new: The text that replaces it.
        kind: How the line is broken.
    """

    file: str
    line: int
    old: str
    new: str
    kind: str

    @property
    def is_native(self) -> bool:
        return self.file.startswith("native/")


def draw(root: pathlib.Path, seed: int, count: int) -> list[Mutant]:
    """Draw mutants of different lines of Python, all kinds as likely."""
    chance = random.Random(seed)
    files = sorted((root / "jaxrnn").rglob("*.py"))
    found = [mutant for file in files for mutant in python_mutants(file, root)]
    kinds = sorted({mutant.kind for mutant in found})
    drawn = {}
    while len(drawn) < count:
        kind = chance.choice(kinds)
        mutant = chance.choice([one for one in found if one.kind == kind])
        drawn.setdefault((mutant.file, mutant.line), mutant)
    return list(drawn.values())


def python_mutants(file: pathlib.Path, root: pathlib.Path) -> Iterator[Mutant]:
    """All mutants of a file, of lines that occur only once."""
    text = file.read_text()
    lines = [line.strip() for line in text.splitlines()]
    for node in _expressions(ast.parse(text)):
        line = text.splitlines()[node.lineno - 1]
        if node.lineno != node.end_lineno or lines.count(line.strip()) > 1:
            continue
        first = line.encode()[: node.col_offset].decode()
        last = line.encode()[node.end_col_offset :].decode()
        for kind, new in _breaks(node):
            broken = f"{first}({ast.unparse(new)}){last}".strip()
            name = str(file.relative_to(root))
            yield Mutant(name, node.lineno, line.strip(), broken, kind)


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions of a tree, except in messages."""
    if isinstance(node, (ast.Raise, ast.JoinedStr)):
        return
    if isinstance(node, ast.expr):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from _expressions(child)


def _breaks(node: ast.expr) -> list[tuple[str, ast.expr]]:
    """The ways to break an expression: their kinds, and what replaces it."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in OPPOSITES:
            return [("comparison", _with(node, ops=[OPPOSITES[type(op)]()]))]
        case ast.BinOp(op=ast.Add() | ast.Sub()) if not _joins(node):
            opposite = _with(node, op=OPPOSITES[type(node.op)]())
            return [("sign", opposite), ("term", node.left)]
        case ast.BinOp(op=ast.Mult()) if not _joins(node):
            return [("term", node.left), ("term", node.right)]
        case ast.BinOp(op=ast.BitAnd()):
            return [("mask", node.left), ("mask", node.right)]
        case ast.UnaryOp(op=ast.USub()):
            return [("sign", node.operand)]
        case ast.UnaryOp(op=ast.Not()):
            return [("condition", node.operand)]
        case ast.BoolOp(values=[first, *_]):
            opposite = _with(node, op=OPPOSITES[type(node.op)]())
            return [("condition", opposite), ("condition", first)]
        case ast.IfExp():
            return [("condition", _with(node, test=ast.UnaryOp(ast.Not(), node.test)))]
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return [("off by one", ast.Constant(value + 1))]
        case ast.Attribute(value=inner, attr="T" | "mT"):
            return [("axis", inner)]
        case ast.Call(func=ast.Attribute(value=of, attr=name), args=arguments):
            is_method = ast.unparse(of) not in ("jnp", "np", "lax")
            if name in ("where", "select") and len(arguments) == 3:
                return [("mask", arguments[1]), ("mask", arguments[2])]
            if name in ("swapaxes", "moveaxis", "transpose"):
                return [("axis", of if is_method else arguments[0])]
    return []


def _joins(node: ast.expr) -> bool:
    """Whether an operator joins sequences: the other operators would only crash."""
    if isinstance(node, ast.BinOp):
        return _joins(node.left) or _joins(node.right)
    return isinstance(node, (ast.Tuple, ast.List, ast.ListComp, ast.JoinedStr)) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _with(node: ast.expr, **changes: object) -> ast.expr:
    new = copy.copy(node)
    vars(new).update(changes)
    return new


def place(mutant: Mutant, root: pathlib.Path) -> tuple[pathlib.Path, int]:
    """The file of a mutant, and the index of its line.

    If the file does not have the line, the only other file that has it is taken.

    Raises:
        LookupError: If the line is gone.
    """
    home = root / mutant.file
    others = (root / mutant.file.split("/")[0]).rglob("*" + home.suffix)
    places = collections.defaultdict(list)
    for file in others:
        for number, line in enumerate(file.read_text().splitlines()):
            if line.strip() == mutant.old:
                places[file].append(number)
    file = home if home in places or len(places) != 1 else next(iter(places))
    if file not in places:
        raise LookupError(mutant)
    return file, min(places[file], key=lambda number: abs(number + 1 - mutant.line))


def is_gone(mutant: Mutant, root: pathlib.Path) -> bool:
    try:
        place(mutant, root)
    except LookupError:
        return True
    return False


# Their tests.


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
        missing: The modules of tests that cannot be imported.
    """

    root: pathlib.Path
    python: str
    limit: float
    selection: Callable[[str], list[str]] = lambda file: changed.options_of([file])
    missing: tuple[str, ...] = ()

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
        ends += [f"--ignore={file}" for file in self.missing]
        ends += [option for option in options if option not in self.missing]
        return self.run(self.python, "-m", "pytest", "-q", *ends)

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
        tests = "-n0 -x -p no:cacheprovider".split() + options
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
        if status == 0 or (status == NONE_COLLECTED and self.missing):
            return "", ""
        if status in (FAILED, None, *CRASHES):
            return "tests", text
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
    file = place(mutant, copy.root)[0].relative_to(copy.root)
    options = [*copy.selection(str(file)), "-m", "touched and not slow"]
    return alone(mutant, copy, "selection", options)


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


def each(
    function: Callable, mutants: list[Mutant], copies: list[Copy]
) -> Iterator[dict]:
    """The results of a function of a mutant and a copy, for each mutant."""
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
        yield from pool.map(task, mutants)  # An error cancels the tasks that wait.


def without_missing(copies: list[Copy]) -> list[Copy]:
    """The copies, without the modules of tests that cannot be imported in the first."""
    _, text = copies[0].pytest("-n0", "--collect-only", "-p", "no:cacheprovider")
    missing = tuple(re.findall(r"^ERROR (\S+\.py)", text, re.MULTILINE))
    print(f"Left out, because pytest cannot collect them: {missing}")
    return [dataclasses.replace(copy, missing=missing) for copy in copies]


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


def report(rows: list[dict]) -> str:
    """The lines that no test noticed, and how many were caught in which stage."""
    stages = collections.Counter(row["stage"] for row in rows)
    missed = [row for row in rows if row["stage"] in ("escaped", "gone")]
    texts = [
        "{stage} ({kind}): {file}\n  - {old}\n  + {new}".format(**row, **row["mutant"])
        for row in missed
    ]
    counts = [f"{stage}: {stages[stage]}" for stage in sorted(stages)]
    return "\n".join([*texts, ", ".join(counts)])


def main() -> None:
    """Draw or read the list, try each mutant, and print the report."""
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
    options = parser.parse_args()
    if options.list.exists():
        mutants = [Mutant(**row) for row in json.loads(options.list.read_text())]
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
        copies = without_missing(copies)
        at = lambda *stages: [m for m in mutants if rows[m]["stage"] in stages]
        try:
            check_unchanged(mutants, copies[0])
            # The library is compiled anew after each native mutant, so these come last.
            new = [mutant for mutant in mutants if mutant not in rows]
            new.sort(key=lambda mutant: mutant.is_native)
            for row in each(select, new, copies):
                keep(row)
            missed = lambda one, copy: alone(one, copy, "fast", ["-m", "not slow"])
            for row in each(missed, at(""), copies):
                keep(row)
        except Stop as stop:
            raise SystemExit(str(stop)) from stop
    for mutant in at(""):
        keep(rows[mutant] | {"stage": "escaped"})
    print(report([rows[mutant] for mutant in mutants]))


if __name__ == "__main__":
    main()
