"""Nothing in the recorded cases is trivial."""

import re

import numpy as np
import pytest

from ..golden import store

KINDS = sorted(path.stem for path in (store.HERE / "contrib").glob("*.json"))
CASES = {
    "tf1": store.recorded("tf1")["cases"],
    "tf1_loops": store.recorded("tf1_loops")["cases"],
    "contrib": [c for kind in KINDS for c in store.recorded("contrib", kind)["cases"]],
}
PADDING = {"tf1": {"nan", "inf", "-inf"}, "tf1_loops": {"nan", "inf"}, "contrib": set()}
# In these cases there are no rows, steps or units, or no array is read.
TRIVIAL = re.compile(
    "clip_zero|[bth]0|all_zero|all_negative|no_rows|empty|unwritten-shape_given"
    "|all_finished-template"
)


@pytest.mark.parametrize("folder", CASES)
def test_gradients_are_not_trivial(folder):
    for case in CASES[folder]:
        grads = store.below(case, "grads").values()
        if grads and not TRIVIAL.search(case["name"]):
            assert any(x.astype(np.float64).any() for x in grads), case["name"]


@pytest.mark.parametrize("folder", CASES)
def test_padding_is_not_finite(folder):
    padded = [case for case in CASES[folder] if case["padding"]]
    assert {case["padding"] for case in padded} == PADDING[folder]
    for case in padded:
        arrays = store.below(case, "inputs") | store.below(case, "given/inputs")
        assert not all(np.isfinite(x).all() for x in arrays.values()), case["name"]
