"""Every exported cell against every law."""

import jax.numpy as jnp
import pytest
from cases import CASES, ONE_OF_EACH_KIND

from jaxrnn import testing


@pytest.fixture(scope="module", params=CASES)
def setup(request):
    """One setup for all laws of a case, so that shared programs are compiled once."""
    case = CASES[request.param]
    return testing.make_setup(case.cell, case.inputs, jnp.float64, case.key, case.state)


CHEAP = "*-is_a_value", "*-inits_from_shapes", "*-has_its_sizes"
# Rows that run the code of other rows: an axis more or less, a state that is joined,
# stages of the core. They are compared with the oracle, forward and backward.
SIBLINGS = {"conv", "conv1d", "conv3d", "grid_joined", "attention_joined"}
SIBLINGS |= {"min_lstm", "qrnn", "qrnn_ifo", "sru"}
SIBLINGS |= {"glstm_projection", "phased_fixed", "lstm_block", "gru_block"}
SIBLINGS |= {"past_inputs"}
FEW = {"is_a_value", "inits_from_shapes", "has_its_sizes", "runs_as_a_loop"}
FEW |= {"runs_backwards_as_a_loop", "ignores_padding", "runs_a_subclass"}
# These laws are about derivative rules and strategies of memory, which cells share: one
# row for each rule, and cells with other steps, inputs or states.
OF_RULES = {"differentiates_twice", "runs_in_little_memory", "starts_again_at_resets"}
RULES = {"gru_cudnn", "lru", "min_gru", "mlstm", "rg_lru", "slstm", *ONE_OF_EACH_KIND}
RULES |= {"attention", "conv2d", "embedding", "layer_norm_lstm", "phased"}
RULES |= {"temporal_conv"}


@pytest.mark.fast(*(f"{name}-*" for name in ONE_OF_EACH_KIND), *CHEAP)
@pytest.mark.parametrize("law", testing.LAWS, ids=lambda law: law.__name__)
def test_law(setup, law, request):
    row = request.node.callspec.params["setup"]
    if row in SIBLINGS and law.__name__ not in FEW:
        pytest.skip("another row runs the same code")
    if row not in RULES and law.__name__ in OF_RULES:
        pytest.skip("another row has the same rule")
    law(setup)
