"""Nodes of ONNX models, loaded and compared with what onnxruntime computes."""

import functools

import jax
import numpy as np
import pytest
from helpers import assert_near, outputs_of, refusals, skip_before_opset_27

from jaxrnn import LSTMStateTuple, dynamic_rnn
from jaxrnn.convert import from_onnx, onnx_nodes

onnx = pytest.importorskip("onnx")
parser = pytest.importorskip("onnx.parser")
onnxruntime = pytest.importorskip("onnxruntime")
helper, from_array = onnx.helper, onnx.numpy_helper.from_array

TIME, BATCH, DEPTH, UNITS = 5, 2, 3, 4
FLOAT, NAMES = onnx.TensorProto.FLOAT, ("x", "W", "R", "B", "", "", "", "P")
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
X = np.random.default_rng(1).normal(size=(TIME, BATCH, DEPTH)).astype(np.float32)


def weights(kind, directions=1, seed=0, depth=DEPTH):
    rows, draw = GATES[kind] * UNITS, np.random.default_rng(seed).normal
    shapes = {"W": (rows, depth), "R": (rows, UNITS), "B": (2 * rows,)}
    shapes |= {"P": (3 * UNITS,)} if kind == "LSTM" else {}
    array = lambda shape: draw(0, 0.7, (directions, *shape)).astype(np.float32)
    return {name: array(shape) for name, shape in shapes.items()}


def model_of(nodes, tensors):
    """A model with the input `x` and, for each node, its first output."""
    value = lambda name, rank: helper.make_tensor_value_info(name, FLOAT, [None] * rank)
    outputs = [value(node.output[0], 4) for node in nodes if node.op_type in GATES]
    graph = helper.make_graph(nodes, "g", [value("x", 3)], outputs, tensors)
    opsets = [helper.make_opsetid(*each) for each in (("", 14), ("com.microsoft", 1))]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def recurrent(kind, arrays, name="", output="y", prefix="", x="x", **attributes):
    inputs = [prefix + k if k in arrays else x * (k == "x") for k in NAMES]
    inputs = inputs if kind == "LSTM" else inputs[:4]
    attributes["hidden_size"] = UNITS
    return helper.make_node(kind, inputs, [output], name, **attributes)


def tensors_of(arrays, prefix=""):
    return [from_array(array, prefix + name) for name, array in arrays.items()]


def run(model):
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), None, providers)
    return session.run(None, {"x": X})


ELU = {"activations": ["Sigmoid", "elu", "Elu"]}
HARD = {"activation_alpha": [0.2], "activation_beta": [0.5]}
HARD["activations"] = ["HardSigmoid"]
HARD_GRU, SOFT = {"activations": ["HardSigmoid", "Softsign"]}, ["Sigmoid", "Tanh"]
BOTH = {"direction": "bidirectional"}
TAKEN = {
    "alpha": ("LSTM", ELU | {"activation_alpha": [1.0]}),
    "alpha_and_beta": ("RNN", HARD),
    "coupled_both": ("LSTM", BOTH | {"input_forget": 1}),
    # Gates without sigmoids, also in one direction of two.
    "gates_after": ("GRU", HARD_GRU | {"linear_before_reset": 1}),
    "gates_both": ("GRU", BOTH | {"activations": [*HARD_GRU["activations"], *SOFT]}),
}


@pytest.mark.fast("alpha*", "coupled_both", "gates_after")
@pytest.mark.parametrize("name", TAKEN)
def test_what_onnxruntime_takes(name):
    kind, attributes = TAKEN[name]
    arrays = weights(kind, 1 + ("direction" in attributes))
    model = model_of([recurrent(kind, arrays, **attributes)], tensors_of(arrays))
    [want] = run(model)
    cells = from_onnx(model, bidirectional="both" in name)
    got = outputs_of(cells, X, time_major=True)
    want = np.moveaxis(want, 1, 2).reshape(TIME, BATCH, -1)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


# Operators with a past state. For memories: attributes, and the sizes of the inputs.
KEYS, DELTA = ("query", "key", "value", "decay", "beta"), {"update_rule": "delta"}
HEADS, SHARED = {"q_num_heads": 2, "kv_num_heads": 2}, {"kv_num_heads": 4}
OWN = {"domain": "com.microsoft", "state_window": 0}
MEMORIES = {
    "linear": ({"update_rule": "linear", "scale": 0.5, "chunk_size": 2}, [6, 6, 10]),
    "gated_keys": ({"update_rule": "gated"}, [6, 6, 10, 6]),
    "gated_delta": ({}, [6, 6, 10, 2, 2]),
    "shared_keys": (DELTA | SHARED | OWN, [6, 6, 20, 0, 4]),
}


def run_with_state(operator, names, feeds, tensors=(), **attributes):
    """The cell of a node, and what onnxruntime computes."""
    skip_before_opset_27()
    node = helper.make_node(operator, names, ["y", "last"], **attributes)
    value = lambda name, shape=None: helper.make_tensor_value_info(name, FLOAT, shape)
    inputs = [value(name, array.shape) for name, array in feeds.items()]
    graph = helper.make_graph([node], "g", inputs, map(value, node.output), tensors)
    opsets = [helper.make_opsetid(*each) for each in (("", 27), ("com.microsoft", 1))]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=13)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return from_onnx(model), session.run(None, feeds)


@pytest.mark.parametrize("name", MEMORIES)
def test_memories(name):
    attributes, sizes = MEMORIES[name]
    array = lambda size: -np.random.default_rng(size).random((BATCH, TIME, size), "f")
    x = {k: array(size) for k, size in zip(KEYS, sizes, strict=False) if size}
    names = [key if key in x else "" for key in (*KEYS[:3], "past_state", *KEYS[3:])]
    run = functools.partial(run_with_state, "LinearAttention", names, x)
    cell, (y, last) = run(**HEADS | attributes)
    own = cell.cell.input_sizes
    pairs = [(x.get(k, [0.0]), n) for k, n in zip(KEYS, own, strict=False)]
    given = [np.resize(a, (BATCH, TIME, *size)).astype("f") for a, size in pairs]
    got, state = dynamic_rnn(cell, type(own)(*given), dtype=y.dtype)
    assert_near((got.reshape(y.shape), state), (y, last), tolerance=1e-6)


def test_a_short_convolution_with_an_activation():
    x, weight = X.reshape(BATCH, DEPTH, TIME), weights("RNN")["W"].reshape(DEPTH, 1, 4)
    given = ["x", "weight"], {"x": x}, [from_array(weight, "weight")]
    cell, want = run_with_state("CausalConvWithState", *given, activation="swish")
    got = dynamic_rnn(cell, x.swapaxes(1, 2), dtype=x.dtype)
    assert_near(jax.tree.leaves(got), [y.swapaxes(1, 2) for y in want], tolerance=1e-6)


# Where the weights are.


def constant(array, name):
    return helper.make_node("Constant", [], [name], value=from_array(array))


def parsed(text):
    """The nodes that a text has in ONNX's syntax."""
    return list(parser.parse_graph(f"g () => () {{ {text} }}").node)


def ints(name, *values):
    return from_array(np.array(values), name)


def computed(name):
    """A slice and a cast of a longer float64 array, without the axis of directions."""
    return parsed(
        f"cut{name} = Slice(wide{name}, start, end) cast{name} = Cast<to=1>(cut{name}) "
        f"{name} = Unsqueeze(cast{name}, start)"
    )


def wide(name, array):
    return from_array(np.append(array[0], array[0], 0).astype(float), f"wide{name}")


ARRAYS = weights("GRU")
TENSORS, NODE = tensors_of(ARRAYS), recurrent("GRU", ARRAYS, "a")
CUT = [ints("start", 0), ints("end", 3 * UNITS)]


# The nodes before the recurrent one, and the initializers.
STORED = {
    "constants": ([constant(a, n) for n, a in ARRAYS.items()], []),
    "computed": (
        [*computed("W"), *computed("R")],
        [*TENSORS[2:], *CUT, *(wide(name, ARRAYS[name]) for name in ("W", "R"))],
    ),
}


@pytest.mark.parametrize("way", STORED)
def test_where_weights_are(way):
    before, tensors = STORED[way]
    model = model_of([*before, NODE], tensors)
    run(model)  # It is valid.
    [node] = onnx_nodes(model)
    assert node["op_type"] == "GRU"
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(node[key], array, strict=True)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_dtypes(dtype):
    arrays = {k: a.astype(jax.numpy.dtype(dtype)) for k, a in ARRAYS.items()}
    cell = from_onnx(model_of([NODE], tensors_of(arrays)))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(cell.params)} == {dtype}
    kernel = cell.params["candidate"]["kernel"]
    np.testing.assert_array_equal(kernel[:DEPTH].T, arrays["W"][0, 2 * UNITS :])


def test_files_bytes_and_weights_in_another_file(tmp_path):
    model, path = model_of([NODE], TENSORS), tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    for given in (path, str(path), path.read_bytes()):
        [node] = onnx_nodes(given)
        np.testing.assert_array_equal(node["W"], ARRAYS["W"])
    options = {"location": "weights.bin", "size_threshold": 0}
    onnx.save(model, path, save_as_external_data=True, **options)
    [node] = onnx_nodes(path)
    np.testing.assert_array_equal(node["W"], ARRAYS["W"])
    with pytest.raises(ValueError, match=r"`a.'W'.` must"):
        onnx_nodes(path.read_bytes())


def test_quantized_weights():
    """The quantized operator of onnxruntime, which also quantizes its inputs."""
    draw = np.random.default_rng(0)
    want, tensors = weights("LSTM"), []
    for key in ("W", "R"):
        shape = want[key].swapaxes(1, 2).shape
        whole = draw.integers(-128, 128, shape, np.int8)
        zero = draw.integers(-9, 9, 1, np.int8)
        scale = draw.uniform(0.004, 0.006, 1).astype(np.float32)
        want[key] = ((whole.astype(np.float32) - zero) * scale).swapaxes(1, 2)
        parts = {"": whole, "_scale": scale, "_zero": zero}
        tensors += [from_array(x, f"{key}{k}") for k, x in parts.items()]
    names = ["x", "W", "R", "B", "", "", "", "P"]
    names += ["W_scale", "W_zero", "R_scale", "R_zero"]
    options = {"hidden_size": UNITS, "domain": "com.microsoft"}
    quantized = helper.make_node("DynamicQuantizeLSTM", names, ["y"], "a", **options)
    tensors += tensors_of({key: want[key] for key in "BP"})
    [node] = onnx_nodes(model_of([quantized], tensors))
    for key, array in want.items():
        np.testing.assert_allclose(node[key], array, rtol=1e-6, atol=0)
    model = model_of([quantized], tensors)
    y = helper.make_tensor_value_info("y", FLOAT, [None] * 4)
    model.graph.output.append(y)
    [made] = run(model)
    got = outputs_of(from_onnx(node), X, time_major=True)
    np.testing.assert_allclose(got, made[:, 0], rtol=0, atol=0.02)


# Files of strangers.


def in_a_file(name, array):
    """A tensor whose numbers are in a file of the working directory."""
    tensor = from_array(array, name)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="secret")
    return tensor


def test_constants_do_not_read_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(ARRAYS["R"].tobytes())
    hidden = helper.make_node("Constant", [], ["R"], value=in_a_file("R", ARRAYS["R"]))
    model = model_of([hidden, NODE], [t for t in TENSORS if t.name != "R"])
    with pytest.raises(ValueError, match=r"^`a.'R'.` must be in the model"):
        onnx_nodes(model)


LARGE = [ints("size", 1, 12, 2**21), ints("one", 1)]
LARGE += [from_array(np.ones((2**13, 1), "f"), "column")]
DOUBLED = " ".join(f"x{i + 1} = Concat<axis=0>(x{i}, x{i})" for i in range(12))
MAKING = {
    "Expand": "f = Cast<to=1>(one) R = Expand(f, size)",
    "Concat": f"x0 = Identity(column) {DOUBLED} R = Identity(x12)",
}


@pytest.mark.parametrize("name", MAKING)
def test_small_files_make_no_large_weights(name):
    """Each of these has more than 2**24 numbers, or makes them on the way."""
    model = model_of([*parsed(MAKING[name]), NODE], [*TENSORS[::2], *LARGE])
    with pytest.raises(ValueError, match=rf"^`a.'R'.` must .*\({name}\)"):
        onnx_nodes(model)


# What lies between two nodes: the directions, the operators, and whether they form a
# stack.


FLAT, HALVES = "f = Squeeze(y0, one) ", "a, b = Split<axis=1>(y0) "
HALVES += "left = Squeeze(a, one) right = Squeeze(b, one) "
SWAP = " = Transpose<perm=[1, 0, 2]>(f) "
BY_ROW = "t = Transpose<perm=[0, 2, 1, 3]>(y0) "
BETWEEN = {
    "squeeze": (1, "z = Squeeze(y0, one)", True),
    "dropout": (1, "d = Dropout(y0) z = Squeeze(d, one)", True),
    "reshape": (2, f"{BY_ROW} z = Reshape(t, flat)", True),
    "concat": (2, f"{HALVES} z = Concat<axis=-1>(left, right)", True),
    "other_way": (2, f"{HALVES} z = Concat<axis=-1>(right, left)", False),
    "swapped": (1, f"{FLAT} z{SWAP}", False),
    "relu": (1, f"{FLAT} z = Relu(f)", False),
    "nothing": (1, "z = Identity(x)", False),
}
CONSTANTS = [ints("one", 1), ints("flat", 0, 0, -1)]


def two_nodes(directions, between, of_top=None):
    """A model of a GRU "low", nodes between, and a GRU "top" that reads `z`."""
    of_top = of_top or directions
    low = weights("GRU", directions)
    top = weights("GRU", of_top, seed=1, depth=directions * UNITS)
    ways = {1: {}, 2: BOTH}
    nodes = [recurrent("GRU", low, "low", "y0", "0/", **ways[directions])]
    nodes += parsed(between)
    nodes.append(recurrent("GRU", top, "top", "y1", "1/", "z", **ways[of_top]))
    tensors = [*tensors_of(low, "0/"), *tensors_of(top, "1/"), *CONSTANTS]
    return model_of(nodes, tensors)


@pytest.mark.parametrize("name", BETWEEN)
def test_a_stack_is_nodes_that_read_each_other(name):
    directions, between, is_stack = BETWEEN[name]
    model = two_nodes(directions, between)
    found = onnx_nodes(model)
    assert [node["reads"] for node in found] == [None, "low" if is_stack else None]
    load = functools.partial(from_onnx, bidirectional=directions == 2)
    if is_stack:
        want = np.moveaxis(run(model)[1], 1, 2).reshape(TIME, BATCH, -1)
        got = outputs_of(load(found), X, time_major=True)
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)
    for wrong in (found[::-1], [found[1]] * 2, *([] if is_stack else [found])):
        with pytest.raises(ValueError, match=r"`model\[1\]` must read"):
            load(wrong)
    if not is_stack:
        with pytest.raises(ValueError, match=r"^`onnx_nodes\(model\)\[1\]` must read"):
            load(model)


STATES = [np.random.default_rng(2).normal(size=(1, 1, UNITS)).astype("f")] * 2
FOR_EACH_ROW = parsed(
    "shape = Shape(x) rows = Gather(shape, one) "
    "sizes = Concat<axis=0>(one, rows, one) "
    "h = Expand(storedh, sizes) c = Expand(storedc, sizes)"
)


def with_states(before, tensors):
    arrays = weights("LSTM")
    node = recurrent("LSTM", arrays, "a")
    node.input[5:7] = "hc"
    return model_of([*before, node], [*tensors_of(arrays), *tensors, *CONSTANTS])


def test_initial_states_that_a_model_stores():
    stored = [from_array(STATES[0], f"stored{k}") for k in "hc"]
    model = with_states(FOR_EACH_ROW, stored)
    [node] = onnx_nodes(model)
    with pytest.raises(ValueError, match=r"initial_h.\]` must"):
        from_onnx(node)
    c, h = (node.pop(key) for key in ("initial_c", "initial_h"))
    np.testing.assert_array_equal([c, h], STATES, strict=True)
    state = LSTMStateTuple(*(np.broadcast_to(s[0], (BATCH, UNITS)) for s in (c, h)))
    got = outputs_of(from_onnx(node), X, initial_state=state, time_major=True)
    [want] = run(model)
    np.testing.assert_allclose(got, want[:, 0], rtol=0, atol=2e-6)


def test_initial_states_that_a_run_passes():
    """Zeros are the default, and states of an encoder depend on its inputs."""
    zeros = [from_array(np.zeros((1, BATCH, UNITS), "f"), key) for key in "hc"]
    encoder = recurrent("LSTM", weights("LSTM"), "encoder")
    encoder.output[:] = ["", "h", "c"]
    for model in (with_states([], zeros), with_states([encoder], [])):
        assert not {"initial_h", "initial_c"} & onnx_nodes(model)[-1].keys()


def test_initial_states_of_a_node_whose_first_axis_is_the_batch():
    states = np.arange(2.0 * BATCH * UNITS).reshape(2, BATCH, 1, UNITS).astype("f")
    model = with_states([], [from_array(states[i], k) for i, k in enumerate("hc")])
    model.graph.node[-1].attribute.append(helper.make_attribute("layout", 1))
    [node] = onnx_nodes(model)
    np.testing.assert_array_equal(node["initial_c"], states[1].swapaxes(0, 1))


# Which nodes.

PLACES = ["/encoder/LSTM", "/encoder/LSTM_1", "/decoder/GRU", ""]


def several():
    made, tensors = [], []
    for i, name in enumerate(PLACES):
        kind = "GRU" if i > 1 else "LSTM"
        arrays, prefix = weights(kind, seed=i), f"{i}/"
        made.append(recurrent(kind, arrays, name, f"y{i}", prefix))
        tensors += tensors_of(arrays, prefix)
    return model_of(made, tensors)


PICKED = [("encoder/", [0, 1]), (["/decoder/", "encoder/LSTM"], [2, 0]), (["y3"], [3])]


@pytest.mark.parametrize(("names", "picked"), PICKED)
def test_by_name_of_node_or_scope(names, picked):
    found = onnx_nodes(several(), at=names)
    assert [node["name"] for node in found] == [PLACES[i] or "y3" for i in picked]
    for i, node in zip(picked, found, strict=True):
        want = weights("GRU" if i > 1 else "LSTM", seed=i)
        np.testing.assert_array_equal(node["R"], want["R"])


[ADDED] = parsed("R = Add(x, W)")
QUANTIZED = parsed("h = MatMulInteger(x, W)")
UNSORTED = parsed("R = Identity(b) b = Identity(c) c = Identity(R)")
UNSORTED = model_of([*UNSORTED, NODE], TENSORS[::2])
AS_INPUT = model_of([NODE], TENSORS[::2])
AS_INPUT.graph.input.add(name="R")


nodes = lambda model, at=None: lambda: onnx_nodes(model, at=at)
test_refusals = refusals(
    [
        (ValueError, "`at` must", nodes(several(), "enc")),
        (ValueError, r"`a.'R'.` must be computed", nodes(UNSORTED)),
        (TypeError, "`at` must", nodes(several(), [])),
        (ValueError, "`model` must", nodes(model_of([ADDED], TENSORS))),
        (ValueError, r"`a\['R'\]` must", nodes(model_of([ADDED, NODE], TENSORS[:1]))),
        (ValueError, "`model` must", nodes(b"nonsense")),
        (ValueError, "`model` must .*tf2onnx", nodes(b"\x1c\0\0\0TFL3" + bytes(99))),
        (ValueError, "`model` must .*quantiz", nodes(model_of(QUANTIZED, TENSORS))),
        (ValueError, r"`a\['R'\]` must .*initializer", nodes(AS_INPUT)),
        (TypeError, "`model` must", nodes(5)),
    ]
)
