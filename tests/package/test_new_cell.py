"""A new cell: what it still lacks in the package; a user's, from `jaxrnn.extend`."""

import functools
import inspect
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from helpers import bound

import jaxrnn
from jaxrnn import contrib, extend
from jaxrnn.extend import BareMemoryCell, fields
from jaxrnn.testing import check_cell

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
    "FunctionCell": "tests/cells/test_own_cells.py",  # It has no equation.
    "RGLRUCell": "tests/cells/test_linear_cells.py",  # Those of RecurrentGemma.
    "SLSTMCell": "tests/cells/test_matrix_memory.py",  # Those of xLSTM.
    "ShortConvCell": "tests/wrappers/test_wrappers.py",
}
# Pages may name the cell with the same rule.
ALIASES = {"MLSTMMemoryCell": "MLSTMMemoryCell|MLSTMCell|mLSTM"}


def cells_of(module):
    """The classes of cells that a module exports."""
    values = [getattr(module, name) for name in module.__all__]
    classes = [value for value in values if inspect.isclass(value)]
    cells = [cls for cls in classes if issubclass(cls, jaxrnn.RNNCell)]
    return [cls for cls in cells if not inspect.isabstract(cls)]


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


@pytest.mark.parametrize("module", [jaxrnn, contrib])
def test_no_exported_cell_lacks_anything(module):
    page = module.__name__.rpartition(".")[2]
    cells = cells_of(module)
    text = [
        f"{cell.__name__} lacks {what}." for cell in cells for what in lacks(cell, page)
    ]
    assert not text, "\n".join(text)


# A user's cell and wrapper.


@fields.dataclass
class Leaky(extend.SpecsCell):
    """A leaky integrator of a projection."""

    num_units: int = fields.size()
    leak: float = fields.number(0.1, low=0, high=1)
    activation: fields.ActivationLike = fields.activation(none="linear")

    state_size = output_size = property(lambda self: self.num_units)

    def param_specs(self, depth):
        return extend.affine_specs(depth, self.num_units)

    def step(self, params, inputs, state):
        extend.expect(len(inputs) < 9, "inputs", "have few rows", inputs, "Split.")
        z = extend.affine(params, [inputs], state.dtype)
        state = (1 - self.leak) * state + self.leak * self.activation(z)
        return state, state


@fields.dataclass
class Scaled(extend.ParamsWrapper):
    """Multiplies the inputs of a cell by a learned vector."""

    def own_specs(self, depth):
        return {"scale": jaxrnn.ParamSpec((depth,), jax.nn.initializers.ones)}

    def init(self, key, inputs, dtype=None):
        depth = extend.check_step_inputs(inputs).shape[1]
        return self.init_params(key, depth, inputs, dtype)

    def apply(self, params, inputs, state, key=None):
        inputs = extend.check_step_inputs(inputs)
        own, inner = self.checked_params(params, inputs, key)
        return self.cell.apply(inner, inputs * own["scale"][None], state, key)


@pytest.mark.slow
def test_a_users_cell_and_wrapper_keep_the_laws():
    cell = Scaled(Leaky(3, 0.5, "tanh"))
    check_cell(cell, jax.ShapeDtypeStruct((4, 3), jnp.float32))


def test_a_users_cell_in_a_users_wrapper():
    cell, x = bound(Scaled(Leaky(3)), 2), np.ones((3, 4, 2)).cumsum(1)
    got, _ = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)
    assert cell.params.keys() == {"scale", "leaky"}
    scale, inner = map(jax.device_get, map(cell.params.get, ("scale", "leaky")))
    want = np.zeros((3, 3))
    for t in range(4):
        z = x[:, t] * scale @ inner["kernel"] + inner["bias"]
        want = 0.9 * want + 0.1 * z
        np.testing.assert_allclose(got[:, t], want, rtol=1e-5)


def test_errors_of_a_users_cell_name_the_argument():
    cell, x = bound(Leaky(3), 2), np.ones((3, 2))
    rows = r"^`inputs` must have few rows, got float64\[9, 2\]\. Split\.$"
    with pytest.raises(ValueError, match=rows):
        cell(jnp.ones((9, 2)), jnp.ones((9, 3)))
    with pytest.raises(ValueError, match=r"^`leak` must be in \[0, 1\], got 2\.0\.$"):
        Leaky(3, leak=2.0)
    undecorated = type("New", (Leaky,), {"rate": fields.number(1.0)})
    with pytest.raises(
        TypeError,
        match=r"^New declares fields, but is no dataclass\. Decorate the class with `@",
    ):
        undecorated(3)
    structure = r"^`params` must have the structure {'scale': \*}"
    with pytest.raises((TypeError, ValueError), match=structure):
        Scaled(cell.cell).apply({"leaky": cell.params}, x, x)
    with pytest.raises(ValueError, match=r"be \[batch, 4, 2\]"):
        extend.check_step_inputs(jnp.ones((3, 2)), size=(4, 2))
