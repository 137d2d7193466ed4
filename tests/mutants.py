"""Draws mutants, lines of the package that are broken in one way, and applies them."""

import ast
import collections
import copy
import dataclasses
import functools
import pathlib
import random
import re
import textwrap
from collections.abc import Iterator

OPPOSITES = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
SELECTIONS = ("where", "select")
TRANSPOSITIONS = ("swapaxes", "moveaxis", "transpose")
# Calls that crash, or do the same, with their arguments swapped.
NOT_SWAPPED = (
    "isinstance",
    "hasattr",
    "cast",
    "min",
    "max",
    "minimum",
    "maximum",
    "zip",
)
OPERATORS = (ast.BinOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Lambda, ast.UnaryOp)

# For lines of C++: the kind, what to look for, and what to write instead.
CPP_RULES = [
    ("comparison", r"(?<= )<(?= )", "<="),
    ("comparison", r"(?<= )<=(?= )", "<"),
    ("comparison", r"(?<= )>(?= )", ">="),
    ("comparison", r"(?<= )==(?= )", "!="),
    ("sign", r"(?<=[\w\])] )\+(?= )", "-"),
    ("sign", r"(?<=[\w\])] )-(?= )", "+"),
    ("sign", r"\+=", "-="),
    ("off by one", r" [-+] 1\b", ""),
    ("off by one", r"(?<= = )0(?=[;,)])", "1"),
    ("term", r"(?<=[\w\])]) [+*] [\w.]+(?=[;,)])", ""),
    ("condition", r"\bif \((?!constexpr)(.*)\)(?= \{$|$)", r"if (!(\1))"),
    ("condition", r"&&", "||"),
    ("not", r"!(?=\w)", ""),
]


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A broken line.

    Attributes:
        file: The path from the root of the checkout.
        line: The number of the first line when the mutant was drawn.
        function: The classes and functions around the line; "" in C++.
        old: The text of the line, or of the lines of the expression.
        new: The text that replaces it.
        kind: How the line is broken.
    """

    file: str
    line: int
    function: str
    old: str
    new: str
    kind: str

    @property
    def room(self) -> str:
        top, name, *_ = pathlib.Path(self.file).parts
        return top if top == "native" else name.removesuffix(".py")


def draw(root: pathlib.Path, seed: int, count: int) -> list[Mutant]:
    """Draw mutants of different lines.

    Nine of ten are Python: first a room is drawn, in proportion to its lines of code
    (contrib counts half), then a kind, then a line.
    """
    chance = random.Random(seed)
    rooms, sizes = collections.defaultdict(list), collections.Counter()
    for file in sorted((root / "jaxrnn").rglob("*.py")):
        for mutant in _python_mutants(file, root):
            rooms[mutant.room].append(mutant)
    for room, found in rooms.items():
        lines = {(mutant.file, mutant.line) for mutant in found}
        sizes[room] = len(lines) / (2 if room == "contrib" else 1)
    for file in sorted((root / "native/src").glob("*")):
        rooms["native"] += _cpp_mutants(file, root)
    drawn: dict[tuple, Mutant] = {}
    while len(drawn) < count:
        room = "native"
        if len(drawn) < count - count // 10:
            room = chance.choices(list(sizes), list(sizes.values()))[0]
        kind = chance.choice(sorted({mutant.kind for mutant in rooms[room]}))
        mutant = chance.choice([one for one in rooms[room] if one.kind == kind])
        drawn.setdefault((mutant.file, mutant.line), mutant)
    return list(drawn.values())


def apply(mutant: Mutant, root: pathlib.Path) -> tuple[pathlib.Path, str]:
    """Break the line, and return its file and the text of the file before.

    If the file does not have the line, its function may be in another file by now.

    Raises:
        LookupError: If the line is gone.
    """
    home = root / mutant.file
    others = sorted((root / mutant.file.split("/")[0]).rglob("*" + home.suffix))
    for file in [home] * home.exists() + others:
        text = file.read_text()
        places = list(_places(text, mutant.function, mutant.old))
        if places:
            first, last = places[0]
            lines = text.splitlines()
            indent = re.match(" *", lines[first]).group()
            lines[first:last] = [indent + mutant.new]
            file.write_text("\n".join(lines) + "\n")
            return file, text
    raise LookupError(mutant)


def _places(text: str, function: str, wanted: str) -> Iterator[tuple[int, int]]:
    """Where lines occur in a function: the first line, and the one after the last."""
    lines = [line.strip() for line in text.splitlines()]
    old = [line.strip() for line in wanted.splitlines()]
    parts = {"": [(0, len(lines))]} if not function else _definitions(text)
    for start, end in parts.get(function.split(".")[-1], []):
        for first in range(start, end - len(old) + 1):
            if lines[first : first + len(old)] == old:
                yield first, first + len(old)


@functools.lru_cache(1)
def _definitions(text: str) -> dict[str, list[tuple[int, int]]]:
    """The lines of all functions and classes, by name."""
    found = collections.defaultdict(list)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name].append((node.lineno - 1, node.end_lineno))
    return found


def _python_mutants(file: pathlib.Path, root: pathlib.Path) -> Iterator[Mutant]:
    """All mutants of a file whose lines occur only once."""
    text = file.read_text()
    lines = text.splitlines()
    name = str(file.relative_to(root))
    for node, function in _code(ast.parse(text), ""):
        old = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
        for kind, new in _breaks(node):
            changed = _replaced(lines, node, new)
            is_new = ast.dump(new) != ast.dump(node)
            if is_new and len(list(_places(text, function, old))) == 1:
                yield Mutant(name, node.lineno, function, old, changed, kind)


def _code(node: ast.AST, function: str) -> list[tuple[ast.expr, str]]:
    """The expressions that run: no messages, annotations, imports or docstrings."""
    if isinstance(node, (ast.Raise, ast.Import, ast.ImportFrom, ast.JoinedStr)):
        return []
    if isinstance(node, ast.Assign) and "__all__" in ast.unparse(node.targets[0]):
        return []
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return []
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        if any("overload" in ast.unparse(one) for one in node.decorator_list):
            return []
        function = f"{function}.{node.name}".strip(".")
    found = [(node, function)] if isinstance(node, ast.expr) else []
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "ctx"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_text(child):
                found += _code(child, function)
    return found


def _is_text(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.Expr) else node
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _breaks(node: ast.expr) -> list[tuple[str, ast.expr]]:
    """The ways to break an expression: their kinds, and what replaces it."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in OPPOSITES:
            return [("comparison", _with(node, ops=[OPPOSITES[type(op)]()]))]
        case ast.BinOp(op=ast.Add() | ast.Sub()) if not _joins(node):
            found = [("sign", _with(node, op=OPPOSITES[type(node.op)]()))]
            if isinstance(node.right, ast.Constant):
                return [*found, ("off by one", node.left)]
            return [*found, ("term", node.left)]
        case ast.BinOp(op=ast.Mult()) if not _joins(node):
            return [("term", node.left), ("term", node.right)]
        case ast.BinOp(op=ast.BitAnd()):
            return [("mask", node.left), ("mask", node.right)]
        case ast.UnaryOp(op=ast.USub()):
            return [("sign", node.operand)]
        case ast.UnaryOp(op=ast.Not()):
            return [("not", node.operand)]
        case ast.BoolOp(values=[first, *_]):
            opposite = _with(node, op=OPPOSITES[type(node.op)]())
            return [("condition", opposite), ("condition", first)]
        case ast.IfExp():
            return [("condition", _with(node, test=ast.UnaryOp(ast.Not(), node.test)))]
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return [("off by one", ast.Constant(value + 1))]
        case ast.Attribute(value=inner, attr="T" | "mT"):
            return [("axis", inner)]
        case ast.Call():
            return _broken_calls(node)
    return []


def _broken_calls(node: ast.Call) -> list[tuple[str, ast.expr]]:
    name = ast.unparse(node.func).split(".")[-1]
    if name in SELECTIONS and len(node.args) == 3:
        return [("mask", node.args[1]), ("mask", node.args[2])]
    if name in TRANSPOSITIONS and isinstance(node.func, ast.Attribute):
        is_method = ast.unparse(node.func.value) not in ("jnp", "np", "lax")
        return [("axis", node.func.value if is_method else node.args[0])]
    found = []
    for place, keyword in enumerate(node.keywords):
        match keyword:
            case ast.keyword(arg="axis", value=ast.Constant(value=int(axis))):
                new = copy.deepcopy(node)
                new.keywords[place].value = ast.Constant(axis + (-1 if axis > 0 else 1))
                found.append(("axis", new))
    match node.args:
        case [ast.Name() | ast.Attribute() as first, second, *others]:
            if name not in NOT_SWAPPED and not isinstance(second, ast.Starred):
                found.append(("swap", _with(node, args=[second, first, *others])))
    return found


def _joins(node: ast.BinOp) -> bool:
    """Whether an operator joins sequences: the other operators would only crash."""
    sequences = (ast.Tuple, ast.List, ast.ListComp, ast.JoinedStr)
    for side in (node.left, node.right):
        if isinstance(side, sequences) or _is_text(side):
            return True
        if isinstance(side, ast.BinOp) and _joins(side):
            return True
    return False


def _with(node: ast.expr, **changes: object) -> ast.expr:
    new = copy.copy(node)
    for name, value in changes.items():
        setattr(new, name, value)
    return new


def _replaced(lines: list[str], node: ast.expr, new: ast.expr) -> str:
    """The lines of an expression with another one in its place."""
    text = ast.unparse(new)
    if isinstance(new, OPERATORS) and type(new) is not type(node):
        text = f"({text})"
    first = lines[node.lineno - 1].encode()[: node.col_offset].decode()
    last = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
    return (first + text + last).strip()


def _cpp_mutants(file: pathlib.Path, root: pathlib.Path) -> Iterator[Mutant]:
    text = file.read_text()
    name = str(file.relative_to(root))
    for number, line in enumerate(text.splitlines(), 1):
        old = line.split("//")[0].strip()
        is_declaration = re.match(r"#|static_assert|template|\(", old)
        if is_declaration or len(list(_places(text, "", line))) > 1:
            continue
        for kind, pattern, replacement in CPP_RULES:
            new = re.sub(pattern, replacement, old, count=1)
            if new != old:
                yield Mutant(name, number, "", line.strip(), new, kind)
