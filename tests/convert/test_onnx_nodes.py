"""Nodes of ONNX models, loaded and compared with what onnxruntime computes."""

import sys

import jax
import numpy as np
import pytest
from helpers import assert_same, bound, outputs_of

from jaxrnn import LSTMCell
from jaxrnn.contrib import CoupledInputForgetGateLSTMCell
from jaxrnn.convert import onnx as convert

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
helper, from_array = onnx.helper, onnx.numpy_helper.from_array

TIME, BATCH, DEPTH, UNITS = 5, 2, 3, 4
FLOAT, NAMES = onnx.TensorProto.FLOAT, ("x", "W", "R", "B", "", "", "", "P")
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
X = np.random.default_rng(1).normal(size=(TIME, BATCH, DEPTH)).astype(np.float32)


def weights(kind, directions=1, seed=0, scale=0.7):
    rows, draw = GATES[kind] * UNITS, np.random.default_rng(seed).normal
    shapes = {"W": (rows, DEPTH), "R": (rows, UNITS), "B": (2 * rows,)}
    shapes |= {"P": (3 * UNITS,)} if kind == "LSTM" else {}
    array = lambda shape: draw(0, scale, (directions, *shape)).astype(np.float32)
    return {name: array(shape) for name, shape in shapes.items()}


def model_of(nodes, tensors, **options):
    """A model with the input `x` and, for each node, its first output."""
    value = lambda name, rank: helper.make_tensor_value_info(name, FLOAT, [None] * rank)
    outputs = [value(node.output[0], 4) for node in nodes if node.op_type in GATES]
    graph = helper.make_graph(nodes, "g", [value("x", 3)], outputs, tensors, **options)
    opsets = [helper.make_opsetid("", 14)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def recurrent(kind, arrays, name="", output="y", prefix="", **attributes):
    inputs = [prefix + k if k in arrays else "x" * (k == "x") for k in NAMES]
    inputs = inputs if kind == "LSTM" else inputs[:4]
    attributes["hidden_size"] = UNITS
    return helper.make_node(kind, inputs, [output], name, **attributes)


def simple(kind, scale=0.7, **attributes):
    directions = 1 + ("direction" in attributes)
    arrays = weights(kind, directions, 0, scale)
    tensors = [from_array(array, name) for name, array in arrays.items()]
    return model_of([recurrent(kind, arrays, **attributes)], tensors)


def run(model):
    options = {"providers": ["CPUExecutionProvider"]}
    session = onnxruntime.InferenceSession(model.SerializeToString(), **options)
    return session.run(None, {"x": X})


LOWER = {"activations": ["sigmoid", "TANH", "tanh"]}
ELU = {"activations": ["Sigmoid", "elu", "Elu"]}
HARD = {"activations": ["HardSigmoid"]}
HARD |= {"activation_alpha": [0.2], "activation_beta": [0.5]}
BOTH = {"direction": "bidirectional"}
TAKEN = {
    "plain": ("LSTM", {}),
    "gru": ("GRU", {"linear_before_reset": 1}),
    "both": ("LSTM", BOTH),
    "any_case": ("LSTM", LOWER),
    "any_case_of_gru": ("GRU", {"activations": ["SIGMOID", "softSign"]}),
    "alpha": ("LSTM", ELU | {"activation_alpha": [1.0]}),
    "alphas_that_nothing_reads": ("LSTM", LOWER | {"activation_alpha": [9.0, 9.0]}),
    "alphas_past_the_last": ("LSTM", ELU | {"activation_alpha": [1.0, 1.0, 9.0]}),
    "alpha_and_beta": ("RNN", HARD),
    "coupled": ("LSTM", {"input_forget": 1}),
    "coupled_elu": ("LSTM", ELU | {"input_forget": 1}),
    "coupled_both": ("LSTM", BOTH | {"input_forget": 1}),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_onnxruntime_takes(name):
    kind, attributes = TAKEN[name]
    model = simple(kind, **attributes)
    [want] = run(model)
    cells = convert.load(convert.nodes(model), bidirectional="both" in name)
    got = outputs_of(cells, X, time_major=True)
    want = np.moveaxis(want, 1, 2).reshape(TIME, BATCH, -1)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


def test_shards_and_a_forget_bias_of_coupled_gates():
    whole = bound(CoupledInputForgetGateLSTMCell(4, forget_bias=0.0), dtype="float32")
    cell = CoupledInputForgetGateLSTMCell(4, num_unit_shards=2, forget_bias=0.5)
    kernel, bias = whole.params["W_0"], whole.params["B"]
    sharded = cell.bind({"W_0": kernel[:4], "W_1": kernel[4:], "B": bias})
    got = convert.load(convert.save(sharded)).params
    np.testing.assert_array_equal(got["W_0"], kernel)
    shift = np.repeat(np.float32([0, 0.5, 0]), 4)
    np.testing.assert_array_equal(got["B"], bias + shift)


def test_a_direction_with_coupled_gates_beside_one_without():
    """The blocks of a coupled layer are those of an LSTM that computes the same."""
    coupled = bound(CoupledInputForgetGateLSTMCell(4), dtype="float32")
    plain = bound(LSTMCell(4), dtype="float32")
    [node] = convert.save((coupled, plain), bidirectional=True)
    assert "input_forget" not in node
    (fw,), _ = convert.load(node, bidirectional=True)
    got, want = (outputs_of(cell, X, time_major=True) for cell in (fw, coupled))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_peepholes_of_one_direction_alone():
    peeping = LSTMCell(4, use_peepholes=True)
    [node] = convert.save((bound(peeping), bound(LSTMCell(4))), bidirectional=True)
    np.testing.assert_array_equal(node["P"][1], 0)
    assert node["P"][0].all()


def test_attributes_that_say_nothing_are_taken():
    """Also as bytes, which protocol buffers have."""
    cell = bound(LSTMCell(4, forget_bias=0))
    [node] = convert.save(cell)
    more = {"clip": None, "input_forget": 0, "layout": 1, "P": None}
    more |= {"direction": b"forward", "op_type": b"LSTM", "activation_alpha": []}
    more["activations"] = [name.encode() for name in node["activations"]]
    assert_same(convert.load(node | more), cell)


# Where the weights are.


def typed(array, name):
    """A tensor that stores its numbers in `float_data`, not as raw bytes."""
    return helper.make_tensor(name, FLOAT, array.shape, array.ravel())


def constant(array, name):
    return helper.make_node("Constant", [], [name], value=from_array(array))


def copied(array, name):
    return helper.make_node("Identity", [f"{name}/shared"], [name])


ARRAYS = weights("GRU")
STORED = {
    "raw": ([], from_array),
    "typed": ([], typed),
    "constants": ([constant(a, n) for n, a in ARRAYS.items()], None),
    "copies": (
        [copied(a, n) for n, a in ARRAYS.items()],
        lambda array, name: from_array(array, f"{name}/shared"),
    ),
}


def stored(way):
    before, store = STORED[way]
    tensors = [store(a, n) for n, a in ARRAYS.items()] if store else []
    return model_of([*before, recurrent("GRU", ARRAYS)], tensors)


@pytest.mark.parametrize("way", STORED)
def test_where_weights_are(way):
    run(stored(way))  # The model is valid.
    [node] = convert.nodes(stored(way))
    assert node["op_type"] == "GRU"
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(node[key], array, strict=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes(dtype):
    arrays = {k: a.astype(jax.numpy.dtype(dtype)) for k, a in ARRAYS.items()}
    tensors = [from_array(array, name) for name, array in arrays.items()]
    [node] = convert.nodes(model_of([recurrent("GRU", arrays)], tensors))
    cell = convert.load(node)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(cell.params)} == {dtype}
    kernel = cell.params["candidate"]["kernel"]
    np.testing.assert_array_equal(kernel[:DEPTH].T, arrays["W"][0, 2 * UNITS :])


def test_files_bytes_and_weights_in_another_file(tmp_path):
    model, path = stored("raw"), tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    for given in (path, str(path), path.read_bytes(), bytearray(path.read_bytes())):
        [node] = convert.nodes(given)
        np.testing.assert_array_equal(node["W"], ARRAYS["W"])
    options = {"location": "weights.bin", "size_threshold": 0}
    onnx.save(model, path, save_as_external_data=True, **options)
    [node] = convert.nodes(path)
    np.testing.assert_array_equal(node["W"], ARRAYS["W"])
    with pytest.raises(ValueError, match=r"`y.'W'.` must .* 'weights.bin'\. Store"):
        convert.nodes(path.read_bytes())


def test_nodes_of_branches_read_the_weights_around_them():
    y = helper.make_tensor_value_info("y", FLOAT, [None] * 4)
    branch = helper.make_graph([recurrent("GRU", ARRAYS, "inner")], "b", [], [y])
    given = {"then_branch": branch, "else_branch": branch}
    choice = helper.make_node("If", ["x"], ["z"], **given)
    tensors = [from_array(array, name) for name, array in ARRAYS.items()]
    found = convert.nodes(model_of([choice], tensors))
    assert [node["name"] for node in found] == ["inner", "inner"]
    np.testing.assert_array_equal(found[1]["R"], ARRAYS["R"])


# Which nodes.

PLACES = ["/encoder/LSTM", "/encoder/LSTM_1", "/decoder/GRU", ""]


def several():
    made, tensors = [], []
    for i, name in enumerate(PLACES):
        kind = "GRU" if i > 1 else "LSTM"
        arrays, prefix = weights(kind, seed=i), f"{i}/"
        made.append(recurrent(kind, arrays, name, f"y{i}", prefix))
        tensors += [from_array(array, prefix + key) for key, array in arrays.items()]
    return model_of(made, tensors)


@pytest.mark.parametrize(
    ("names", "picked"),
    [
        ((), [0, 1, 2, 3]),
        (("/encoder/LSTM_1",), [1]),
        (("encoder",), [0, 1]),
        (("/decoder/", "encoder/LSTM"), [2, 0]),
        (("y3",), [3]),
    ],
)
def test_by_name_of_node_or_scope(names, picked):
    found = convert.nodes(several(), *names)
    assert [node["name"] for node in found] == [PLACES[i] or "y3" for i in picked]
    for i, node in zip(picked, found, strict=True):
        want = weights("GRU" if i > 1 else "LSTM", seed=i)
        np.testing.assert_array_equal(node["R"], want["R"])


LIST = r"'/encoder/LSTM' \(LSTM\), .*'/decoder/GRU' \(GRU\), 'y3' \(GRU\)\."
TENSORS = [from_array(array, name) for name, array in ARRAYS.items()]
TENSOR, R = TENSORS[0], TENSORS[1]
ADDED = helper.make_node("Add", ["W", "W"], ["R"])
NODE = recurrent("GRU", ARRAYS, "a")
WRONG = r"`a\['R'\]` must be an initializer or .* Constant node, got 'R'\. Export"
UNREADABLE = r"`a\['R'\]` must be a tensor that onnx can read, got 'R' \(data_type="


def reading(*inputs):
    """A model whose R is made by `Identity` nodes, which read these values."""
    copies = [helper.make_node("Identity", each, [name]) for name, each in inputs]
    return model_of([*copies, NODE], [t for t in TENSORS if t.name != "R"])


def with_r(tensor, **fields):
    """A model whose R has other fields."""
    changed = onnx.TensorProto()
    changed.CopyFrom(tensor)
    for name, value in fields.items():
        if name == "dims":
            del changed.dims[:]
            changed.dims.extend(value)
        else:
            setattr(changed, name, value)
    return model_of([NODE], [changed, *[t for t in TENSORS if t.name != "R"]])


def with_attribute(**fields):
    node = recurrent("GRU", ARRAYS, "a")
    node.attribute.add(**fields)
    return model_of([node], TENSORS)


def calling(node, **values):
    """A model that calls a function with the node, whose weights are arguments."""
    names = ["x", "W", "R", "B"]
    opsets = [helper.make_opsetid("", 14), helper.make_opsetid("local", 1)]
    options = (opsets[:1], list(values))
    inner = helper.make_function("local", "F", names, ["y"], [node], *options)
    call = helper.make_node("F", names, ["z"], domain="local", **values)
    model = model_of([call], TENSORS)
    model.functions.append(inner)
    model.opset_import.append(opsets[1])
    return model


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (f"got 'enc'. Found: {LIST}", (several(), "enc")),
        ("must have an LSTM, GRU or RNN node, got Add", (model_of([ADDED], [TENSOR]),)),
        ("RNN node, got nothing", (b"",)),
        (WRONG, (model_of([ADDED, NODE], [TENSOR]),)),
        (WRONG, (model_of([NODE], [TENSOR]),)),
        (WRONG, (reading(("R", ["R"])),)),
        (WRONG, (reading(("R", [])),)),
        (rf"{UNREADABLE}99, .*KeyError\(99\)", (with_r(R, data_type=99),)),
        (rf"{UNREADABLE}0, .*UNDEFINED", (with_r(R, data_type=0),)),
        (rf"{UNREADABLE}1, dims=\[5\]\).*reshape", (with_r(R, dims=[5]),)),
        (rf"{UNREADABLE}1, .*buffer size", (with_r(R, raw_data=b"a"),)),
        (
            r"`a\['clip'\]` must have a value, got a reference to the attribute 'c'",
            (with_attribute(name="clip", type=1, ref_attr_name="c"),),
        ),
        (
            "no recurrent nodes in its functions, got F. .*inline_local_fun",
            (calling(NODE),),
        ),
        ("`model` must be an ONNX file", (b"nonsense",)),
        ("`model` must be a path, .*, got 5", (5,)),
    ],
)
def test_refuses(message, arguments):
    kind = TypeError if arguments == (5,) else ValueError
    with pytest.raises(kind, match=message):
        convert.nodes(*arguments)


def test_functions_that_are_inlined():
    """As the error about functions advises, also with a reference to an attribute."""
    node = recurrent("GRU", ARRAYS, "a")
    node.attribute.add(name="linear_before_reset", type=2, ref_attr_name="after")
    inliner = pytest.importorskip("onnx.inliner")
    model = inliner.inline_local_functions(calling(node, after=1))
    [found] = convert.nodes(model)
    np.testing.assert_array_equal(found["R"], ARRAYS["R"])
    assert found["linear_before_reset"] == 1
    # A function without recurrent nodes is no hindrance.
    other = helper.make_node("Relu", ["x"], ["y"])
    model.functions.append(calling(other).functions[0])
    assert len(convert.nodes(model)) == 1


def test_activations_that_are_not_utf8():
    [node] = convert.nodes(
        with_attribute(name="activations", type=8, strings=[b"\xff"])
    )
    wanted = r"`nodes\[0\]\['activations'\]` must have length 2, got 1"
    with pytest.raises(ValueError, match=wanted):
        convert.load(node)
    node["activations"] = [b"Sigmoid", b"\xff"]
    with pytest.raises(ValueError, match=r"\['activations'\]` must be Elu .*xff"):
        convert.load(node)


def test_weights_in_a_file_that_is_missing(tmp_path):
    path = tmp_path / "model.onnx"
    options = {"location": "weights.bin", "size_threshold": 0}
    onnx.save(stored("raw"), path, save_as_external_data=True, **options)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ValueError, match=r"`model` .*tensor name: W"):
        convert.nodes(path)


def test_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install onnx"):
        convert.nodes("model.onnx")
