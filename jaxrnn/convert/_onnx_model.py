"""Finds the recurrent nodes of an ONNX model, and reads their weights.

Weights are initializers, or the results of other nodes, which the reference evaluator
of the package `onnx` computes. `reads` uses the same evaluator to test whether a node
reads exactly the outputs of another recurrent node.

Models may be malicious. Before a node runs, shape inference computes how many numbers
the node makes, and `Room` limits their total. Files that a model names are read only by
`onnx.load`, and only below the folder of the model.
"""

import contextlib
import dataclasses
import io
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from .._base.arguments import check_instance
from .._base.errors import Verbatim, expect
from .._base.modules import import_optional
from .._base.typing import Params
from ._weights import listed, prefixes_of_torch

Proto: TypeAlias = Any
"""A protocol buffer of the package `onnx`, which is imported only when needed."""

_QUANTIZED = "DynamicQuantizeLSTM"  # An operator of onnxruntime.
# The index of each array among the operators' inputs. The other inputs, such as X and
# the lengths, are arguments of a run.
_WEIGHTS = {"W": 1, "R": 2, "B": 3, "P": 7}
_STATES = {"initial_h": 5, "initial_c": 6}
# The same indices for operators with a past state, whose first axis holds the rows.
_INPUTS = {"CausalConvWithState": {"weight": 1, "bias": 2}, "LinearAttention": {}}
_PAST = {"past_state": 3}
# The inputs of `LinearAttention` whose last axes set the sizes of the cell.
_SIZES = {"query": 0, "value": 2, "decay": 4}
_OPERATORS = ("LSTM", "GRU", "RNN", *_INPUTS)
_DOMAINS: dict[str, tuple[str, ...]] = dict.fromkeys(("", "ai.onnx"), _OPERATORS)
_DOMAINS["com.microsoft"] = (_QUANTIZED, *_INPUTS)
# The indices of each quantized kernel, its scales and its zero points.
_QUANTIZED_WEIGHTS = {"W": (1, 8, 9), "R": (2, 10, 11)}
_RANDOM = ("Random", "Bernoulli", "Multinomial")
# The sizes of the time and batch axes in tests of models that do not fix them, and the
# size of all axes of X for models that create initial states from the shape of X.
_TIME, _BATCH, _ANY = 5, 3, 2
# The operators of a model may compute `_ROOM` numbers, plus `_ROOM_OF_BYTE` numbers for
# each byte of the model.
_ROOM, _ROOM_OF_BYTE = 2**24, 16
# Operators whose output sizes depend on values. Their outputs contain at most as many
# numbers as their inputs.
_SELECTING = ("NonZero", "Compress", "Unique", "SequenceAt", "SequenceConstruct")
_SELECTING += ("SequenceInsert", "SplitToSequence", "ConcatFromSequence")
# Shape inference gets the values of arrays up to this size, because they may be shapes.
_SMALL = 64
_TFLITE = "The package tf2onnx also converts such files."
_FOLD = (
    "If you trust the model, let onnxruntime compute its constants: set the session "
    "option optimized_model_filepath, and pass the file that onnxruntime writes."
)
_STEPS = (
    "The exporter may have written the steps of a cell as matrix products and "
    "activations, unrolled or in the body of a loop."
)
_LIBRARIES = (
    "Load the weights from the library that trained the model, for example with "
    "`convert.from_torch(module.state_dict())` or "
    "`convert.from_keras(layer.get_weights())`."
)


@dataclasses.dataclass
class Room:
    """Limits how many numbers the operators of a model compute, in all its graphs."""

    left: int

    def take(self, place: str, node: Proto, size: float) -> None:
        """Subtracts `size` from the limit; raises ValueError if it is exceeded.

        `place` is the value, such as a weight, that the node helps to compute.
        """
        must = f"be computed by operators that make at most {self.left} numbers"
        got = Verbatim(f"{size} numbers of the node {_name(node)!r} ({node.op_type})")
        expect(size <= self.left, place, must, got, _FOLD)
        self.left -= int(size)


@dataclasses.dataclass
class Graph:
    """A graph or a subgraph (e.g. a loop's body), with all values that it can read.

    Attributes:
        path: The names of the nodes and attributes that hold the subgraph; "" for the
            graph of a model.
        opsets: The version of the operators of each domain.
        room: The limit for the numbers that nodes compute.
        nodes: All nodes that the subgraph can read, in an order in which they can run.
            They include nodes of the graphs around the subgraph.
        producers: The index of the node that computes each value.
        tensors: The initializers.
        shapes: The known sizes of values; None for an axis of any size.
    """

    path: str
    opsets: dict[str, int]
    room: Room
    nodes: list[Proto] = dataclasses.field(default_factory=list)
    producers: dict[str, int] = dataclasses.field(default_factory=dict)
    tensors: dict[str, Proto] = dataclasses.field(default_factory=dict)
    shapes: dict[str, list[int | None]] = dataclasses.field(default_factory=dict)

    def inner(self, path: str) -> "Graph":
        """Creates a subgraph, which can read all values of this graph so far."""
        return dataclasses.replace(
            self,
            path=f"{self.path}{path}/",
            nodes=self.nodes.copy(),
            producers=self.producers.copy(),
            tensors=self.tensors.copy(),
            shapes=self.shapes.copy(),
        )

    def shapes_of_any_size(self) -> Params:
        """Results for the nodes `Shape` and `Size`; each axis has size `_ANY`."""
        made: Params = {}
        for node in self.nodes:
            if node.op_type in ("Shape", "Size"):
                axes = len(self.shapes.get(node.input[0], [None] * 3))
                shape = np.full(axes, _ANY) if node.op_type == "Shape" else _ANY
                made[node.output[0]] = np.asarray(shape, np.int64)
        return made

    def sources(self, name: str, given: Params) -> tuple[set[str], list[Proto]] | None:
        """Finds the constants and the nodes from which a value is computed.

        Args:
            name: The name of the value.
            given: Values that replace what the graph computes.

        Returns:
            The names of initializers and given values, and the nodes that compute the
            value from these. None if the value depends on inputs of the model, on
            random numbers, or on an operator with subgraphs.
        """
        leaves: set[str] = set()
        found: set[int] = set()
        names = [name]
        while names:
            each = names.pop()
            at = self.producers.get(each)
            if each in given or each in self.tensors:
                leaves.add(each)
            elif at is None or not _is_plain(self.nodes[at]):
                return None
            elif at not in found:
                found.add(at)
                names += filter(None, self.nodes[at].input)
        return leaves, [self.nodes[at] for at in sorted(found)]


@dataclasses.dataclass
class Found:
    """A recurrent node, and the graph that it reads; `name` is unique in the model."""

    node: Proto
    graph: Graph
    name: str = ""


def as_model(model: Any) -> Proto:
    """Loads a model from a path or from bytes; returns an `onnx.ModelProto` unchanged.

    Raises:
        TypeError: If `model` is none of these.
        ValueError: If the file is not an ONNX file, or onnx cannot read the files with
            the model's weights.
        ImportError: If `onnx` is missing.
    """
    onnx = import_optional("onnx")
    protobuf = import_optional("google.protobuf.message", "protobuf")
    if isinstance(model, onnx.ModelProto):
        return model
    kinds = str | os.PathLike | bytes | bytearray | memoryview
    what = "a path, the bytes of an ONNX file or an `onnx.ModelProto`"
    check_instance("model", model, kinds, what)
    is_path = isinstance(model, str | os.PathLike)
    try:
        if is_path:
            return onnx.load(model)
        return onnx.load_from_string(bytes(model))
    except (protobuf.DecodeError, onnx.checker.ValidationError, ValueError) as error:
        reason = str(error).rstrip(".")
        text = (
            f"`model` must be an ONNX file, but the ONNX parser rejected it: {reason}."
        )
        with open(model, "rb") if is_path else io.BytesIO(model) as file:
            if file.read(8)[4:] == b"TFL3":
                text += f" This is a file of TensorFlow Lite. {_LIBRARIES} {_TFLITE}"
        raise ValueError(text) from None


def recurrent_nodes(model: Proto) -> list[Found]:
    """Finds the recurrent nodes of a model and of its subgraphs, in the model's order.

    Raises:
        ValueError: If there is no recurrent node, or a function of the model contains
            one.
    """
    functions = [f.name for f in model.functions if any(map(_is_recurrent, _all(f)))]
    must = "have no recurrent nodes in its functions"
    inlined = "`onnx.inliner.inline_local_functions(onnx.load(path))`"
    fix = f"Import `onnx.inliner`, and pass {inlined}."
    expect(not functions, "model", must, listed(functions), fix)
    count = sum(map(_is_recurrent, _all(model.graph)))
    operators = sorted({node.op_type for node in _all(model.graph)})
    fix = f"{_STEPS} {_LIBRARIES}"
    names = [tensor.name for tensor in model.graph.initializer]
    if prefixes := prefixes_of_torch(names):
        found = listed(map(repr, prefixes))
        fix = (
            f"{_STEPS} It still holds the weights of PyTorch: call `convert.from_torch("
            "{x.name: onnx.numpy_helper.to_array(x) for x in model.graph.initializer}, "
            f"at=at)` with one of {found} as `at`."
        )
    if any("Quant" in each or "Integer" in each for each in operators):
        fix = f"Pass the model before quantization. {fix}"
    must = f"have a node of {' or '.join(_OPERATORS)}"
    expect(count, "model", must, listed(operators), fix)
    # Infer shapes, because `reads` needs the sizes of time and batch if they are fixed.
    if count > 1 or "LinearAttention" in operators:
        with contextlib.suppress(Exception):  # A model may be too large, or not valid.
            model = import_optional("onnx.shape_inference").infer_shapes(model)
    opsets = {each.domain: each.version for each in model.opset_import}
    parts = (*model.graph.initializer, *model.graph.node)
    room = Room(_ROOM + _ROOM_OF_BYTE * sum(part.ByteSize() for part in parts))
    found = list(_recurrent(model.graph, Graph("", opsets, room)))
    for each, name in zip(found, _unique_names(found), strict=True):
        each.name = name
    return found


def reads(found: Found, below: Found, shape: Sequence[int]) -> bool:
    """Whether the inputs of a node are the outputs of the node `below`, and no others.

    Exporters write various operators between two nodes, e.g. a transpose. To test them,
    random outputs of `below` run through these operators, and must arrive unchanged.

    Args:
        found: The node.
        below: Another node.
        shape: The shape of the array R of `below`, `[directions, rows, units]`.

    Raises:
        ValueError: If the model fixes sizes of time and batch that are too large to
            test.
    """
    output, inputs = _output(below.node), _input(below.node, 0)
    at = found.graph.producers.get(output)
    is_inside = at is not None and found.graph.nodes[at] is below.node
    if not is_inside or found is below or len(shape) != 3:
        return False
    sources = found.graph.sources(_input(found.node, 0), {output: None, inputs: None})
    if sources is None or output not in sources[0]:
        return False
    directions, _, units = shape
    of_found, of_below = (_is_batch_major(each.node) for each in (found, below))
    sizes = below.graph.shapes.get(inputs, [])
    sizes = sizes if len(sizes) == 3 else [None] * 3
    time, batch = sizes[of_below] or _TIME, sizes[not of_below] or _BATCH
    depth = sizes[2] or 1
    got = time * batch * max(directions * units, depth)
    must = f"read at most {_ROOM} numbers"
    fix = (
        "Export the model without fixed sizes of time and batch, or pass the name of "
        "one node at a time as `at`."
    )
    expect(got <= _ROOM, found.name, must, got, fix)
    # Draw numbers that are exact in all floating-point dtypes, because a model may
    # cast.
    draw = np.random.default_rng(0).integers
    y = draw(-256, 257, (time, batch, directions, units)).astype(np.float32) / 4
    want = y.reshape(time, batch, -1)
    # Some exporters read the shape of X, so provide X. With NaN as its values, the
    # comparison below fails if an operator reads them.
    x = np.full((time, batch, depth), np.nan, np.float32)
    given = {
        output: y.swapaxes(0, 1) if of_below else y.swapaxes(1, 2),
        inputs: x.swapaxes(0, 1) if of_below else x,
    }
    room = Room(_ROOM + _ROOM_OF_BYTE * (x.nbytes + y.nbytes))
    graph = dataclasses.replace(found.graph, room=room)
    with contextlib.suppress(Exception):  # The evaluator lacks some operators.
        got = _evaluated(found.name, _input(found.node, 0), graph, given)
        return np.array_equal(got, want.swapaxes(0, 1) if of_found else want)
    return False


def as_dict(found: Found) -> Params:
    """Converts a node to a dict for `from_onnx`.

    Raises:
        ValueError: If a weight is not constant, or cannot be read, or an attribute has
            no value. If an initial state cannot be computed.
    """
    node, name = found.node, found.name
    made: Params = {"op_type": node.op_type, "name": name}
    if node.op_type == _QUANTIZED:
        made["op_type"] = "LSTM"
    for key, at in _SIZES.items() if node.op_type == "LinearAttention" else ():
        axes = found.graph.shapes.get(_input(node, at))
        made |= {key: axes[-1]} if axes and axes[-1] else {}
    for key, at in _INPUTS.get(node.op_type, _WEIGHTS).items():
        if _input(node, at):
            made[key] = _as_weight(f"{name}['{key}']", _input(node, at), found.graph)
    if node.op_type == _QUANTIZED:
        made |= {key: _dequantized(found, key) for key in _QUANTIZED_WEIGHTS}
    for key, at in (_PAST if node.op_type in _INPUTS else _STATES).items():
        if _input(node, at):
            state = _as_state(f"{name}['{key}']", _input(node, at), found)
            made |= {} if state is None else {key: state}
    get = import_optional("onnx.helper").get_attribute_value
    for each in node.attribute:
        got = Verbatim(f"a reference to the attribute {each.ref_attr_name!r}")
        place = f"{name}['{each.name}']"
        expect(not each.ref_attr_name, place, "have a value", got)
        made[each.name] = as_text(get(each))
    return made


def as_text(value: object) -> Any:
    """Decodes byte strings, also in lists; returns other values unchanged.

    Bytes that are not UTF-8 become escapes, which later error messages show.
    """
    if isinstance(value, list | tuple):
        return [as_text(each) for each in value]
    return (
        value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
    )


def _is_recurrent(node: Proto) -> bool:
    return node.op_type in _DOMAINS.get(node.domain, ())


def _is_plain(node: Proto) -> bool:
    """Whether the evaluator can run a node: it is not random and has no subgraphs."""
    has_graph = any(a.HasField("g") or a.graphs for a in node.attribute)
    is_random = node.op_type.startswith(_RANDOM)
    return not (has_graph or is_random or _is_recurrent(node))


def _all(graph: Proto) -> Iterator[Proto]:
    """Yields the nodes of a graph or a function, and of all its subgraphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all(attribute.g)


def _recurrent(graph: Proto, known: Graph) -> Iterator[Found]:
    """Yields the recurrent nodes of a graph and its subgraphs, in the graph's order.

    A subgraph (a branch of `If` or the body of a loop) can read the values of the graph
    around it. Therefore, all nodes of `graph` are added to `known`.
    """
    known.tensors |= {tensor.name: tensor for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info):
        if value.type.tensor_type.HasField("shape"):
            axes = value.type.tensor_type.shape.dim
            sizes = [axis.dim_value for axis in axes]
            known.shapes[value.name] = [size if size > 0 else None for size in sizes]
    for node in graph.node:
        if _is_recurrent(node):
            yield Found(node, known)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                inner = known.inner(f"{_name(node)}/{attribute.name}")
                yield from _recurrent(attribute.g, inner)
        known.producers |= dict.fromkeys(node.output, len(known.nodes))
        known.nodes.append(node)


def _unique_names(found: list[Found]) -> list[str]:
    """Returns a unique name for each node.

    This is the name in the model or, without a name, the name of the first output. If
    the name is not unique, the names of the branches and loops around the node come
    first.
    """
    names = [_name(each.node) for each in found]
    full = [each.graph.path + name for each, name in zip(found, names, strict=True)]
    names = [n if names.count(n) == 1 else f for n, f in zip(names, full, strict=True)]
    outputs = [each.graph.path + _output(each.node) for each in found]
    pairs = zip(names, outputs, strict=True)
    return [name if names.count(name) == 1 else output for name, output in pairs]


def _name(node: Proto) -> str:
    """The name of a node, of its first output, or of its operator."""
    return next(filter(None, [node.name, *node.output, node.op_type]))


def _input(node: Proto, at: int) -> str:
    """The name of an input; "" if the node does not have the input."""
    return node.input[at] if at < len(node.input) else ""


def _output(node: Proto) -> str:
    """The name of the first output, i.e. the outputs of all steps."""
    return next(iter(node.output), "")


def _is_batch_major(node: Proto) -> bool:
    has_layout = any(a.name == "layout" and a.i == 1 for a in node.attribute)
    return has_layout or node.op_type in _INPUTS


def _dequantized(found: Found, key: str) -> np.ndarray:
    """Converts an integer kernel of a quantized node to the kernel of an LSTM node."""
    values = [
        _as_weight(f"{found.name}['{key}']", _input(found.node, at), found.graph)
        for at in _QUANTIZED_WEIGHTS[key]
    ]
    kernel, scale, zero = values
    directions = len(kernel)
    scale, zero = (x.reshape(directions, 1, -1) for x in (scale, zero))
    kernel = (kernel.astype(scale.dtype) - zero.astype(scale.dtype)) * scale
    return kernel.swapaxes(1, 2)


def _as_weight(place: str, name: str, graph: Graph) -> np.ndarray:
    """Computes a weight: a constant, or the result of nodes that read only constants.

    Args:
        place: The name of the weight at the start of messages.
        name: The name of the value.
        graph: The graph that holds the value.

    Raises:
        ValueError: If the value is not constant, or cannot be computed.
    """
    value = _evaluated(place, name, graph, {}, _LIBRARIES)
    fix = (
        f"{_LIBRARIES} If the value is an input of the model, you can also append its "
        "array to `model.graph.initializer`, as "
        "`onnx.numpy_helper.from_array(array, name)`."
    )
    expect(value is not None, place, "be computed from constants", name, fix)
    return value


def _as_state(place: str, name: str, found: Found) -> np.ndarray | None:
    """Computes an initial state that the model stores, `[directions, rows, units]`.

    The rows of a past state also become the second axis. If all rows are equal, only
    one row is returned.

    Returns:
        The state, or None for zeros and for a state that depends on the model's inputs.

    Raises:
        ValueError: If the state is constant, but cannot be computed.
    """
    # Models often repeat a state for each row of X, so give nodes the shape of X.
    given = found.graph.shapes_of_any_size()
    fix = "Remove the state from the node, and pass it to `dynamic_rnn`."
    state = _evaluated(place, name, found.graph, given, fix)
    if state is None or not np.any(state):
        return None
    if _is_batch_major(found.node):
        state = state.swapaxes(0, 1)
    return state[:, :1] if (state == state[:, :1]).all() else state


def _evaluated(
    place: str, name: str, graph: Graph, given: Params, fix: str = ""
) -> Any:
    """Computes a value with onnx's reference evaluator.

    Args:
        place: The name of the weight or state at the start of messages.
        name: The name of the value.
        graph: The graph that holds the value.
        given: Values that replace what the graph computes.
        fix: What to do if the evaluator fails.

    Returns:
        The value, or None if it depends on other inputs than constants and `given`.

    Raises:
        ValueError: If the evaluator fails, a constant cannot be read, or a node makes
            too many numbers.
    """
    sources = graph.sources(name, given)
    if sources is None:
        return None
    leaves, nodes = sources
    values = {
        each: given[each] if each in given else _as_array(place, each, graph)
        for each in leaves
    }
    onnx = import_optional("onnx")
    evaluator = import_optional("onnx.reference").ReferenceEvaluator
    must = "be computed from constants by onnx's evaluator"
    for node in nodes:
        for attribute in node.attribute:
            sparse = attribute.sparse_tensor
            own = attribute.t, *attribute.tensors, sparse.values, sparse.indices
            for tensor in own:
                _check_inside(place, _name(node), tensor)
        with _error_of_onnx(place, must, repr(name), fix):
            feeds = {each: values[each] for each in node.input if each}
            names = [each for each in node.output if each]
            inputs, outputs = (
                [onnx.ValueInfoProto(name=each) for each in own]
                for own in (feeds, names)
            )
            part = onnx.helper.make_graph([node], "part", inputs, outputs)
            size = _size_of_outputs(part, feeds, graph.opsets)
        graph.room.take(place, node, size)
        with _error_of_onnx(place, must, repr(name), fix):
            made = evaluator(part, opsets=graph.opsets).run(None, feeds)
        values |= zip(names, made, strict=True)
    return values[name]


def _size_of_outputs(part: Proto, feeds: Params, opsets: dict[str, int]) -> float:
    """Infers how many numbers a node computes from `feeds`; infinity if unknown."""
    if part.node[0].op_type in _SELECTING:
        return sum(math.prod(np.shape(x)) for x in jax.tree.leaves(feeds))
    helper = import_optional("onnx.helper")
    from_array = import_optional("onnx.numpy_helper").from_array
    type_of = helper.np_dtype_to_tensor_dtype
    for value in part.input:
        array = feeds[value.name]
        own = helper.make_tensor_value_info(
            value.name, type_of(array.dtype), array.shape
        )
        value.CopyFrom(own)
        if array.size <= _SMALL:
            part.initializer.append(from_array(array, value.name))
    versions = [helper.make_opsetid(*each) for each in opsets.items()]
    model = helper.make_model(part, opset_imports=versions)
    infer = import_optional("onnx.shape_inference").infer_shapes
    sizes = []
    # Do not pass `data_prop`, with which onnx allocates about 100 bytes per number.
    for value in infer(model).graph.output:
        shape = value.type.tensor_type.shape
        axes = [axis.dim_value for axis in shape.dim if axis.HasField("dim_value")]
        if not value.type.tensor_type.HasField("shape") or len(axes) < len(shape.dim):
            return math.inf
        sizes.append(math.prod(max(axis, 0) for axis in axes))
    return sum(sizes)


@contextlib.contextmanager
def _error_of_onnx(place: str, must: str, got: str, fix: str = "") -> Iterator[None]:
    """Turns each error of onnx into a ValueError: "`place` must <must>, got <got>"."""
    try:
        yield
    except Exception as error:  # The errors of onnx have no other common class.
        text = f"`{place}` must {must}, got {got}. onnx's error: {error!r}. {fix}"
        raise ValueError(text.rstrip()) from None


def _check_inside(place: str, name: str, tensor: Proto) -> None:
    """Raises ValueError if the numbers of a tensor are in another file."""
    files = [each.value for each in tensor.external_data if each.key == "location"]
    got = Verbatim(f"{name!r}, which is in the file {str(listed(files))!r}")
    fix = "Store the model next to this file, and pass the model's path."
    is_external = tensor.data_location == tensor.EXTERNAL
    expect(not is_external, place, "be in the model", got, fix)


def _as_array(place: str, name: str, graph: Graph) -> np.ndarray:
    """Reads the values of an initializer.

    Raises:
        ValueError: If the values are in another file, or do not match the type and the
            dimensions of the tensor.
    """
    tensor = graph.tensors[name]
    _check_inside(place, name, tensor)
    got = f"{name!r} (data_type={tensor.data_type}, dims={list(tensor.dims)})"
    with _error_of_onnx(place, "be a tensor that onnx can read", got):
        return import_optional("onnx.numpy_helper").to_array(tensor)
