"""Variables of contrib's cells, under the names of real graphs, give those cells.

The names, and how to record them anew: `golden/generate/make_convert_contrib.py`.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

import jaxrnn
from jaxrnn import contrib
from jaxrnn.convert import tf1

from ..golden import replay, store

FILE = pathlib.Path(__file__).parents[1] / "golden" / "convert" / "tf1_contrib.json"
NAMES = json.loads(FILE.read_text())
CASES = {
    f"{case['family']}/{case['name']}": case
    for path in sorted((store.HERE / "contrib").glob("*.json"))
    for case in store.recorded("contrib", path.stem)["cases"]
}
STEP = jax.ShapeDtypeStruct((1, 3), jnp.float64)


def test_each_setting_of_a_cell_has_its_names():
    settings = {json.dumps(case["cell"]) for case in CASES.values()}
    assert settings == {json.dumps(CASES[name]["cell"]) for name in NAMES}


def at(tree, path):
    for key in path.split("/"):
        tree = tree[key]
    return tree


def inputs_of(case):
    """What `init` takes: the first step, but of a fused cell whole sequences."""
    inputs = replay.golden(case, "inputs")
    if case["function"] in ("cell", "fused"):
        return inputs
    return jax.tree.map(lambda x: x[0] if case["time_major"] else x[:, 0], inputs)


@pytest.mark.parametrize("name", NAMES)
def test_a_graphs_variables_give_the_cell_and_back(name):
    case, names = CASES[name], NAMES[name]
    params = replay.golden(case, "params")
    variables = {full: at(params, path) for full, path in names.items()}
    scope = "rnn" if all(full.startswith("rnn/") for full in names) else ""
    cell = replay.build(case["cell"])
    loaded = tf1.load(variables, scope, cell=cell, inputs=inputs_of(case))
    assert loaded.cell == cell
    assert jax.tree.structure(loaded.params) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    saved = tf1.save(loaded, scope)
    assert saved.keys() == variables.keys()
    for full, array in variables.items():
        np.testing.assert_array_equal(saved[full], array, strict=True)


HIGHWAY = contrib.HighwayWrapper(jaxrnn.LSTMCell(3))
NESTED = {
    "projected_highway": (
        contrib.InputProjectionWrapper(HIGHWAY, 3),
        {f"input_projection_wrapper/{name}" for name in ("carry_w", "lstm_cell/bias")},
    ),
    "stack_within": (
        contrib.OutputProjectionWrapper(jaxrnn.MultiRNNCell([HIGHWAY]), 2),
        {
            f"output_projection_wrapper/multi_rnn_cell/cell_0/{name}"
            for name in ("carry_w", "lstm_cell/bias")
        },
    ),
    "residual": (
        jaxrnn.ResidualWrapper(contrib.UGRNNCell(3, name="mine")),
        {"mine/kernel"},
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_wrappers_within_one_another(name):
    cell, some = NESTED[name]
    saved = tf1.save(bound(cell), "a/rnn")
    assert {f"a/rnn/{each}" for each in some} <= saved.keys()
    back = tf1.load(saved, "a/rnn", cell=cell, inputs=STEP)
    jax.tree.map(np.testing.assert_array_equal, back.params, bound(cell).params)


def test_what_lies_beside_the_cell_is_ignored():
    beside = {"rnn/dense/kernel": 1, "rnn/softmax_w": 1}
    loaded = tf1.load(SAVED | beside, cell=UGRNN, inputs=STEP)
    assert tf1.save(loaded).keys() == SAVED.keys()
    # Also the variables of a cell without its own scope.
    saved = tf1.save(bound(HIGHWAY), "rnnlm")
    loaded = tf1.load(saved | {"rnnlm/output_w": 1}, "rnnlm", cell=HIGHWAY, inputs=STEP)
    assert tf1.save(loaded, "rnnlm").keys() == saved.keys()


def test_cells_of_the_core_are_loaded_into_a_cell_as_well():
    variables = {
        "rnn/multi_rnn_cell/cell_0/gru_cell/gates/kernel:0": np.ones((6, 6)),
        "rnn/multi_rnn_cell/cell_0/gru_cell/gates/kernel/Adam:0": np.ones((6, 6)),
        "rnn/multi_rnn_cell/cell_0/gru_cell/gates/bias:0": np.ones(6),
        "rnn/multi_rnn_cell/cell_0/gru_cell/candidate/kernel:0": np.ones((6, 3)),
        "rnn/multi_rnn_cell/cell_0/gru_cell/candidate/bias:0": np.ones(3),
    }
    gru = jaxrnn.GRUCell(3, activation="relu")
    shared = jaxrnn.MultiRNNCell([jaxrnn.ResidualWrapper(gru)] * 2)
    loaded = tf1.load(variables, cell=shared, inputs=STEP)
    assert loaded.params.keys() == {"cell_0"}
    # A saved stack has the parameters that its layers share at the place of each.
    both = {name.replace("cell_0", "cell_1"): x for name, x in variables.items()}
    loaded = tf1.load(variables | both, cell=shared, inputs=STEP)
    assert loaded.params.keys() == {"cell_0"}
    other = {name: 2 * x for name, x in both.items()}
    with pytest.raises(ValueError, match=r"cell_1.* must equal .*cell_0.* same object"):
        tf1.load(variables | other, cell=shared, inputs=STEP)


UGRNN = contrib.UGRNNCell(3)
SAVED = tf1.save(bound(UGRNN))
