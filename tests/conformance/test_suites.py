"""Suites of other projects: the packages hold the cases, `docs/conformance.md` counts.

JAX: `jax.experimental.rnn.lstm_ref`, the reference of its cuDNN LSTM. Its lengths are
at least 1: for a length of 0 it returns the state after the last step.

ONNX: the node tests of the `onnx` package for LSTM, GRU and RNN, with their data.

sequence-layers: its contract of a layer, for one cell of each kind that fits a layer.
The layer is the adapter in `examples/sequence_layers_cell.py`.
"""

import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, KINDS
from helpers import assert_near, differentiated, lstm_ref, usual_promotion
from jax.experimental import rnn

import jaxrnn
from jaxrnn.convert import from_onnx, onnx_nodes

pytestmark = pytest.mark.slow


# JAX.

ROWS, STEPS, DEPTH, UNITS = 4, 5, 3, 4
LENGTHS = {"full": [5, 5, 5, 5], "ragged": [5, 2, 1, 4]}


def ours(options, lengths, packed, x, h, c):
    params = params_of(options, packed)
    cells = [jaxrnn.LSTMCell(UNITS, forget_bias=0.0) for _ in params]
    states = list(map(jaxrnn.LSTMStateTuple, c, h))
    if options["bidirectional"]:
        cells = [cell.bind(own) for cell, own in zip(cells, params, strict=True)]
        y, *finals = jaxrnn.stack_bidirectional_dynamic_rnn(
            cells[::2], cells[1::2], x, states[::2], states[1::2], None, lengths
        )
        finals = [state for pair in zip(*finals, strict=True) for state in pair]
    else:
        own = {f"cell_{i}": each for i, each in enumerate(params)}
        stack = jaxrnn.MultiRNNCell(cells).bind(own)
        y, finals = jaxrnn.dynamic_rnn(stack, x, lengths, tuple(states))
    return y, jnp.stack([s.h for s in finals]), jnp.stack([s.c for s in finals])


def params_of(options, packed):
    """Parameters per layer and direction: the gates i, f, g, o become i, g, f, o."""

    def ordered(rows):
        i, f, g, o = jnp.split(rows, 4)
        return jnp.concatenate([i, g, f, o]).T

    w_ih, w_hh, b_ih, b_hh = rnn.unpack_lstm_weights(packed, **options)
    kernels = [jnp.concatenate([w_ih[k], w_hh[k]], axis=1) for k in w_ih]
    parts = zip(kernels, (b_ih[k] + b_hh[k] for k in w_ih), strict=True)
    return [{"kernel": ordered(kernel), "bias": ordered(b)} for kernel, b in parts]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("directions", [1, 2])
def test_equals_lstm_ref(directions, layers, dtype, lengths):
    """Outputs, final states, and gradients of packed weights, inputs and states."""
    options = {"input_size": DEPTH, "hidden_size": UNITS}
    options |= {"num_layers": layers, "bidirectional": directions == 2}
    rng = np.random.default_rng(0)
    draw = lambda *shape: jax.device_put(rng.normal(size=shape).astype(dtype))
    given = draw(rnn.get_num_params_in_lstm(**options)), draw(ROWS, STEPS, DEPTH)
    given += tuple(draw(layers * directions, ROWS, UNITS) for _ in range(2))
    n = jax.device_put(np.asarray(LENGTHS[lengths], np.int32))
    with usual_promotion():
        want = differentiated(lambda w, *args: lstm_ref(*args, w, n, options), *given)
    got = differentiated(lambda *args: ours(options, n, *args), *given)
    assert_near(got, want, tolerance=1e-5 if dtype == "float32" else 1e-12)


# ONNX.

OPERATORS = {"LSTM": "lstm", "GRU": "gru", "RNN": "simple_rnn"}
PARTS = ["batchwise", "bidirectional", "defaults", "reverse", "with_initial_bias"]
NODES = [f"test_{name}_{case}" for name in OPERATORS.values() for case in PARTS]
NODES += ["test_lstm_with_peepholes", "test_gru_seq_length", "test_rnn_seq_length"]


@pytest.fixture(scope="module")
def nodes():
    """The test cases of ONNX's recurrent operators, by name."""
    pytest.importorskip("onnx")
    from onnx.backend.test.case import node

    with warnings.catch_warnings():  # NumPy warns while it creates other cases.
        warnings.simplefilter("ignore")
        cases = node.collect_testcases()
    recurrent = lambda case: case.model.graph.node[0].op_type in OPERATORS
    return {case.name: case for case in cases if recurrent(case)}


@pytest.mark.parametrize("name", NODES)
def test_node(name, nodes):
    case = nodes[name]
    [proto], [(inputs, outputs)] = case.model.graph.node, case.data_sets
    given = dict(zip(filter(None, proto.input), inputs, strict=True))
    want = dict(zip(filter(None, proto.output), outputs, strict=True))
    [node] = onnx_nodes(with_weights(case.model, given))
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
        (forward,), (backward,) = from_onnx(node, bidirectional=True)
        outputs, finals = jaxrnn.bidirectional_dynamic_rnn(
            forward, backward, x, lengths, *initial, **options
        )
    else:
        turn = lambda x: jaxrnn.reverse_sequence(x, lengths, seq_axis=0, batch_axis=1)
        reverse = turn if direction == "reverse" else lambda x: x
        cell = from_onnx(node)
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


# sequence-layers.

# A layer has one array of inputs and one of outputs, and starts from a zero state.
INEXPRESSIBLE = {
    "function_nested": "its inputs and outputs are nests",
    "mlstm_memory": "its inputs are a nest",
}
TOLERANT = {"training": False, "rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def suite():
    """sequence-layers' base class of tests, and its random sequences."""
    pytest.importorskip("sequence_layers")
    from sequence_layers.jax import test_utils

    class Suite(test_utils.SequenceLayerTest):
        random_sequence = staticmethod(test_utils.random_sequence)

    return Suite()


@pytest.fixture(scope="module")
def adapter(suite):
    return importlib.import_module("sequence_layers_cell").CellLayer


def verify(suite, adapter, cell, inputs, gaps):
    """Check the contract on rows with lengths, or with gaps in their masks."""
    suite.setUp()  # Seeds NumPy.
    with usual_promotion(), jax.enable_x64(False):
        x = suite.random_sequence(3, 4, *inputs.shape[1:], random_mask=gaps)
        layer = suite.init_and_bind_layer(jax.random.key(0), adapter(cell), x)
        suite.verify_contract(
            layer,
            x,
            **TOLERANT,
            padding_invariance_pad_value=jnp.nan,
            test_receptive_field=not gaps,  # It ignores the mask.
        )


# The laws of each cell say the same in float64. The contract is another author's word
# for them, so one cell for each kind is enough.
CONTRACTS = [
    (name, rows)
    for name in KINDS.values()
    for rows in ("lengths", "gaps")
    if name not in INEXPRESSIBLE
]


@pytest.mark.parametrize(("name", "rows"), CONTRACTS)
def test_contract(name, rows, suite, adapter):
    case = CASES[name]
    verify(suite, adapter, case.cell, case.inputs, gaps=rows == "gaps")
