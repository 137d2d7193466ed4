"""The folders, their layers and their files match the documentation."""

import ast
import inspect
import pathlib
import re
import tomllib

import jaxrnn

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "jaxrnn"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = CONTRACTS["tool"]["importlinter"]["contracts"]


def test_layers_are_those_of_the_table():
    layers = next(c["layers"] for c in CONTRACTS if c["type"] == "layers")
    linted = [set(re.findall(r"jaxrnn\.(\w+)", layer)) for layer in layers]
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = {}
    for number, folders in re.findall(r"^\| (\d+) \| (.*?) \|", text, re.MULTILINE):
        table.setdefault(int(number), set()).update(re.findall(r"`(\w+)/?`", folders))
    assert [table[number] for number in sorted(table, reverse=True)] == linted


def test_layers_hold_all_folders():
    layers = next(c["layers"] for c in CONTRACTS if c["type"] == "layers")
    rooms = re.findall(r"jaxrnn\.(\w+)", " ".join(layers))
    found = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    found |= {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert set(rooms) == found


def test_no_cell_imports_a_cell_and_no_wrapper_a_wrapper():
    names = [node for node in imports_of("__init__") if cells_among(node)]
    files = {node.module for node in names}
    assert "_cells.lstm" in files
    for file in files:
        folder = file.split(".")[0]
        imported = {
            f"{folder}.{name}"
            for node in imports_of(file)
            if node.level == 1
            for name in [node.module or "", *(alias.name for alias in node.names)]
        }
        assert imported & files == set(), file


def imports_of(module):
    path = PACKAGE / f"{module.replace('.', '/')}.py"
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.ImportFrom)]


def cells_among(node):
    names = [alias.asname or alias.name for alias in node.names]
    return [name for name in names if is_cell(getattr(jaxrnn, name))]


def is_cell(value):
    is_class = inspect.isclass(value) and issubclass(value, jaxrnn.RNNCell)
    return is_class and not inspect.isabstract(value)


def test_files_that_pages_name_are_there():
    for page in ("CONTRIBUTING.md", "docs/guide/how_it_works.md"):
        for name in re.findall(r"`([\w/]+/\w+\.py)`", (ROOT / page).read_text()):
            assert (ROOT / name).exists() or (PACKAGE / name).exists(), (page, name)
