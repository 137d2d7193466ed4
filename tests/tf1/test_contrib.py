"""jaxrnn.contrib has the outputs, states and gradients of TensorFlow's contrib.

`golden/README.md` describes the goldens.
"""

import pytest

from ..golden import replay, store

FAMILIES = sorted(path.stem for path in (store.HERE / "contrib").glob("*.json"))
CASES = [case for name in FAMILIES for case in store.recorded("contrib", name)["cases"]]
# Layer normalization divides by the deviation of a few numbers. TensorFlow's float32
# results differ from its float64 results by 2e-6.
SLACK = {"coupled_lstm": 3, "layer_norm_lstm": 3}

# Options that no other fast test has.
OPTIONS = (
    "glstm_relu-*-f64",
    "grid_concat-whole-f32",
    "lstm_block_peep-ragged-f32",
    "lstm_block_clip-whole-f32",
)


def first_of_each_class(cases):
    """The first case of each cell class, except for slow ones and twins of others."""
    names = {}
    for case in cases:
        names.setdefault(case["cell"]["class"], case["name"])
    others = "BidirectionalGridLSTMCell NTMCell Conv2DLSTMCell Conv3DLSTMCell"
    others += " MultiRNNCell GRUBlockCell OutputProjectionWrapper"
    return [name for kind, name in names.items() if kind not in others.split()]


@pytest.mark.fast(*first_of_each_class(CASES), *OPTIONS)
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_same_as_contrib(case):
    # Where jaxrnn deliberately differs, only the gradients differ.
    parts = ("outputs", "state") + (("grads",) if case["differs"] is None else ())
    replay.check(case, parts, SLACK.get(case["family"], 1))
