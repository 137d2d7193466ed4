"""Modules: their layers, what an import loads, and hints at other libraries' names."""

import ast
import doctest
import inspect
import pathlib
import pydoc
import re
import subprocess
import sys
import tomllib

import pytest

import jaxrnn

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "jaxrnn"
TOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
CONTRACTS = TOOLS["importlinter"]["contracts"]
LAYERS = next(c["layers"] for c in CONTRACTS if c["type"] == "layers")
LAYERS = [set(re.findall(r"jaxrnn\.(\w+)", layer)) for layer in LAYERS]


def test_layers_hold_all_folders_and_are_those_of_the_table():
    found = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    found |= {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert set().union(*LAYERS) == found
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = {}
    for number, folders in re.findall(r"^\| (\d+) \| (.*?) \|", text, re.MULTILINE):
        table.setdefault(int(number), set()).update(re.findall(r"`(\w+)/?`", folders))
    assert [table[number] for number in sorted(table, reverse=True)] == LAYERS


def test_contributors_are_told_how_much_they_read():
    """The numbers of lines are right to 10 %, of folders and of lists of files."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| \d+ \| (.*?) \| ([\d,]+) \|", text, re.MULTILINE)
    rows += re.findall(r"^\| (.* \| .*\.py.*) \| ([\d,]+) \|$", text, re.MULTILINE)
    assert len(rows) > 20
    for what, lines in rows:
        names = re.findall(r"`(_[\w/]+\.py)`", what) or re.findall(r"`(\w+)/?`", what)
        paths = [PACKAGE / name for name in names]
        files = [file for path in paths for file in files_of(path)]
        found = sum(len(file.read_text().splitlines()) for file in files)
        assert int(lines.replace(",", "")) == pytest.approx(found, rel=0.1), what


def files_of(path):
    if path.is_dir():
        return path.rglob("*.py")
    return [path.with_suffix(".py")]


def test_no_cell_imports_a_cell_and_no_wrapper_a_wrapper():
    nodes = imports_of("__init__")
    files = {node.module for node in nodes if any(map(is_cell, node.names))}
    assert "_cells.lstm" in files
    for file in files:
        folder = file.split(".")[0]
        for node in imports_of(file):
            names = [node.module, *(alias.name for alias in node.names)]
            imported = {f"{folder}.{name}" for name in names if node.level == 1}
            assert imported & files == set(), file


def imports_of(module):
    path = PACKAGE / f"{module.replace('.', '/')}.py"
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.ImportFrom)]


def is_cell(alias):
    value = getattr(jaxrnn, alias.asname or alias.name)
    is_class = inspect.isclass(value) and issubclass(value, jaxrnn.RNNCell)
    return is_class and not inspect.isabstract(value)


def test_files_that_pages_name_are_there():
    for page in ("CONTRIBUTING.md", "docs/internals.md"):
        for name in re.findall(r"`([\w/]+/\w+\.py)`", (ROOT / page).read_text()):
            assert (ROOT / name).exists() or (PACKAGE / name).exists(), (page, name)


MODULES = ["contrib", "convert", "decode", "export", "extend", "initializers"]
MODULES += ["lite", "testing", "typing"]
OF_FLAX = ["linen", "nnx"]
PROGRAM = f"""
import jax, sys; before = set(sys.modules); import jaxrnn
print(*set(sys.modules) - before)

assert not hasattr(jaxrnn, "nope")
assert {{*{MODULES + OF_FLAX}}} <= {{*dir(jaxrnn)}}
for name in {MODULES}:
    assert getattr(jaxrnn, name) is sys.modules["jaxrnn." + name]
from jaxrnn import contrib
assert contrib is jaxrnn.contrib
assert jaxrnn.convert.from_torch and "flax" not in sys.modules

import pydoc
sys.modules["flax"] = None  # As if it were not installed.
for statement in "jaxrnn.linen", "from jaxrnn import nnx", "import jaxrnn.linen":
    try:
        exec(statement)
    except ImportError as error:
        print(error)
print({{"linen", "nnx"}} & {{*dir(jaxrnn)}}, len(pydoc.render_doc(jaxrnn)) > 10_000)

del sys.modules["flax"]
print(jaxrnn.nnx.RNN.__name__, jaxrnn.linen.RNN.__name__, "flax" in sys.modules)
"""


def test_modules_are_loaded_when_they_are_touched():
    """In a new process, without earlier imports."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    brought, *errors, without_flax, with_flax = done.stdout.splitlines()
    packages = {name.split(".")[0] for name in brought.split()}
    assert packages - sys.stdlib_module_names <= {"jaxrnn", "jax", "jaxlib", "numpy"}
    assert not {f"jaxrnn.{name}" for name in MODULES + OF_FLAX} & {*brought.split()}
    assert len(errors) == 3
    for error in errors:
        assert error.startswith("the package `flax` is required")
        assert error.endswith("Run `pip install flax`.")
    assert without_flax == "set() True"
    assert with_flax == "RNN RNN True"


HINTS = {
    "rnn_cell": (jaxrnn, r"`jaxrnn\.LSTMCell`"),
    "LSTM": (jaxrnn, r"`LSTMCell`.*`jaxrnn\.nnx`"),
    "DeepRNN": (jaxrnn, r"Use `MultiRNNCell`, whose list may contain functions"),
    "rnn": (jaxrnn.contrib, "All names are in `jaxrnn.contrib`"),
    "static_rnn": (jaxrnn.contrib, r"Use `jaxrnn\.static_rnn`"),
    "legacy_seq2seq": (
        jaxrnn.contrib,
        "`legacy_seq2seq` in `docs/coming_from/tensorflow1.md`",
    ),
    "LSTMBlockWrapper": (jaxrnn.contrib, "`FusedRNNCell`"),
}


@pytest.mark.parametrize("name", HINTS)
def test_hints_at_names_of_other_libraries(name):
    module, hint = HINTS[name]
    with pytest.raises(AttributeError, match=f"no attribute '{name}'.*{hint}"):
        getattr(module, name)
    assert not hasattr(module, name)


def test_a_name_that_nobody_has():
    message = "^module 'jaxrnn' has no attribute 'LSTMCel'$"
    with pytest.raises(AttributeError, match=message) as caught:
        _ = jaxrnn.LSTMCel
    assert caught.value.name == "LSTMCel"  # So Python can suggest similar names.
    assert caught.value.obj is jaxrnn
    with pytest.raises(ImportError, match="cannot import name 'LSTMCel'"):
        exec("from jaxrnn import LSTMCel")


def test_help_opens_with_the_example_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    example = re.search(r"```python\n(.*?)```\n```text\n(.*?)```", readme, re.DOTALL)
    code, output = example.groups()
    examples = doctest.DocTestParser().get_examples(jaxrnn.__doc__)
    without_blanks = lambda text: re.sub("\n+", "\n", text)
    got = "".join(example.source for example in examples)
    assert without_blanks(got) == without_blanks(code)
    assert "".join(example.want for example in examples) == output
    first = pydoc.plain(pydoc.render_doc(jaxrnn)).splitlines()[:60]
    for name in [*MODULES, *OF_FLAX, "memory"]:
        assert any(f"`jaxrnn.{name}`" in line for line in first)
    assert any("`dynamic_rnn`" in line for line in first)
