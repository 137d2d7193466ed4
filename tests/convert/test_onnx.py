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
from convert_checks import messages
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


# Refusals.

[LSTM] = convert.save(bound(OWN["lstm"]))
[GRU] = convert.save(bound(OWN["gru_after"]))
[RNN] = convert.save(bound(OWN["rnn_elu"]))
ONE = (bound(OWN["lstm"]),)
[BOTH] = convert.save((ONE, ONE), bidirectional=True)
BARE = {key: LSTM[key] for key in "WRB"}


def loading(node, **options):
    return lambda: convert.load(node | options)


def saving(cell):
    return lambda: convert.save(bound(cell))


VALUES = {
    r"convert\.onnx\.load: `nodes\[0\]\['W'\]` is missing. Found: R, B": lambda: (
        convert.load({key: LSTM[key] for key in "RB"})
    ),
    r"`nodes\[0\]\['R'\]` is missing. Found: W": lambda: convert.load({"W": LSTM["W"]}),
    r"`nodes\[0\]` must hold only op_type, W, R, B, P, direction,": loading(
        LSTM, initial_h=np.ones(2)
    ),
    r"`nodes\[0\]\['R'\]` must have shape \[1, 16, any\], got .*\[1, 12, 4\]": loading(
        BARE, R=GRU["R"]
    ),
    r"`nodes\[0\]\['R'\]` must have 1 or 3 or 4 blocks of 5 units": loading(
        BARE, R=np.ones((1, 16, 5))
    ),
    r"`nodes\[0\]\['B'\]` must have shape \[1, 32\], got float64\[1, 16\]": loading(
        LSTM, B=LSTM["B"][:, :16]
    ),
    r"`nodes\[0\]\['P'\]` must have shape \[1, 12\], got float64\[1, 4\]": loading(
        LSTM, P=np.ones((1, 4))
    ),
    r"`nodes\[0\]\['P'\]` must be omitted for GRU": loading(GRU, P=np.ones((1, 12))),
    r"`nodes\[0\]\['linear_before_reset'\]` must be 0 for LSTM, got 1": loading(
        LSTM, linear_before_reset=1
    ),
    r"`nodes\[0\]\['op_type'\]` must be LSTM to match `R` \(float64\[1,": loading(
        LSTM, op_type="GRU"
    ),
    r"`nodes\[0\]\['op_type'\]` must be LSTM, GRU or RNN, got 'Gemm'": lambda: (
        convert.load({"op_type": "Gemm", "A": np.ones(2)})
    ),
    r"`nodes\[0\]\['hidden_size'\]` must be 4 to match `R`, got 5": loading(
        LSTM, hidden_size=5
    ),
    r"`nodes\[0\]\['clip'\]` must be at least 745.1, so that it has no": loading(
        LSTM, clip=104.0
    ),
    r"\['clip'\]` must be at least 1.798e\+308, so that it .* got 9999": loading(
        RNN, clip=9999.0, activations=["relu"]
    ),
    r"\['clip'\]` must be at least 1.798e\+308, so that it .* got 0": loading(
        RNN, clip=0
    ),
    r"`nodes\[0\]\['input_forget'\]` must be 0 for GRU .*, got 1": loading(
        GRU, input_forget=1
    ),
    r"\['input_forget'\]` must be 0 or 1, got 2": loading(LSTM, input_forget=2),
    r"`nodes\[0\]\['activation_alpha'\]` must be 1.0 for Elu, got 0.0": loading(
        RNN, activation_alpha=[0.0]
    ),
    r"`nodes\[0\]\['activation_alpha'\]` must be 1.0 for Elu, got 2.0": loading(
        LSTM, activations=["Sigmoid", "elu", "elu"], activation_alpha=[1.0, 2.0]
    ),
    r"`nodes\[0\]\['activation_beta'\]` must be 0.5 for HardSigmoid,": loading(
        RNN, activations=["HardSigmoid"], activation_beta=[0.4]
    ),
    r"`nodes\[0\]\['activations'\]` must be like \['Sigmoid', 'Tanh',": loading(
        LSTM, activations=["HardSigmoid", "Tanh", "Tanh"]
    ),
    r"`nodes\[0\]\['activations'\]` must be like \['Sigmoid', 'Relu',": loading(
        LSTM, activations=["Sigmoid", "Tanh", "Relu"]
    ),
    r"`nodes\[0\]\['activations'\]` must be Elu or HardSigmoid or Relu": loading(
        RNN, activations=["LeakyRelu"]
    ),
    r"`nodes\[0\]\['activations'\]` must have 6 names, got \['Sigmoid',": lambda: (
        convert.load(
            BOTH | {"activations": ["Sigmoid", "Tanh", "Tanh"]}, bidirectional=True
        )
    ),
    r"`nodes\[0\]\['activations'\]` must have 1 names, got \[\]": loading(
        RNN, activations=[]
    ),
    r"must be forward or bid.*, got 'reverse'. Load .* `reverse_sequence`": loading(
        LSTM, direction="reverse"
    ),
    r"\['direction'\]` must be forward or bidirectional, got list": loading(
        LSTM, direction=["forward"]
    ),
    r"\['linear_before_reset'\]` must be 0 or 1, got 'no'": loading(
        GRU, linear_before_reset="no"
    ),
    r"\['direction'\]` must be forward or bidirectional, got 'sideways'": loading(
        LSTM, direction="sideways"
    ),
    r"`nodes\[0\]\['W'\]` must have 2 rows, as bidirectional, got": loading(
        LSTM, direction="bidirectional"
    ),
    "`cell` must have the activation elu or hard_sigmoid or relu": saving(
        GRUCell(4, activation="linear")
    ),
    r"`cells_bw\[0\]` must have the kind and size of `cells_fw\[0\]`": lambda: (
        convert.save((ONE, [bound(GRUCell(4))]), bidirectional=True)
    ),
    r"`cells_bw\[0\]` must .* got LSTM of 4 units, LSTM of 5 units": lambda: (
        convert.save((ONE, [bound(LSTMCell(5))]), bidirectional=True)
    ),
}
TYPES = {
    r"`nodes\[0\]` must be a dict .*, got float64.*\. `convert\.onnx\.no": lambda: (
        convert.load(LSTM["W"], LSTM["R"])
    ),
    "must be a number, got '3'": loading(RNN, clip="3"),
    r"\['activations'\]` must be a list of names, got 'Tanh'": loading(
        RNN, activations="Tanh"
    ),
}
test_messages = messages(VALUES, TYPES)
