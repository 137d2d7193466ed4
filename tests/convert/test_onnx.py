"""Weights of ONNX's operators, against what others made of them.

ONNX has no gradients. `golden/convert/onnx.npz` holds what ONNX Runtime makes of a node
in float32, and ONNX's own evaluator, where it knows the activations, in float64.
"""

import json
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, with_prefix

import jaxrnn
from jaxrnn import BasicRNNCell, GRUCell, LSTMCell, MultiRNNCell
from jaxrnn.convert import onnx as convert

FILE = np.load(pathlib.Path(__file__).parents[1] / "golden" / "convert" / "onnx.npz")
CASES = list(dict.fromkeys(key.split("/")[0] for key in FILE))
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}
AfterGRUCell = jaxrnn.CudnnCompatibleGRUCell


def nodes_of(golden):
    """The nodes of a case, from the lowest, and their initial states."""
    made = []
    for i in range(2):
        if f"{i}/W" in golden:
            arrays = {k: golden[f"{i}/{k}"] for k in "WRBP" if f"{i}/{k}" in golden}
            attributes = json.loads(str(golden[f"{i}/attributes"]))
            made.append(arrays | attributes)
    return made


def load(case, nodes):
    """One cell, or the pair of both directions' cells."""
    return convert.load(*nodes, bidirectional="both" in case)


def save(cells):
    if isinstance(cells, tuple):
        return convert.save(cells, bidirectional=True)
    return convert.save(cells)


def run(cells, x, states):
    """The results of ONNX's nodes, with the outputs of directions side by side."""
    initial = []
    for i in range(2):
        if f"{i}/h0" not in states:
            continue
        h, c = states[f"{i}/h0"], states.get(f"{i}/c0")
        if c is None:
            initial.append(list(h))
        else:
            pairs = zip(c, h, strict=True)
            initial.append([jaxrnn.LSTMStateTuple(*pair) for pair in pairs])
    initial = jax.tree.map(lambda s: s.astype(x.dtype), initial)
    if isinstance(cells, tuple):
        initial_fw, initial_bw = (list(each) for each in zip(*initial, strict=True))
        outputs, *finals = jaxrnn.stack_bidirectional_dynamic_rnn(
            *cells, x, initial_fw, initial_bw, time_major=True
        )
        finals = list(zip(*finals, strict=True))
    else:
        several = len(initial) > 1
        initial = tuple(state for (state,) in initial)
        outputs, finals = jaxrnn.dynamic_rnn(
            cells,
            x,
            initial_state=initial if several else initial[0],
            time_major=True,
        )
        finals = [(final,) for final in (finals if several else [finals])]
    made = {"outputs": outputs}
    for i, pair in enumerate(finals):
        final = jax.tree.map(lambda *each: jnp.stack(each), *pair)
        if isinstance(final, jaxrnn.LSTMStateTuple):
            made |= {f"{i}/c": final.c, f"{i}/h": final.h}
        else:
            made[f"{i}/h"] = final
    return made


@pytest.mark.parametrize("case", CASES)
def test_as_onnx(case):
    """Outputs and final states; in float64 if the golden has them, else in float32."""
    golden = with_prefix(f"{case}/", FILE)
    exact = "reference/outputs" in golden
    dtype, prefix = ("float64", "reference/") if exact else ("float32", "")
    cells = load(case, nodes_of(golden))
    cells = jax.tree.map(lambda p: p.astype(dtype), cells)
    states = {key: golden[key] for key in golden if key.endswith("0")}
    made = jax.jit(run)(cells, golden["x"].astype(dtype), states)
    close = lambda got, want, dtype: np.testing.assert_allclose(
        got, want, rtol=0, atol=TOLERANCE[dtype]
    )
    for name, array in made.items():
        assert array.dtype == dtype
        close(array, golden[prefix + name], dtype)
        close(array, golden[name], "float32")


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case):
    """All weights are restored exactly, except two biases that become one."""
    nodes = nodes_of(with_prefix(f"{case}/", FILE))
    cells = load(case, nodes)
    back = save(cells)
    for own, node in zip(back, nodes, strict=True):
        for key in own.keys() & node.keys():
            if key != "B":
                assert np.array_equal(own[key], node[key]), key
        assert not node.keys() - own.keys()
        assert ("P" in own) == ("P" in node)
        of_inputs, of_state = np.split(own["B"], 2, axis=1)
        if "B" not in node:
            assert not own["B"].any()
            continue
        want = np.split(node["B"], 2, axis=1)
        if "after" in case:
            at = 2 * of_state.shape[1] // 3
            np.testing.assert_array_equal(of_state[:, at:], want[1][:, at:])
        np.testing.assert_array_equal(of_inputs + of_state, want[0] + want[1])
    chex.assert_trees_all_equal(load(case, back), cells)


PEEPING = LSTMCell(4, use_peepholes=True, forget_bias=0.0)
OWN = {
    "lstm": LSTMCell(4, forget_bias=0.0),
    "lstm_peepholes": PEEPING,
    "gru_before": GRUCell(4, activation="softplus"),
    "gru_after": AfterGRUCell(4),
    "rnn_elu": BasicRNNCell(4, activation="elu"),
    "layers": MultiRNNCell([PEEPING, GRUCell(3), AfterGRUCell(2)]),
}


def test_both_directions_there_and_back():
    """Kinds may differ from layer to layer, activations between the directions."""
    cells = tuple(
        (
            bound(BasicRNNCell(5, activation), 3, seed=seed),
            bound(PEEPING, 10, seed=seed),
        )
        for seed, activation in enumerate(("relu", "tanh"))
    )
    again = load("both", save(cells))
    chex.assert_trees_all_equal(again, cells)
    assert again[0][0].cell == cells[0][0].cell
    assert again[1][0].cell == cells[1][0].cell


def test_peepholes_of_one_direction_alone():
    cells = (bound(PEEPING),), (bound(OWN["lstm"]),)
    [node] = save(cells)
    np.testing.assert_array_equal(node["P"][1], 0)
    assert node["P"][0].all()


def test_attributes_that_say_nothing_are_taken():
    [node] = convert.save(bound(OWN["lstm"]))
    more = {
        "clip": None,
        "input_forget": 0,
        "layout": 1,
        "P": None,
        "direction": b"forward",
        "op_type": b"LSTM",
    }
    names = [name.encode() for name in node["activations"]]  # As protocol buffers have.
    again = convert.load(node | more | {"activations": names, "activation_alpha": []})
    chex.assert_trees_all_equal(again.params, bound(OWN["lstm"]).params)
