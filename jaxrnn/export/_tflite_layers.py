"""Fused operators of TensorFlow Lite: the FlatBuffer format, and layers in it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._base.arguments import check_dtype
from .._base.errors import InvalidType, InvalidValue
from .._base.imports import import_optional
from .._cells.basic_rnn import BasicRNNCell
from .._cells.bound import BoundCell
from .._cells.lstm import BasicLSTMCell, LSTMCell
from .._wrappers.multi_rnn import MultiRNNCell
from ..contrib import CoupledInputForgetGateLSTMCell
from ..convert._bound_cells import as_bound, layer_of, paired, stacked_cells
from ..convert._layer_weights import Kind, LayerWeights, Library
from ..convert._weights import check_concrete
from ..lite import TFLiteLSTMCell, TfLiteRNNCell

ABSENT = -1  # Stands in for an optional input that is omitted.
# The first version of each operator that supports all inputs and options used here.
_VERSIONS = {"BIDIRECTIONAL_SEQUENCE_LSTM": 2, "FULLY_CONNECTED": 5}
# Values of the format's enum `ActivationFunctionType`. LSTMs lack "linear", because the
# LSTM operators of LiteRT 2.3 give different results without an activation.
_ACTIVATIONS = {
    Kind.RNN: {"tanh": 4, "relu": 1, "linear": 0},
    Kind.LSTM: {"tanh": 4, "relu": 1},
}
LIBRARY = Library(
    "TensorFlow Lite",
    {Kind.RNN: "c", Kind.LSTM: "ifjo"},
    lacks=(),
    activations={kind: tuple(names) for kind, names in _ACTIVATIONS.items()},
    has_coupled=True,
)
# Maps the kind of a layer and its number of directions to the operator, the class of
# its options, and the number of trailing inputs to omit. The operator uses the omitted
# inputs for layer normalization or as an auxiliary input.
_OPERATORS = {
    (Kind.RNN, 1): ("UNIDIRECTIONAL_SEQUENCE_RNN", "SequenceRNNOptions", 0),
    (Kind.RNN, 2): ("BIDIRECTIONAL_SEQUENCE_RNN", "BidirectionalSequenceRNNOptions", 3),
    (Kind.LSTM, 1): (
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "UnidirectionalSequenceLSTMOptions",
        4,
    ),
    (Kind.LSTM, 2): (
        "BIDIRECTIONAL_SEQUENCE_LSTM",
        "BidirectionalSequenceLSTMOptions",
        9,
    ),
}
_CELLS = BasicRNNCell, BasicLSTMCell, LSTMCell, CoupledInputForgetGateLSTMCell
_FIX = "`to_tflite` and `to_stablehlo` export any function, without this operator."


class Graph:
    """The tensors and operators of a model; tensors are identified by number.

    Raises:
        ImportError: If `ai_edge_litert` is missing.
    """

    def __init__(self) -> None:
        module = "ai_edge_litert.schema_py_generated"
        self._schema: Any = import_optional(module, "ai-edge-litert")
        self._builder = import_optional("flatbuffers").Builder()
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[str, Any] = {}
        # The format reserves the first buffer for tensors without values.
        self._buffers = [self._schema.BufferT()]

    def tensor(
        self, name: str, shape: tuple, is_variable: bool = False, dtype: str = "FLOAT32"
    ) -> int:
        """Adds a tensor without constant values; a variable is initialized to zeros."""
        tensor = self._schema.TensorT()
        tensor.name = name
        tensor.shape = np.array(shape, np.int32)
        tensor.type = getattr(self._schema.TensorType, dtype)
        tensor.isVariable = is_variable
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def constant(self, name: str, array: np.ndarray | None) -> int:
        """Adds a tensor for a float32 or int32 array; returns `ABSENT` for None."""
        if array is None:
            return ABSENT
        number = self.tensor(name, array.shape, dtype=array.dtype.name.upper())
        buffer = self._schema.BufferT()
        values = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        buffer.data = values.reshape(-1).view(np.uint8)
        self._tensors[number].buffer = len(self._buffers)
        self._buffers.append(buffer)
        return number

    def constants(self, name: str, arrays: Sequence[np.ndarray | None]) -> list[int]:
        """Adds a constant for each array; `name` is the name of the layer."""
        return [self.constant(f"{name}/{i}", array) for i, array in enumerate(arrays)]

    def shape(self, tensor: int) -> list[int]:
        """The shape of a tensor."""
        return self._tensors[tensor].shape.tolist()

    def operator(
        self, name: str, inputs: Sequence[int], output: int, options: str, **fields: Any
    ) -> None:
        """Adds an operator whose options are `fields`, of the class `options`."""
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._code(name)
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array([output], np.int32)
        operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, options)
        operator.builtinOptions = getattr(self._schema, f"{options}T")()
        vars(operator.builtinOptions).update(fields)
        self._operators.append(operator)

    def _code(self, name: str) -> int:
        if name not in self._codes:
            code = self._schema.OperatorCodeT()
            self._codes[name] = code
            code.builtinCode = getattr(self._schema.BuiltinOperator, name)
            # The deprecated field is limited to one byte.
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = _VERSIONS.get(name, 1)
        return list(self._codes).index(name)

    def to_bytes(self, inputs: int, outputs: int) -> bytes:
        """The bytes of the file, which has one input and one output."""
        graph = self._schema.SubGraphT()
        graph.tensors = self._tensors
        graph.operators = self._operators
        graph.inputs = [inputs]
        graph.outputs = [outputs]
        model = self._schema.ModelT()
        model.version = 3
        model.description = "jaxrnn"
        model.operatorCodes = list(self._codes.values())
        model.buffers = self._buffers
        model.subgraphs = [graph]
        model.signatureDefs = [self._signature(inputs, outputs)]
        self._builder.Finish(model.Pack(self._builder), b"TFL3")
        return bytes(self._builder.Output())

    def _signature(self, inputs: int, outputs: int) -> Any:
        """The signature, which names the tensors for `get_signature_runner`."""
        signature = self._schema.SignatureDefT()
        signature.signatureKey = "serving_default"
        signature.inputs = [self._named("inputs", inputs)]
        signature.outputs = [self._named("outputs", outputs)]
        return signature

    def _named(self, name: str, tensor: int) -> Any:
        entry = self._schema.TensorMapT()
        entry.name = name
        entry.tensorIndex = tensor
        return entry


@dataclasses.dataclass(frozen=True)
class Direction:
    """One direction of a layer.

    Attributes:
        name: The name for messages.
        weights: The weights, float32.
        options: The options for the operator: activation and clips.
    """

    name: str
    weights: LayerWeights
    options: dict[str, Any]

    @property
    def outputs(self) -> int:
        """The size of the output."""
        return len(self.weights.state_kernel)


def read_stack(name: str, cell: Any) -> list[tuple[Direction, ...]]:
    """The unidirectional layers of a bound cell, from the inputs upwards.

    Raises:
        TypeError: If TensorFlow Lite has no operator for the cell, or its parameters
            are not float32.
        ValueError: If the operator does not support the activation or a clip.
    """
    bound = as_bound(name, cell)
    if not isinstance(bound.cell, MultiRNNCell):
        return [(_read_direction(name, bound),)]
    layers = []
    for own_name, own_cell in stacked_cells(name, bound):
        layers += read_stack(own_name, own_cell)
    return layers


def read_pairs(cells_fw: Any, cells_bw: Any) -> list[tuple[Direction, ...]]:
    """Both directions of each layer.

    Raises:
        TypeError: As in `read_stack`.
        ValueError: If the directions differ in a property that the operator applies to
            both directions; also as in `read_stack`.
    """
    pairs = []
    for i, (cell_fw, cell_bw) in enumerate(paired(cells_fw, cells_bw)):
        fw = _read_direction(f"cells_fw[{i}]", cell_fw)
        bw = _read_direction(f"cells_bw[{i}]", cell_bw)
        if _shared(fw) != _shared(bw):
            raise InvalidValue(
                f"`{fw.name}` and `{bw.name}` must match, since one operator runs both "
                f"directions, got {_shared(fw)} and {_shared(bw)}. {_FIX}"
            )
        pairs.append((fw, bw))
    return pairs


def _shared(direction: Direction) -> dict[str, Any]:
    """The properties that both directions must share."""
    weights = direction.weights
    shared = {"kind": weights.kind, "activation": weights.activation_name}
    if weights.kind == Kind.RNN:
        return shared
    sizes = {"units": weights.units, "outputs": direction.outputs}
    return shared | sizes | _clips(direction.name, weights)


def _in_core_layout(bound: BoundCell) -> BoundCell:
    """Replaces a cell of `jaxrnn.lite` with the equivalent core cell."""
    cell = bound.cell
    if not isinstance(cell, TFLiteLSTMCell | TfLiteRNNCell):
        return bound
    kind = LSTMCell if isinstance(cell, LSTMCell) else BasicRNNCell
    fields = {f.name: getattr(cell, f.name) for f in dataclasses.fields(cell)}
    return kind(**fields).bind(cell.stage_params(bound.params))


def _read_direction(name: str, cell: Any) -> Direction:
    bound = _in_core_layout(as_bound(name, cell))
    cell = bound.cell
    if type(cell) not in _CELLS:
        names = ", ".join(each.__name__ for each in _CELLS)
        raise InvalidType(
            f"`{name}` must be a {names} or a cell of jaxrnn.lite, got {cell!r}. {_FIX}"
        )
    check_concrete(f"{name}.params", bound.params, "a file stores their values")
    weights = layer_of(name, bound)
    check_dtype(name, weights.bias, np.float32, "have float32 parameters")
    LIBRARY.check(name, weights)
    number = _ACTIVATIONS[weights.kind][weights.activation_key]
    clips = _clips(name, weights) if weights.kind == Kind.LSTM else {}
    return Direction(name, weights, {"fusedActivationFunction": number} | clips)


def _clips(name: str, weights: LayerWeights) -> dict[str, float]:
    """Returns both clips, with 0 for None. Raises ValueError if a clip is 0."""
    clips = {"cellClip": weights.clips.get("cell_clip"), "projClip": None}
    if weights.projection is not None:  # Without one, `proj_clip` has no effect.
        clips["projClip"] = weights.clips.get("proj_clip")
    if 0 in clips.values():
        raise InvalidValue(
            f"`{name}` must have clips above 0, since 0 means no clip in the operator, "
            f"got {dict(weights.clips)}. {_FIX}"
        )
    return {option: bound or 0.0 for option, bound in clips.items()}


def add_layer(
    graph: Graph, name: str, layer: tuple[Direction, ...], inputs: int, time_major: bool
) -> int:
    """Adds the operator for a layer, which has one or two directions.

    Args:
        graph: The model.
        name: The name of the layer in the file.
        layer: The layer, as a list of its one or two directions.
        inputs: A tensor `[batch, time, depth]`.
        time_major: Whether time is the first axis.

    Returns:
        The outputs, `[batch, time, size]`, with both directions concatenated.
    """
    steps = graph.shape(inputs)[:2]
    kind = layer[0].weights.kind
    fields = layer[0].options | {"timeMajor": time_major}
    operator, options, absent = _OPERATORS[kind, len(layer)]
    names = [name]
    if len(layer) == 2:
        names = [f"{name}/fw", f"{name}/bw"]
        fields["mergeOutputs"] = True
    operands = [inputs]
    states = []
    for own_name, direction in zip(names, layer, strict=True):
        operands += graph.constants(own_name, _arrays(direction.weights))
        batch = steps[1 if time_major else 0]
        variables = _states(graph, own_name, direction, batch)
        if (
            kind == Kind.RNN
        ):  # Its operators expect the state directly after the weights.
            operands += variables
        else:
            states += variables
    operands += [*states, *[ABSENT] * absent]
    size = sum(one.outputs for one in layer)
    output = graph.tensor(f"{name}/outputs", (*steps, size))
    graph.operator(operator, operands, output, options, **fields)
    return output


def add_dense(graph: Graph, kernel: np.ndarray, bias: np.ndarray, inputs: int) -> int:
    """Adds `inputs @ kernel + bias`; returns the output."""
    operands = inputs, *graph.constants("dense", [kernel.T, bias])
    output = graph.tensor("dense/outputs", (*graph.shape(inputs)[:2], len(bias)))
    options = "FullyConnectedOptions"
    graph.operator("FULLY_CONNECTED", operands, output, options, keepNumDims=True)
    return output


def add_swap(graph: Graph, inputs: int) -> int:
    """Adds a transpose of the batch and time axes; returns the output."""
    batch, time, size = graph.shape(inputs)
    operands = inputs, graph.constant("swap", np.array([1, 0, 2], np.int32))
    output = graph.tensor("swapped", (time, batch, size))
    graph.operator("TRANSPOSE", operands, output, "TransposeOptions")
    return output


def _states(graph: Graph, name: str, direction: Direction, batch: int) -> list[int]:
    """Adds the variables for h and, in an LSTM, c, which the operator updates."""
    sizes = {"h": direction.outputs}
    if direction.weights.kind == Kind.LSTM:
        sizes["c"] = direction.weights.units
    return [graph.tensor(f"{name}/{n}", (batch, s), True) for n, s in sizes.items()]


def _arrays(weights: LayerWeights) -> list[np.ndarray | None]:
    """The constant inputs of one direction, in the order of the operator."""
    if weights.kind == Kind.RNN:
        return [weights.input_kernel.T, weights.state_kernel.T, weights.bias]
    of_inputs, of_state, bias, _ = LIBRARY.arrays(weights)
    projection = weights.projection
    arrays: list[np.ndarray | None] = []
    for gates in (
        np.split(of_inputs.T, 4),
        np.split(of_state.T, 4),
        weights.peepholes or (None, None, None),  # Of the gates i, f and o.
        np.split(bias.T, 4),
    ):
        # The operator computes an absent gate i from the gate f.
        arrays += [None, *gates[1:]] if weights.is_coupled else gates
    # `LSTMCell` has no projection bias.
    return [*arrays, None if projection is None else projection.T, None]
