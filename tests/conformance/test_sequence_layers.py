"""sequence-layers' contract of a layer, for every exported cell that fits a layer.

The layer is the adapter of the page "Use a cell as a sequence layer".
"""

import importlib.util
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
import run_page
from cases import CASES
from helpers import usual_promotion

import jaxrnn

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "recipes" / "sequence_layer.md"
INSTALLED = importlib.util.find_spec("sequence_layers") is not None
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not INSTALLED, reason="sequence-layers is not installed"),
]

# A layer has one array of inputs and one of outputs, and starts from a zero state.
INEXPRESSIBLE = {
    "attention": "its state holds what an encoder returned",
    "function_nested": "its inputs and outputs are nests",
    "phased": "its inputs are a pair",
    "phased_fixed": "its inputs are a pair",
}
FITTING = {name: case for name, case in CASES.items() if name not in INEXPRESSIBLE}
ROWS = {type(case.cell): name for name, case in reversed(FITTING.items())}


@pytest.fixture(scope="module")
def suite():
    """sequence-layers' base class of tests, and its random sequences."""
    from sequence_layers.jax import test_utils

    class Suite(test_utils.SequenceLayerTest):
        random_sequence = staticmethod(test_utils.random_sequence)

    return Suite()


@pytest.fixture(scope="module")
def adapter():
    """The class that the page's first block defines."""
    namespace = {"__name__": __name__}
    block = run_page.BLOCK.search(PAGE.read_text())
    exec(compile(block["code"], PAGE, "exec"), namespace)
    return namespace["CellLayer"]


def verify(suite, adapter, cell, inputs, gaps):
    """Check the contract on rows with lengths, or with gaps in their masks."""
    suite.setUp()  # Seeds NumPy.
    differentiable = jnp.issubdtype(inputs.dtype, jnp.floating)
    with usual_promotion(), jax.enable_x64(False):
        x = suite.random_sequence(
            *(3, 4, *inputs.shape[1:]), dtype=inputs.dtype, random_mask=gaps, high=2
        )
        layer = suite.init_and_bind_layer(jax.random.key(0), adapter(cell), x)
        suite.verify_contract(
            layer,
            x,
            training=False,
            rtol=1e-5,
            atol=1e-5,
            padding_invariance_pad_value=jnp.nan if differentiable else 1,
            # The receptive field ignores the mask and comes from gradients of inputs.
            test_receptive_field=differentiable and not gaps,
        )


@pytest.mark.parametrize("gaps", [False, True], ids=["lengths", "gaps"])
@pytest.mark.parametrize("name", ROWS.values())
def test_contract(name, gaps, suite, adapter):
    case = CASES[name]
    verify(suite, adapter, case.cell, case.inputs, gaps)


def mixed(params, inputs, state, key=None):
    state = state + inputs + inputs.sum(axis=0, keepdims=True)
    return state, state


def test_the_suite_finds_a_cell_that_mixes_rows(suite, adapter):
    cell = jaxrnn.FunctionCell(mixed, 3, 3)
    with pytest.raises(AssertionError):
        verify(suite, adapter, cell, jax.ShapeDtypeStruct((3, 3), jnp.float32), False)


def test_page(fast_to_compile):
    program = [sys.executable, run_page.__file__, PAGE]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
