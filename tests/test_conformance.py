"""Every exported cell, held to every law."""

import jax.numpy as jnp
import pytest
from cases import CASES

from jaxrnn import testing


@pytest.mark.parametrize("law", testing.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_law(case, law):
    law(testing.make_setup(case.cell, case.inputs, jnp.float64, case.key, case.state))
