"""PyTorch's utilities that rename weights: `from_torch` refuses what they leave."""

import numpy as np
import pytest

from jaxrnn import convert

torch = pytest.importorskip("torch")
prune = pytest.importorskip("torch.nn.utils.prune")
utils = torch.nn.utils

RENAMED = {
    "pruned": lambda *of: prune.l1_unstructured(*of, amount=0.5),
    "parametrized weight norm": utils.parametrizations.weight_norm,
    "weight norm": utils.weight_norm,
}
UNDONE = {
    "pruned": prune.remove,
    "parametrized weight norm": utils.parametrize.remove_parametrizations,
    "weight norm": utils.remove_weight_norm,
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["weight_hh_l0", "bias_hh_l0"])
@pytest.mark.parametrize("way", RENAMED)
def test_renamed_weights(way, name):
    """Refused, and loaded after what the page `coming_from/pytorch` says."""
    lstm = torch.nn.LSTM(3, 4)
    RENAMED[way](lstm, name)
    with pytest.raises(ValueError, match=name):
        convert.from_torch(lstm.state_dict())
    UNDONE[way](lstm, name)
    loaded = convert.from_torch(lstm.state_dict())
    want = {k: x.detach().numpy() for k, x in lstm.named_parameters()}
    got = convert.to_torch(loaded)
    np.testing.assert_array_equal(got["weight_hh_l0"], want["weight_hh_l0"])
    bias = want["bias_ih_l0"] + want["bias_hh_l0"]
    np.testing.assert_array_equal(got["bias_ih_l0"], bias)
