"""Every exported cell against its laws: `tests/cases.py` says which."""

import jax.numpy as jnp
import pytest
from cases import CASES as CELLS, RULES

from jaxrnn import testing

CASES = CELLS | RULES


@pytest.fixture(scope="module")
def setup(request):
    """One setup for all laws of a case, so that shared programs are compiled once."""
    case = CASES[request.param]
    return testing.make_setup(case.cell, case.inputs, jnp.float64, case.key, case.state)


def rows():
    for name, case in CASES.items():
        for law in (law for law in testing.LAWS if law in case.laws):
            marks = () if law in case.fast else pytest.mark.slow
            yield pytest.param(name, law, marks=marks, id=f"{name}-{law.__name__}")


@pytest.mark.parametrize(("setup", "law"), list(rows()), indirect=["setup"])
def test_law(setup, law):
    law(setup)
