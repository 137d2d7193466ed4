"""Broken lines: how they are drawn, and where they are in a later version."""

import ast
import collections
import copy
import dataclasses
import pathlib
import random
import re
from collections.abc import Iterator

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


def renewed(mutants: list[Mutant], root: pathlib.Path, seed: int) -> list[Mutant]:
    """The mutants, with new ones in place of those whose lines are gone."""
    kept = [mutant for mutant in mutants if not is_gone(mutant, root)]
    lines = {(mutant.file, mutant.old) for mutant in kept}
    new = draw(root, seed, len(mutants))
    new = [mutant for mutant in new if (mutant.file, mutant.old) not in lines]
    return kept + new[: len(mutants) - len(kept)]
