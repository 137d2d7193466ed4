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
    [proto], [(inputs, outputs)] = case.model.graph.node, case.data_sets
    given = dict(zip(filter(None, proto.input), inputs, strict=True))
    want = dict(zip(filter(None, proto.output), outputs, strict=True))
    [node] = convert.nodes(with_weights(case.model, given))
    got = run(node, given)
    for key, array in want.items():
        np.testing.assert_allclose(got[key], array, case.rtol, case.atol, err_msg=key)


def with_weights(model, given):
    """The model with the weights inside, as in a file, rather than as inputs."""
    from onnx import ModelProto, numpy_helper

    filled = ModelProto()
    filled.CopyFrom(model)
    weights = [numpy_helper.from_array(given[k], k) for k in "WRBP" if k in given]
    filled.graph.initializer.extend(weights)
    return filled


def run(node, given):
    """What the node computes: Y `[time, directions, batch, units]`, Y_h and Y_c."""
    by_rows = node.get("layout") == 1  # Then the batch comes first everywhere.
    x = given["X"].swapaxes(0, 1) if by_rows else given["X"]
    lengths = given.get("sequence_lens", np.full(x.shape[1], len(x)))
    options = {"dtype": x.dtype, "time_major": True}
    initial, direction = initial_states(given), node.pop("direction", "forward")
    if direction == "bidirectional":
        (forward,), (backward,) = convert.load(node, bidirectional=True)
        outputs, finals = jaxrnn.bidirectional_dynamic_rnn(
            forward, backward, x, lengths, *initial, **options
        )
    else:
        turn = lambda x: jaxrnn.reverse_sequence(x, lengths, seq_axis=0, batch_axis=1)
        reverse = turn if direction == "reverse" else lambda x: x
        cell = convert.load(node)
        y, final = jaxrnn.dynamic_rnn(cell, reverse(x), lengths, *initial, **options)
        outputs, finals = [reverse(y)], [final]
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
