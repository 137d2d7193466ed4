"""Export of layers to the fused recurrent operators of TensorFlow Lite."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from .._base.arguments import check_time_major
from .._base.errors import Verbatim, error_note, expect
from .._base.inputs import check_concrete
from .._base.modules import import_optional
from .._base.typing import ArrayLike, RNNCellLike, Shaped
from .._cells.base import BoundCell
from .._cells.basic_rnn import BasicRNNCell
from .._cells.lstm import LSTMCell
from ..convert._kinds import Kind
from ..convert._layer_weights import (
    OTHER_GATES,
    LayerWeights,
    Library,
    cells_of,
    layer_of,
)
from ..convert._weights import listed
from ..lite import TFLiteLSTMCell, TfLiteRNNCell
from ._functions import check_fixed_sizes
from ._graph import Graph, Tensor, dtype_of, read_dense

Layer: TypeAlias = Sequence[LayerWeights]
"""The weights of a layer's one or two directions."""

# Values of the format's enum `ActivationFunctionType`. LSTMs do not support "linear",
# because without an activation, LiteRT 2.3's LSTM operators give other results than
# jaxrnn.
_ACTIVATIONS = {
    Kind.RNN: {"tanh": 4, "relu": 1, "linear": 0},
    Kind.LSTM: {"tanh": 4, "relu": 1},
}
LIBRARY = Library(
    "TensorFlow Lite",
    {Kind.RNN: "c", Kind.LSTM: "ifjo"},
    lacks=(OTHER_GATES,),
    activations={kind: tuple(names) for kind, names in _ACTIVATIONS.items()},
    is_transposed=True,
)
# The constant inputs of an operator, in order. The place "none" is the bias of an
# LSTM's projection, which `LSTMCell` does not have.
_PLACES = {
    Kind.RNN: [("x", "c"), ("h", "c"), ("b", "c")],
    Kind.LSTM: [
        *((part, gate) for part in "xh" for gate in "ifjo"),
        *(("p", gate) for gate in "ifo"),
        *(("b", gate) for gate in "ifjo"),
        *(("w", ""), ("none", "")),
    ],
}
# For each kind of layer and number of directions, the number of last inputs that are
# omitted. They are for layer normalization and auxiliary inputs.
_ABSENT = {(Kind.RNN, 1): 0, (Kind.RNN, 2): 3, (Kind.LSTM, 1): 4, (Kind.LSTM, 2): 9}
# The class of each operator's options.
_OPTIONS = {
    "UNIDIRECTIONAL_SEQUENCE_RNN": "SequenceRNNOptions",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions",
    "BIDIRECTIONAL_SEQUENCE_RNN": "BidirectionalSequenceRNNOptions",
    "BIDIRECTIONAL_SEQUENCE_LSTM": "BidirectionalSequenceLSTMOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "TRANSPOSE": "TransposeOptions",
}
# The versions of operators whose version 1 lacks inputs or options that are used here.
_VERSIONS = {"BIDIRECTIONAL_SEQUENCE_LSTM": 2, "FULLY_CONNECTED": 5}


def to_tflite_operators(
    cells: RNNCellLike | tuple[Any, Any],
    inputs: Shaped,
    *,
    time_major: bool = False,
    dense: tuple[ArrayLike, ArrayLike | None] | None = None,
) -> bytes:
    """Exports layers as a TensorFlow Lite file, with one operator per layer.

    The operators are `UNIDIRECTIONAL_SEQUENCE_LSTM`, `UNIDIRECTIONAL_SEQUENCE_RNN` and
    the corresponding `BIDIRECTIONAL` operators. The file computes the outputs of
    `dynamic_rnn(cell, inputs, dtype=float32)`, or of `stack_bidirectional_dynamic_rnn`,
    for inputs of the given shape, without dropout. Exporting does not require
    TensorFlow. For other cells, lengths or final states, use `to_tflite`. On a CPU (one
    row, 128 units), the operators took 1.4 to 1.6 times as long as the loops that
    `to_tflite` exports.

    The file keeps the state in variables, so each run continues where the previous run
    ended. Therefore, a file for one time step can process a stream. Call
    `reset_all_variables()` of the interpreter before each new sequence to set the state
    to zeros. With two directions, call this method before each run. The interpreter's
    methods `get_tensor` and `set_tensor` read and write a variable by its index.
    `get_tensor_details` lists the indices with the names of the variables: `layer_0/h`,
    `layer_0/c`, `layer_1/h`, ..., or with two directions `layer_0/fw/h`,
    `layer_0/bw/h`, ...

    Args:
        cells: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`,
            `contrib.CoupledInputForgetGateLSTMCell` (without layer normalization), a
            cell of `jaxrnn.lite`, or a `MultiRNNCell` of these. The parameters must be
            float32, and the activation must be tanh or relu. A `BasicRNNCell` may also
            have a linear activation. For two directions, a pair `(cells_fw, cells_bw)`,
            each a cell or a list with one cell per layer.
        inputs: An array or `jax.ShapeDtypeStruct`, float32 `[batch, time, depth]`, or
            `[time, batch, depth]` if `time_major`.
        time_major: Whether time is the first axis of inputs and outputs.
        dense: The pair `(kernel, bias)` of a final dense layer, which computes
            `outputs @ kernel + bias` at each step, in float32, `[size, units]` and
            `[units]`. The bias may be None. By default, the file has no dense layer.

    Returns:
        The bytes of the file. The signature has one input (`inputs`) and one output
        (`outputs`), `[batch, time, size]`, or `[time, batch, size]` if `time_major`.

    Raises:
        TypeError: If `cells` contains an object that is none of these cells, the inputs
            are not a float32 array of rank 3, or the parameters are not float32.
        ValueError: If TensorFlow Lite has no operator for a cell, or does not support
            its activation, clip or layer normalization. If the two directions differ in
            an activation or clip, or if the sizes of two layers do not match.
        ImportError: If `ai_edge_litert` is missing: `pip install ai-edge-litert`.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np, jaxrnn, jaxrnn.export
        >>> cell = jaxrnn.LSTMCell(4)
        >>> x = jax.ShapeDtypeStruct((1, 10, 3), jnp.float32)
        >>> bound = cell.bind(cell.init(jax.random.key(0), x.update(shape=(1, 3))))
        >>> file = jaxrnn.export.to_tflite_operators(bound, x)  # doctest: +SKIP
        >>> from ai_edge_litert.interpreter import Interpreter  # doctest: +SKIP
        >>> interpreter = Interpreter(model_content=file)  # doctest: +SKIP
        >>> run = interpreter.get_signature_runner()  # doctest: +SKIP
        >>> run(inputs=np.ones((1, 10, 3), np.float32))["outputs"]  # doctest: +SKIP

    Source: `tensorflow/lite/kernels/unidirectional_sequence_lstm.cc` and the other
    sequence kernels in that directory.
    """
    check_time_major(time_major)
    must = "be an array or `jax.ShapeDtypeStruct`, float32 of rank 3"
    fits = getattr(inputs, "dtype", None) == np.float32 and len(inputs.shape) == 3
    expect(fits, "inputs", must, inputs, error=TypeError)
    check_fixed_sizes("inputs", inputs)
    with error_note("For other cells, use `to_tflite` or `to_stablehlo`."):
        layers = _read_layers(cells)
    kernels = (direction.array("x") for layer in layers for direction in layer)
    graph = Graph(dtype_of("cells", kernels, "float32"))
    x = graph.input("inputs", inputs.shape)
    # Use the time-major layout, which is faster. It also avoids wrong results:
    # batch-major bidirectional operators of LiteRT 2.3 are wrong for several rows.
    swap = not time_major and inputs.shape[0] > 1
    if swap:
        x = _swapped(graph, x)
    is_time_major = time_major or swap
    for number, layer in enumerate(layers):
        name = f"layer_{number}"
        *steps, depth = x.shape
        batch = steps[1 if is_time_major else 0]
        kind = layer[0].kind
        both = len(layer) == 2
        operands: list[Tensor | None] = [x]
        states = []
        for way, weights in zip(("/fw", "/bw") if both else ("",), layer, strict=True):
            must = f"have an input size of {depth} in {name}{way}"
            kernel = weights.array("x")
            expect(len(kernel) == depth, "cells", must, kernel)
            table = dict(enumerate(_PLACES[kind]))
            arrays = LIBRARY.write(weights, table)
            for i, (_, gate) in table.items():
                # Without arrays for gate i, the operator computes gate i as 1 - f.
                is_absent = weights.is_coupled and gate == "i"
                array = None if is_absent else arrays.get(i)
                operands.append(graph.constant(array, f"{name}{way}/{i}"))
            sizes = {"h": len(weights.array("h"))}
            if kind == Kind.LSTM:
                sizes["c"] = weights.units
            variables = [
                graph.tensor(f"{name}{way}/{state}", (batch, size), is_variable=True)
                for state, size in sizes.items()
            ]
            # RNN operators expect each direction's state directly after its weights.
            # LSTM operators expect all states after all weights.
            if kind == Kind.RNN:
                operands += variables
            else:
                states += variables
        operands += [*states, *[None] * _ABSENT[kind, len(layer)]]
        size = sum(len(weights.array("h")) for weights in layer)
        operator = f"{'BI' if both else 'UNI'}DIRECTIONAL_SEQUENCE_{kind}"
        activation = _ACTIVATIONS[kind][layer[0].activation_name]
        options: dict[str, Any] = {"fusedActivationFunction": activation}
        options["timeMajor"] = is_time_major
        if kind == Kind.LSTM:  # 0 means no clip.
            options["cellClip"] = layer[0].clips.get("cell_clip", 0.0)
            options["projClip"] = layer[0].clips.get("proj_clip", 0.0)
        if both:
            options["mergeOutputs"] = True
        x = graph.node(operator, operands, f"{name}/outputs", [*steps, size], **options)
    if dense is not None:
        kernel, bias = read_dense(dense, x.shape[2], graph.dtype)
        constants = graph.constant(kernel.T, "dense/0"), graph.constant(bias, "dense/1")
        shape = [*x.shape[:2], kernel.shape[1]]
        name, options = "dense/outputs", {"keepNumDims": True}
        x = graph.node("FULLY_CONNECTED", [x, *constants], name, shape, **options)
    graph.outputs["outputs"] = _swapped(graph, x) if swap else x
    return _serialized(graph)


def _read_layers(cells: object) -> list[Layer]:
    """The weights of each layer, from the inputs upwards.

    Raises:
        TypeError: If `cells` does not hold bound cells, or a cell has no equivalent in
            other libraries.
        ValueError: If TensorFlow Lite has no operator for a cell, an activation or a
            clip, or if two directions differ in a property that the operator applies to
            both.
    """
    layers = []
    for row in cells_of("cells", cells):
        layers.append([_read_direction(*each) for each in row])
        first, last = (_shared(layers[-1][i]) for i in (0, -1))
        must = f"match `{row[0][0]}` ({first}), because one operator runs both"
        expect(last == first, row[-1][0], must, last)
    return layers


def _read_direction(name: str, bound: BoundCell) -> LayerWeights:
    """The weights of a single cell."""
    bound = _in_core_layout(bound)
    check_concrete(f"{name}.params", bound.params, why="a file stores the values")
    weights = layer_of(name, bound)
    LIBRARY.check(name, weights)
    clips = dict(weights.clips)
    if "w" not in weights.blocks:  # Then `proj_clip` has no effect.
        clips.pop("proj_clip", None)
    must = "have no clip of 0, which the operator would read as no clip"
    expect(0 not in clips.values(), name, must, Verbatim(clips))
    return dataclasses.replace(weights, clips=clips)


def _in_core_layout(bound: BoundCell) -> BoundCell:
    """Replaces a cell of `jaxrnn.lite` with the equivalent core cell."""
    cell = bound.cell
    if not isinstance(cell, TFLiteLSTMCell | TfLiteRNNCell):
        return bound
    kind = LSTMCell if isinstance(cell, LSTMCell) else BasicRNNCell
    fields = {f.name: getattr(cell, f.name) for f in dataclasses.fields(cell)}
    return kind(**fields).bind(cell.stage_params(bound.params))


def _shared(weights: LayerWeights) -> Verbatim:
    """The properties that both directions must share, as a text for messages."""
    shared = {"kind": weights.kind, "activation": weights.activation_name}
    if weights.kind == Kind.LSTM:
        sizes = {"units": weights.units, "outputs": len(weights.array("h"))}
        shared |= sizes | dict(weights.clips)
    return listed(f"{name}={value}" for name, value in shared.items())


def _swapped(graph: Graph, x: Tensor) -> Tensor:
    """Adds a transpose of the batch and time axes."""
    batch, time, size = x.shape
    axes = graph.constant(np.array([1, 0, 2], np.int32), "swap")
    return graph.node("TRANSPOSE", [x, axes], "swapped", [time, batch, size])


def _schema() -> Any:
    """The format's classes and enumerations."""
    return import_optional("ai_edge_litert.schema_py_generated", "ai-edge-litert")


def _serialized(graph: Graph) -> bytes:
    """Serializes a graph to the bytes of a TensorFlow Lite file."""
    # The format reserves buffer 0 for tensors without values.
    buffers = [_new("Buffer")]
    tensors = []
    for tensor in graph.tensors:
        kind = getattr(_schema().TensorType, np.dtype(tensor.dtype).name.upper())
        shape = np.array(tensor.shape, np.int32)
        made = _new("Tensor", name=tensor.name, shape=shape, type=kind)
        made.isVariable = tensor.is_variable
        tensors.append(made)
        if tensor.values is not None:
            made.buffer = len(buffers)
            little = tensor.values.astype(tensor.values.dtype.newbyteorder("<"))
            data = np.frombuffer(little.tobytes(), np.uint8)
            buffers.append(_new("Buffer", data=data))
    numbers: dict[Tensor | None, int] = {None: -1}  # -1 is an operand that is omitted.
    numbers |= {tensor: i for i, tensor in enumerate(graph.tensors)}
    ops = list(dict.fromkeys(node.op for node in graph.nodes))
    operators = []
    for node in graph.nodes:
        options = _OPTIONS[node.op]
        operator = _new(
            "Operator",
            opcodeIndex=ops.index(node.op),
            inputs=np.array([numbers[each] for each in node.inputs], np.int32),
            outputs=np.array([numbers[each] for each in node.outputs], np.int32),
            builtinOptionsType=getattr(_schema().BuiltinOptions, options),
            builtinOptions=_new(options, **node.attributes),
        )
        operators.append(operator)
    codes = []
    for op in ops:
        code = getattr(_schema().BuiltinOperator, op)
        least = min(code, 127)  # The field is a signed byte.
        fields = {"deprecatedBuiltinCode": least, "version": _VERSIONS.get(op, 1)}
        codes.append(_new("OperatorCode", builtinCode=code, **fields))
    # The names of the inputs and the outputs, for `get_signature_runner`.
    inputs, outputs = (
        [_new("TensorMap", name=k, tensorIndex=numbers[x]) for k, x in each.items()]
        for each in (graph.inputs, graph.outputs)
    )
    key = "serving_default"
    signature = _new("SignatureDef", signatureKey=key, inputs=inputs, outputs=outputs)
    sub_graph = _new(
        "SubGraph",
        tensors=tensors,
        operators=operators,
        inputs=[numbers[tensor] for tensor in graph.inputs.values()],
        outputs=[numbers[tensor] for tensor in graph.outputs.values()],
    )
    model = _new(
        "Model",
        version=3,
        description="jaxrnn",
        operatorCodes=codes,
        buffers=buffers,
        subgraphs=[sub_graph],
        signatureDefs=[signature],
    )
    builder = import_optional("flatbuffers").Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _new(kind: str, **fields: object) -> Any:
    """Creates an object of the format's class `<kind>T`, e.g. of `BufferT`."""
    value = getattr(_schema(), f"{kind}T")()
    vars(value).update(fields)
    return value
