"""Variables of attention, under the names of real graphs, give the cell and back.

The names, and how to record them anew: `golden/generate/make_convert_attention.py`.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import contrib
from jaxrnn.convert import tf1

FILE = pathlib.Path(__file__).parents[1] / "golden" / "convert" / "tf1_attention.json"
SHAPES = json.loads(FILE.read_text())
STEP = jax.ShapeDtypeStruct((1, 3), jnp.float32)


def layers(depth, size):
    mechanism = contrib.LuongAttention(4, memory_depth=depth)
    return contrib.AttentionWrapper(jaxrnn.GRUCell(4), mechanism, size)


def luong():
    mechanism = contrib.LuongAttention(4, memory_depth=6, scale=True)
    return contrib.AttentionWrapper(jaxrnn.LSTMCell(4), mechanism, 5)


def bahdanau():
    mechanisms = [
        contrib.BahdanauAttention(4, memory_depth=depth, normalize=True)
        for depth in (6, 2)
    ]
    return contrib.AttentionWrapper(jaxrnn.GRUCell(4), mechanisms, [5, 3])


# The cell of each graph, its scope, and the scope of the mechanisms.
CASES = {
    "decoder": (luong(), "decoder", ""),
    "scoped": (luong(), "model/decoding/decoder", "model/decoding"),
    "several": (bahdanau(), "rnn", ""),
    "stacked": (jaxrnn.MultiRNNCell([layers(6, 5), layers(2, 5)]), "rnn", ""),
}
# The `output_layer` of a decoder is not the cell's.
ALL = {
    name: {n: np.full(shape, i, np.float32) for i, (n, shape) in enumerate(s.items())}
    for name, s in SHAPES.items()
}
OWN = {
    name: {n: x for n, x in arrays.items() if "/dense/" not in n}
    for name, arrays in ALL.items()
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_graphs_variables_give_the_cell_and_back(name):
    cell, scope, memory_scope = CASES[name]
    loaded = tf1.load(
        ALL[name], scope, cell=cell, inputs=STEP, memory_scope=memory_scope
    )
    saved = tf1.save(loaded, scope, memory_scope=memory_scope)
    assert saved.keys() == OWN[name].keys()
    for full, array in OWN[name].items():
        np.testing.assert_array_equal(saved[full], array, strict=True)


def test_the_slots_of_a_memory_layer_are_ignored():
    cell, scope, _ = CASES["decoder"]
    slots = {"memory_layer/kernel/Adam": np.ones(1), "memory_layer_1/kernel": 1}
    loaded = tf1.load(ALL["decoder"] | slots, scope, cell=cell, inputs=STEP)
    assert tf1.save(loaded, scope).keys() == OWN["decoder"].keys()


def test_a_memory_layer_elsewhere_names_memory_scope():
    cell, scope, _ = CASES["scoped"]
    with pytest.raises(ValueError, match="`scope` must contain a memory_layer, got ''"):
        tf1.load(ALL["scoped"], scope, cell=cell, inputs=STEP)


def test_refuses_a_missing_memory_layer():
    cell, scope, _ = CASES["several"]
    arrays = {n: x for n, x in ALL["several"].items() if n != "memory_layer_1/kernel"}
    with pytest.raises(ValueError, match="; missing: memory_layer_1/kernel"):
        tf1.load(arrays, scope, cell=cell, inputs=STEP)
