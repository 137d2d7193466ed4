"""Nodes of ONNX models, loaded and compared with what onnxruntime computes."""

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


def weights(kind, directions=1, seed=0):
    rows, draw = GATES[kind] * UNITS, np.random.default_rng(seed).normal
    shapes = {"W": (rows, DEPTH), "R": (rows, UNITS), "B": (2 * rows,)}
    shapes |= {"P": (3 * UNITS,)} if kind == "LSTM" else {}
    array = lambda shape: draw(0, 0.7, (directions, *shape)).astype(np.float32)
    return {name: array(shape) for name, shape in shapes.items()}


def model_of(nodes, tensors):
    """A model with the input `x` and, for each node, its first output."""
    value = lambda name, rank: helper.make_tensor_value_info(name, FLOAT, [None] * rank)
    outputs = [value(node.output[0], 4) for node in nodes if node.op_type in GATES]
    graph = helper.make_graph(nodes, "g", [value("x", 3)], outputs, tensors)
    opsets = [helper.make_opsetid("", 14)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def recurrent(kind, arrays, name="", output="y", prefix="", **attributes):
    inputs = [prefix + k if k in arrays else "x" * (k == "x") for k in NAMES]
    inputs = inputs if kind == "LSTM" else inputs[:4]
    attributes["hidden_size"] = UNITS
    return helper.make_node(kind, inputs, [output], name, **attributes)


def tensors_of(arrays, prefix=""):
    return [from_array(array, prefix + name) for name, array in arrays.items()]


def run(model):
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), None, providers)
    return session.run(None, {"x": X})


LOWER = {"activations": ["sigmoid", "TANH", "tanh"]}
ELU = {"activations": ["Sigmoid", "elu", "Elu"]}
HARD = {"activation_alpha": [0.2], "activation_beta": [0.5]}
HARD["activations"] = ["HardSigmoid"]
BOTH = {"direction": "bidirectional"}
TAKEN = {
    "gru": ("GRU", {"linear_before_reset": 1}),
    "any_case": ("LSTM", LOWER),
    "alpha": ("LSTM", ELU | {"activation_alpha": [1.0]}),
    "alphas_that_nothing_reads": ("LSTM", LOWER | {"activation_alpha": [9.0, 9.0]}),
    "alphas_past_the_last": ("LSTM", ELU | {"activation_alpha": [1.0, 1.0, 9.0]}),
    "alpha_and_beta": ("RNN", HARD),
    "coupled": ("LSTM", {"input_forget": 1}),
    "coupled_both": ("LSTM", BOTH | {"input_forget": 1}),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_onnxruntime_takes(name):
    kind, attributes = TAKEN[name]
    arrays = weights(kind, 1 + ("direction" in attributes))
    model = model_of([recurrent(kind, arrays, **attributes)], tensors_of(arrays))
    [want] = run(model)
    cells = convert.load(convert.nodes(model), bidirectional="both" in name)
    got = outputs_of(cells, X, time_major=True)
    want = np.moveaxis(want, 1, 2).reshape(TIME, BATCH, -1)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


def test_shards_and_a_forget_bias_of_coupled_gates():
    cell = bound(CoupledInputForgetGateLSTMCell(4, num_unit_shards=2, forget_bias=0.5))
    got = convert.load(convert.save(cell)).params
    kernels = cell.params["W_0"], cell.params["W_1"]
    np.testing.assert_array_equal(got["W_0"], np.concatenate(kernels))
    shift = np.repeat([0, 0.5, 0], 4)
    np.testing.assert_array_equal(got["B"], cell.params["B"] + shift)


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
    more = {"clip": None, "input_forget": 0, "layout": 1, "P": None}
    more |= {"direction": b"forward", "op_type": b"LSTM", "activation_alpha": []}
    more["activations"] = [b"Sigmoid", b"Tanh", b"Tanh"]
    assert_same(convert.load(convert.save(cell)[0] | more), cell)


# Where the weights are.


def typed(array, name):
    """A tensor that stores its numbers in `float_data`, not as raw bytes."""
    return helper.make_tensor(name, FLOAT, array.shape, array.ravel())


def constant(array, name):
    return helper.make_node("Constant", [], [name], value=from_array(array))


def copied(name):
    return helper.make_node("Identity", [f"shared/{name}"], [name])


ARRAYS = weights("GRU")
TENSORS, NODE = tensors_of(ARRAYS), recurrent("GRU", ARRAYS, "a")
# The nodes before the recurrent one, and the initializers.
STORED = {
    "raw": ([], TENSORS),
    "typed": ([], [typed(a, n) for n, a in ARRAYS.items()]),
    "constants": ([constant(a, n) for n, a in ARRAYS.items()], []),
    "copies": (list(map(copied, ARRAYS)), tensors_of(ARRAYS, "shared/")),
}


@pytest.mark.parametrize("way", STORED)
def test_where_weights_are(way):
    before, tensors = STORED[way]
    model = model_of([*before, NODE], tensors)
    run(model)  # It is valid.
    [node] = convert.nodes(model)
    assert node["op_type"] == "GRU"
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(node[key], array, strict=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes(dtype):
    arrays = {k: a.astype(jax.numpy.dtype(dtype)) for k, a in ARRAYS.items()}
    cell = convert.load(convert.nodes(model_of([NODE], tensors_of(arrays))))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(cell.params)} == {dtype}
    kernel = cell.params["candidate"]["kernel"]
    np.testing.assert_array_equal(kernel[:DEPTH].T, arrays["W"][0, 2 * UNITS :])


def test_files_bytes_and_weights_in_another_file(tmp_path):
    model, path = model_of([NODE], TENSORS), tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    for given in (path, str(path), path.read_bytes(), bytearray(path.read_bytes())):
        [node] = convert.nodes(given)
        np.testing.assert_array_equal(node["W"], ARRAYS["W"])
    options = {"location": "weights.bin", "size_threshold": 0}
    onnx.save(model, path, save_as_external_data=True, **options)
    [node] = convert.nodes(path)
    np.testing.assert_array_equal(node["W"], ARRAYS["W"])
    with pytest.raises(ValueError, match=r"`a.'W'.` must .* 'weights.bin'\. Store"):
        convert.nodes(path.read_bytes())
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ValueError, match=r"`model` .*tensor name: W"):
        convert.nodes(path)


def test_nodes_of_branches_read_the_weights_around_them():
    y = helper.make_tensor_value_info("y", FLOAT, [None] * 4)
    branch = helper.make_graph([NODE], "b", [], [y])
    given = {"then_branch": branch, "else_branch": branch}
    choice = helper.make_node("If", ["x"], ["z"], **given)
    found = convert.nodes(model_of([choice], TENSORS))
    assert [node["name"] for node in found] == ["a", "a"]
    np.testing.assert_array_equal(found[1]["R"], ARRAYS["R"])


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


PICKED = [([], [0, 1, 2, 3]), (["/encoder/LSTM_1"], [1]), (["encoder"], [0, 1])]
PICKED += [(["/decoder/", "encoder/LSTM"], [2, 0]), (["y3"], [3])]


@pytest.mark.parametrize(("names", "picked"), PICKED)
def test_by_name_of_node_or_scope(names, picked):
    found = convert.nodes(several(), *names)
    assert [node["name"] for node in found] == [PLACES[i] or "y3" for i in picked]
    for i, node in zip(picked, found, strict=True):
        want = weights("GRU" if i > 1 else "LSTM", seed=i)
        np.testing.assert_array_equal(node["R"], want["R"])


LIST = r"'/encoder/LSTM' \(LSTM\), .*'/decoder/GRU' \(GRU\), 'y3' \(GRU\)\."
ADDED = helper.make_node("Add", ["W", "W"], ["R"])
EMPTY = helper.make_node("Identity", [], ["R"])
WRONG = r"`a\['R'\]` must be an initializer or .* Constant node, got 'R'\. Export"
UNREADABLE = r"`a\['R'\]` must be a tensor that onnx can read, got 'R' \(data_type=99, "
REFERENCE = "must have a value, got a reference to the attribute 'c'"


def with_attribute(**fields):
    node = recurrent("GRU", ARRAYS, "a")
    node.attribute.add(**fields)
    return model_of([node], TENSORS)


def unreadable():
    """A model whose R has an unknown type."""
    tensors = tensors_of(ARRAYS)
    tensors[1].data_type = 99
    return model_of([NODE], tensors)


def calling(node, **values):
    """A model that calls a function with the node, whose weights are arguments."""
    names = ["x", "W", "R", "B"]
    opsets = [helper.make_opsetid("", 14), helper.make_opsetid("local", 1)]
    given = "local", "F", names, ["y"], [node], opsets[:1], list(values)
    inner = helper.make_function(*given)
    call = helper.make_node("F", names, ["z"], domain="local", **values)
    model = model_of([call], TENSORS)
    model.functions.append(inner)
    model.opset_import.append(opsets[1])
    return model


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (f"got 'enc'. Found: {LIST}", (several(), "enc")),
        ("must have an LSTM, GRU or RNN node, got Add", (model_of([ADDED], TENSORS),)),
        (WRONG, (model_of([ADDED, NODE], [TENSORS[0]]),)),
        (WRONG, (model_of([EMPTY, NODE], TENSORS[::2]),)),
        (rf"{UNREADABLE}.*KeyError\(99\)", (unreadable(),)),
        (REFERENCE, (with_attribute(name="clip", type=1, ref_attr_name="c"),)),
        ("in its functions, got F. .*inline_local_fun", (calling(NODE),)),
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
    names = {"name": "activations", "type": 8, "strings": [b"Sigmoid", b"\xff"]}
    [node] = convert.nodes(with_attribute(**names))
    with pytest.raises(ValueError, match=r"\['activations'\]` must be Elu .*xff"):
        convert.load(node)
