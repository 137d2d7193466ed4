"""Every exported cell against every law."""

import jax.numpy as jnp
import pytest
from cases import CASES, ONE_OF_EACH_KIND

from jaxrnn import testing


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def setup(request):
    """One setup for all laws of a case, so that shared programs are compiled once."""
    case = request.param
    return testing.make_setup(case.cell, case.inputs, jnp.float64, case.key, case.state)


CHEAP = "*-is_a_value", "*-inits_from_shapes", "*-has_its_sizes"


@pytest.mark.fast(*(f"{name}-*" for name in ONE_OF_EACH_KIND), *CHEAP)
@pytest.mark.parametrize("law", testing.LAWS, ids=lambda law: law.__name__)
def test_law(setup, law):
    law(setup)
