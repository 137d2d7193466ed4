"""What a new cell still lacks, in one list."""

import functools
import inspect
import json
import pathlib
import re

import pytest
from cases import CASES

import jaxrnn
from jaxrnn import contrib
from jaxrnn.extend import BareMemoryCell, MatrixMemoryCell

ROOT = pathlib.Path(__file__).parents[2]
read = functools.cache(lambda place: (ROOT / place).read_text())
PARAMS = json.loads(read("tests/golden/params.json"))
GUIDE = "docs/guide/cells.md"
# Places of a memory without projections, where nothing else fails if it is missing.
OF_MEMORIES = [
    "docs/guide/recurrences.md",
    "docs/guide/devices.md",
    "jaxrnn/_cells/matrix/memories.py",
]
# Without goldens, only a step in NumPy finds a wrong equation. These cells have their
# numbers from another library or another test.
NUMPY = "tests/cells/test_against_numpy.py"
NUMBERS = {
    "AttentionWrapper": "tests/golden/record/seq2seq.py",
    "CudnnCompatibleGRUCell": "tests/convert/test_all.py",  # Those of PyTorch.
    "FunctionCell": "tests/cells/test_function_cell.py",  # It has no equation.
    "RGLRUCell": "tests/cells/test_linear_cells.py",  # Those of RecurrentGemma.
    "S6MemoryCell": "tests/cells/test_selective_scan.py",
    "SLSTMCell": "tests/cells/test_matrix_memory.py",  # Those of xLSTM.
    "ShortConvCell": "tests/wrappers/test_wrappers.py",
}
# Pages may name the cell with the same rule.
ALIASES = {"MLSTMMemoryCell": "MLSTMMemoryCell|MLSTMCell|mLSTM"}


def is_cell(value):
    is_class = isinstance(value, type) and issubclass(value, jaxrnn.RNNCell)
    return is_class and not inspect.isabstract(value)


CELLS = {
    value: module.__name__.removeprefix("jaxrnn.")
    for module in (jaxrnn, contrib)
    for value in map(vars(module).get, module.__all__)
    if is_cell(value)
}


def classes_in(cell):
    """The classes of a cell and of the cells that it contains."""
    held = [getattr(cell, "cell", None), *getattr(cell, "cells", ())]
    return {type(cell)}.union(*(classes_in(c) for c in held if c is not None))


def lacks(cell, page):
    """What a class of cells lacks.

    Args:
        cell: The class.
        page: The name of its page in the reference.
    """
    rows = {name for name, case in CASES.items() if cell in classes_in(case.cell)}
    name = cell.__name__
    if not rows:
        yield "a row in `tests/cases.py`"
    if not rows or not rows <= PARAMS.keys():
        yield "names of parameters: run `python -m tests.golden.record.params`"
    if cell is not jaxrnn.FunctionCell and "Source:" not in (cell.__doc__ or ""):
        yield "a line `Source:` in its docstring"
    places = [f"docs/api/{page}.md"]
    if not re.search(rf"\b{name}\b", goldens()):
        places.append(NUMBERS.get(name, NUMPY))
    if issubclass(cell, BareMemoryCell):
        places += OF_MEMORIES
    elif page == "jaxrnn":
        places.append(GUIDE)
    for place in places:
        # A file names the classes that it defines; look for a row of its table.
        row = r"\| `({})` " if place == OF_MEMORIES[-1] else r"\b({})\b"
        if not re.search(row.format(ALIASES.get(name, name)), read(place)):
            yield f"its name in `{place}`"


@functools.cache
def goldens():
    """The text of the goldens, which name the cells of TensorFlow."""
    files = (ROOT / "tests/golden").rglob("*.json")
    return "".join(file.read_text() for file in files)


@pytest.mark.parametrize("page", ["jaxrnn", "contrib"])
def test_no_exported_cell_lacks_anything(page):
    cells = [cell for cell, where in CELLS.items() if where == page]
    found = {cell.__name__: [*lacks(cell, page)] for cell in cells}
    text = [f"{name} lacks {what}." for name in found for what in found[name]]
    assert not text, "\n".join(text)


def test_a_cell_that_is_in_no_place_lacks_all():
    for base, places in (BareMemoryCell, OF_MEMORIES), (MatrixMemoryCell, [GUIDE]):
        new = type("New", (base,), {})
        assert len([*lacks(new, "jaxrnn")]) == 5 + len(places)


def test_each_row_tests_an_exported_cell():
    assert {type(case.cell) for case in CASES.values()} <= CELLS.keys()
