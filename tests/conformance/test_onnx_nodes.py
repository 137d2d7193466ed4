"""The node tests of the `onnx` package for LSTM, GRU and RNN, with their data."""

import importlib.util
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn.convert import onnx as convert

INSTALLED = importlib.util.find_spec("onnx") is not None
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not INSTALLED, reason="onnx is not installed"),
]
KINDS = {"LSTM": "lstm", "GRU": "gru", "RNN": "simple_rnn"}
CASES = [
    f"test_{name}_{case}"
    for name in KINDS.values()
    for case in ("batchwise", "bidirectional", "defaults", "reverse")
]
CASES += [f"test_{name}_with_initial_bias" for name in KINDS.values()]
CASES += ["test_lstm_with_peepholes", "test_gru_seq_length", "test_rnn_seq_length"]


@pytest.fixture(scope="module")
def suite():
    """The test cases of ONNX's recurrent operators, by name."""
    from onnx.backend.test.case import node

    with warnings.catch_warnings():  # NumPy warns while it creates other cases.
        warnings.simplefilter("ignore")
        cases = node.collect_testcases()
    recurrent = lambda case: case.model.graph.node[0].op_type in KINDS
    return {case.name: case for case in cases if recurrent(case)}


def test_all_cases_are_in_the_table(suite):
    assert sorted(suite) == sorted(CASES)


@pytest.mark.parametrize("name", CASES)
def test_node(name, suite):
    case = suite[name]
    [node] = case.model.graph.node
    [(inputs, outputs)] = case.data_sets
    given = dict(zip(filter(None, node.input), inputs, strict=True))
    want = dict(zip(filter(None, node.output), outputs, strict=True))
    got = run(attributes_of(node), given)
    for key, array in want.items():
        np.testing.assert_allclose(got[key], array, case.rtol, case.atol, err_msg=key)


def attributes_of(node):
    """The attributes of a node, by name, and its operator."""
    from onnx import helper

    values = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return {"op_type": node.op_type} | values


def run(attributes, given):
    """What the node computes: Y `[time, directions, batch, units]`, Y_h and Y_c."""
    by_rows = attributes.get("layout") == 1  # Then the batch comes first everywhere.
    direction = attributes.pop("direction", b"forward")
    weights = {key: given[key] for key in "WRBP" if key in given}
    x = given["X"].swapaxes(0, 1) if by_rows else given["X"]
    lengths, initial = given.get("sequence_lens"), initial_states(given)
    options = {"dtype": x.dtype, "time_major": True}
    if direction == b"bidirectional":
        (forward,), (backward,) = convert.load_bidirectional(attributes | weights)
        outputs, finals = jaxrnn.bidirectional_dynamic_rnn(
            forward, backward, x, lengths, *initial, **options
        )
    else:
        # No case of the suite has both a backward direction and lengths.
        order = slice(None, None, -1 if direction == b"reverse" else None)
        cell = convert.load(attributes | weights)
        y, final = jaxrnn.dynamic_rnn(cell, x[order], lengths, *initial, **options)
        outputs, finals = [y[order]], [final]
    of_finals = lambda name: jnp.stack([getattr(s, name, s) for s in finals])
    made = {"Y": jnp.stack(outputs, 1), "Y_h": of_finals("h"), "Y_c": of_finals("c")}
    if by_rows:
        made = {key: jnp.moveaxis(array, -2, 0) for key, array in made.items()}
    return made


def initial_states(given):
    """The initial state of each direction, or nothing."""
    if "initial_c" in given:
        return map(jaxrnn.LSTMStateTuple, given["initial_c"], given["initial_h"])
    return given.get("initial_h", ())
