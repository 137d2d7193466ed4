"""Breaks lines of the package, one at a time, and counts those that the tests notice.

    python tests/mutations.py --seed 57 --list mutants.json --results mutants.jsonl

draws lines of `jaxrnn/` and `native/src`, breaks each in one way in a copy of the
working tree, and runs there all tests of the rooms that the line touches, as
`python -m tests.changed` does, and then the fast tests of all rooms. A mutant is caught
if it does not build, or if a test fails or never ends. The list is stored, and read if
the file exists, so that the same mutants can be tried on a later version: each is found
by its text. A run with results in its file goes on after them.
"""

import argparse
import ast
import collections
import copy
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterator

import changed

ROOT = pathlib.Path(__file__).parents[1]
PAIRS = {ast.Lt: ast.LtE, ast.Gt: ast.GtE, ast.Eq: ast.NotEq, ast.Is: ast.IsNot}
PAIRS |= {ast.In: ast.NotIn, ast.Add: ast.Sub, ast.And: ast.Or}
OPPOSITES = PAIRS | {second: first for first, second in PAIRS.items()}
# For lines of C++: the kind, what to look for, and what to write instead.
CPP_RULES = [
    ("comparison", r"(?<= )<(?= )", "<="),
    ("comparison", r"(?<= )(<|>)=(?= )", r"\1"),
    ("comparison", r"(?<= )==(?= )", "!="),
    ("sign", r"(?<=[\w\])] )\+(?= )", "-"),
    ("sign", r"(?<=[\w\])] )-(?= )", "+"),
    ("off by one", r" [-+] 1\b", ""),
    ("off by one", r"(?<= = )0(?=[;,)])", "1"),
    ("term", r"(?<=[\w\])]) [+*] [\w.]+(?=[;,)])", ""),
    ("condition", r"\bif \((?!constexpr)(.*)\)(?= \{$|$)", r"if (!(\1))"),
    ("condition", r"&&", "||"),
]
IGNORED = (".git", ".venv", "__pycache__", "build", "_build", ".*_cache")
BUILD = "native/build/mutations"


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
    def room(self) -> str:
        top, name, *_ = pathlib.Path(self.file).parts
        return top if top == "native" else name.removesuffix(".py")


def draw(root: pathlib.Path, seed: int, count: int) -> list[Mutant]:
    """Draw mutants of different lines: nine of ten are Python, all kinds as likely."""
    chance = random.Random(seed)
    python, cpp = [], []
    for file in sorted((root / "jaxrnn").rglob("*.py")):
        python += python_mutants(file, root)
    for file in sorted((root / "native/src").glob("*")):
        cpp += cpp_mutants(file, root)
    drawn = {}
    while len(drawn) < count:
        found = python if len(drawn) < count - count // 10 else cpp
        kind = chance.choice(sorted({mutant.kind for mutant in found}))
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
            changed = f"{first}({ast.unparse(new)}){last}".strip()
            name = str(file.relative_to(root))
            yield Mutant(name, node.lineno, line.strip(), changed, kind)


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


def cpp_mutants(file: pathlib.Path, root: pathlib.Path) -> Iterator[Mutant]:
    """All mutants of a file, of lines that occur only once."""
    lines = [line.strip() for line in file.read_text().splitlines()]
    for number, line in enumerate(lines, 1):
        old = line.split("//")[0].strip()
        is_declaration = re.match(r"#|static_assert|template|\(", old)
        for kind, pattern, replacement in CPP_RULES:
            new = re.sub(pattern, replacement, old, count=1)
            if new != old and not is_declaration and lines.count(line) == 1:
                yield Mutant(str(file.relative_to(root)), number, line, new, kind)


def apply(mutant: Mutant, root: pathlib.Path) -> tuple[pathlib.Path, str]:
    """Break the line, and return its file and the text of the file before.

    If the file does not have the line, the only other file that has it is taken.

    Raises:
        LookupError: If the line is gone.
    """
    home = root / mutant.file
    others = (root / mutant.file.split("/")[0]).rglob("*" + home.suffix)
    texts = {file: file.read_text() for file in others}
    places = collections.defaultdict(list)
    for file, text in texts.items():
        for number, line in enumerate(text.splitlines()):
            if line.strip() == mutant.old:
                places[file].append(number)
    file = home if home in places or len(places) != 1 else next(iter(places))
    if file not in places:
        raise LookupError(mutant)
    nearest = min(places[file], key=lambda number: abs(number + 1 - mutant.line))
    lines = texts[file].splitlines(keepends=True)
    lines[nearest] = lines[nearest].replace(mutant.old, mutant.new)
    file.write_text("".join(lines))
    return file, texts[file]


def run(command: list[str], root: pathlib.Path, limit: float) -> tuple[bool, str]:
    """Whether a command succeeds in time, and what it prints."""
    # Without files of bytecode: those of a mutant would seem to be up to date if it has
    # the size and the second of the file before.
    own = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    settings = {"cwd": root, "env": os.environ | own, "start_new_session": True}
    settings |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, **settings)
    try:
        text = process.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return False, "FAILED (no end)"
    return process.returncode in (0, 5), text


def make_environment(folder: pathlib.Path) -> None:
    """Create an environment with all packages of this one but jaxrnn.

    An editable install of jaxrnn would be tested in place of the copy. Python reads its
    `.pth` file only in its own environment.
    """
    venv.create(folder)
    [packages] = folder.glob("lib/*/site-packages")
    (packages / "all.pth").write_text(sysconfig.get_path("purelib"))


def failure(root: pathlib.Path, limit: float, file: str = "") -> str:
    """What fails first when the tests of a file run, then all: empty if nothing."""
    python = str(root.parent / "environment" / "bin" / "python")
    make = ["cmake", "-S", "native", "-B", BUILD, "-DSKBUILD_STATE=editable"]
    make += ["-DJAXRNN_NATIVE_TESTS=ON", f"-DPython_EXECUTABLE={python}"]
    build = [
        make,
        ["cmake", "--build", BUILD, "--parallel", "2"],
        ["ctest", "--test-dir", BUILD, "--stop-on-failure"],
    ]
    tests = [python, *"-m pytest -x -q -p no:cacheprovider".split()]
    touched = [[*tests, "-n0", *changed.options_of([file])]] if file else []
    native = build if file.startswith("native") else []
    for command in [*native, *touched, [*tests, "-n2"]]:
        succeeds, text = run(command, root, limit)
        if not succeeds:
            pattern = r"error: .*|\d+ - \w+ \(.*\)|(?:FAILED|ERROR) .*"
            found = re.findall(pattern, text)
            return found[-1] if found else text[-300:]
    return ""


def attempt(mutant: Mutant, root: pathlib.Path, limit: float) -> dict:
    """The result of a mutant, and what it breaks."""
    start = time.monotonic()
    try:
        file, text = apply(mutant, root)
    except LookupError:
        result, by = "gone", ""
    else:
        by = failure(root, limit, mutant.file)
        result = "caught" if by else "escaped"
        file.write_text(text)
    seconds = time.monotonic() - start
    print(f"{seconds:.0f} s, {mutant.file}:{mutant.line}: {result} {by}", flush=True)
    return {"mutant": vars(mutant), "result": result, "by": by}


def table(rows: list[dict]) -> str:
    """How many mutants of each room were caught, and those that escaped."""
    tried, caught = collections.Counter(), collections.Counter()
    escaped = []
    for row in rows:
        mutant = Mutant(**row["mutant"])
        tried[mutant.room] += 1
        caught[mutant.room] += row["result"] == "caught"
        if row["result"] != "caught":
            escaped.append(f"\n{row['result']} ({mutant.kind}): {mutant.file}")
            escaped += [f"  - {mutant.old}", f"  + {mutant.new}"]
    lines = ["| room | mutants | caught |", "|---|--:|--:|"]
    lines += [f"| {room} | {tried[room]} | {caught[room]} |" for room in sorted(tried)]
    lines.append(f"| all | {tried.total()} | {caught.total()} |")
    return "\n".join(lines + escaped)


def main() -> None:
    """Draw or read the list, try each mutant, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--seed", type=int, default=0)
    add("--count", type=int, default=60)
    add("--list", type=pathlib.Path, required=True)
    add("--results", type=pathlib.Path, required=True)
    add("--limit", type=float, default=1200, help="seconds for one run of tests")
    options = parser.parse_args()
    if not options.list.exists():
        drawn = map(dataclasses.asdict, draw(ROOT, options.seed, options.count))
        options.list.write_text(json.dumps([*drawn], indent=1) + "\n")
    chosen = [Mutant(**row) for row in json.loads(options.list.read_text())]
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder) / "copy"
        shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(*IGNORED))
        make_environment(root.parent / "environment")
        if not options.results.exists():
            if failed := failure(root, options.limit):
                raise SystemExit(f"The tests fail without a mutant: {failed}")
            options.results.touch()
        rows = [json.loads(line) for line in options.results.open()]
        done = [Mutant(**row["mutant"]) for row in rows]
        # A library with a mutant stays in the copy, so native mutants come last.
        left = [mutant for mutant in chosen if mutant not in done]
        for mutant in sorted(left, key=lambda mutant: mutant.room == "native"):
            row = attempt(mutant, root, options.limit)
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
