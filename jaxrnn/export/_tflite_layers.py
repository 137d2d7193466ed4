"""Conversion of bound cells to fused operators of TensorFlow Lite."""

import dataclasses
from typing import Any

import numpy as np

from .._base.errors import InvalidType, InvalidValue
from .._cells.basic_rnn import BasicRNNCell
from .._cells.bound import BoundCell
from .._cells.lstm import BasicLSTMCell, LSTMCell
from .._wrappers.multi_rnn import MultiRNNCell
from ..contrib import CoupledInputForgetGateLSTMCell
from ..convert._bound_cells import as_bound, layer_of, paired, stacked_cells
from ..convert._layer_weights import LSTM, RNN, LayerWeights, Library
from ..convert._weights import check_concrete
from ..lite import TFLiteLSTMCell, TfLiteRNNCell
from ._tflite_graph import ABSENT, Graph

# Values of the format's enum `ActivationFunctionType`. LSTMs lack "linear", because the
# LSTM operators of LiteRT 2.3 give different results without an activation.
_ACTIVATIONS = {RNN: {"tanh": 4, "relu": 1, "linear": 0}, LSTM: {"tanh": 4, "relu": 1}}
LIBRARY = Library(
    "TensorFlow Lite",
    {RNN: "c", LSTM: "ifjo"},
    lacks=(),
    activations={kind: tuple(names) for kind, names in _ACTIVATIONS.items()},
    modules=dict.fromkeys(_ACTIVATIONS, "operators"),
    has_coupled=True,
)
# Maps the kind of a layer and its number of directions to the operator, the class of
# its options, and the number of trailing inputs to omit. The operator uses the omitted
# inputs for layer normalization or as an auxiliary input.
_OPERATORS = {
    (RNN, 1): ("UNIDIRECTIONAL_SEQUENCE_RNN", "SequenceRNNOptions", 0),
    (RNN, 2): ("BIDIRECTIONAL_SEQUENCE_RNN", "BidirectionalSequenceRNNOptions", 3),
    (LSTM, 1): ("UNIDIRECTIONAL_SEQUENCE_LSTM", "UnidirectionalSequenceLSTMOptions", 4),
    (LSTM, 2): ("BIDIRECTIONAL_SEQUENCE_LSTM", "BidirectionalSequenceLSTMOptions", 9),
}
_CELLS = BasicRNNCell, BasicLSTMCell, LSTMCell, CoupledInputForgetGateLSTMCell
_FIX = "`to_tflite` and `to_stablehlo` export any function, without this operator."


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
    bound = _in_core_layout(as_bound(name, cell))
    if not isinstance(bound.cell, MultiRNNCell):
        return [(_read_direction(name, bound),)]
    cells = stacked_cells(name, bound)
    return [layer for each in cells for layer in read_stack(*each)]


def read_pairs(cells_fw: Any, cells_bw: Any) -> list[tuple[Direction, ...]]:
    """Both directions of each layer.

    Raises:
        TypeError: As in `read_stack`.
        ValueError: If the directions differ in a property that the operator applies to
            both directions; also as in `read_stack`.
    """
    pairs = []
    read = lambda name, cell: _read_direction(
        name, _in_core_layout(as_bound(name, cell))
    )
    for i, (fw, bw) in enumerate(paired(cells_fw, cells_bw)):
        pair = read(f"cells_fw[{i}]", fw), read(f"cells_bw[{i}]", bw)
        _check_alike(*pair)
        pairs.append(pair)
    return pairs


def _check_alike(fw: Direction, bw: Direction) -> None:
    described = [_described(each) for each in (fw, bw)]
    if described[0] != described[1]:
        raise InvalidValue(
            f"`{fw.name}` and `{bw.name}` must match, since one operator runs both "
            f"directions, got {described[0]} and {described[1]}. {_FIX}"
        )


def _described(direction: Direction) -> str:
    """Describes, for messages, the properties that both directions must share."""
    kind, activation = direction.weights.kind, direction.weights.activation_name
    if kind == RNN:
        return f"an RNN with {activation}"
    bounds = " and ".join(
        f"{k} {v:g}" for k, v in direction.options.items() if "Clip" in k
    )
    sizes = f"{direction.weights.units} units and {direction.outputs} outputs"
    return f"an LSTM of {sizes} with {activation}, {bounds}"


def _in_core_layout(bound: BoundCell) -> BoundCell:
    """Replaces a cell of `jaxrnn.lite` with the equivalent core cell."""
    cell = bound.cell
    if not isinstance(cell, TFLiteLSTMCell | TfLiteRNNCell):
        return bound
    kind = LSTMCell if isinstance(cell, LSTMCell) else BasicRNNCell
    fields = {f.name: getattr(cell, f.name) for f in dataclasses.fields(cell)}
    return kind(**fields).bind(cell.stage_params(bound.params))


def _read_direction(name: str, bound: BoundCell) -> Direction:
    cell = bound.cell
    if type(cell) not in _CELLS:
        raise InvalidType(
            f"`{name}` must be a {', '.join(each.__name__ for each in _CELLS)} or a "
            "cell of jaxrnn.lite, to use UNIDIRECTIONAL_SEQUENCE_LSTM or "
            f"UNIDIRECTIONAL_SEQUENCE_RNN, got {cell!r}. {_FIX}"
        )
    check_concrete(f"{name}.params", bound.params, "a file stores their values")
    weights = layer_of(name, bound)
    if weights.bias.dtype != np.float32:
        got = weights.bias.dtype
        raise InvalidType(f"`{name}` must have float32 parameters, got {got}.")
    LIBRARY.check(name, weights)
    number = _ACTIVATIONS[weights.kind][weights.activation_key]
    clips = _clips(name, weights) if weights.kind == LSTM else {}
    return Direction(name, weights, {"fusedActivationFunction": number} | clips)


def _clips(name: str, weights: LayerWeights) -> dict[str, float]:
    """Returns both clips, with 0 for None. Raises ValueError if a clip is 0."""
    clips = {"cellClip": weights.clips.get("cell_clip")}
    # Without a projection, `proj_clip` has no effect.
    has_projection = weights.projection is not None
    clips["projClip"] = weights.clips.get("proj_clip") if has_projection else None
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
    kind, fields = layer[0].weights.kind, dict(layer[0].options, timeMajor=time_major)
    operator, options, absent = _OPERATORS[kind, len(layer)]
    names = [name]
    if len(layer) == 2:
        names, fields["mergeOutputs"] = [f"{name}/fw", f"{name}/bw"], True
    operands, states = [inputs], []
    for own, one in zip(names, layer, strict=True):
        operands += graph.constants(own, _arrays(one.weights))
        # The RNN operators expect the state directly after the weights.
        last = operands if kind == RNN else states
        last += _states(graph, own, one, batch=steps[1 if time_major else 0])
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
    if direction.weights.kind == LSTM:
        sizes["c"] = direction.weights.units
    return [graph.tensor(f"{name}/{n}", (batch, s), True) for n, s in sizes.items()]


def _arrays(weights: LayerWeights) -> list[np.ndarray | None]:
    """The constant inputs of one direction, in the order of the operator."""
    if weights.kind == RNN:
        return [weights.input_kernel.T, weights.state_kernel.T, weights.bias]
    of_inputs, of_state, bias, _ = LIBRARY.arrays(weights)
    # If the input gate is absent, the operator computes it from the forget gate.
    first = 1 if weights.is_coupled else 0
    gates = lambda array: [None] * first + np.split(array.T, 4)[first:]
    peepholes = [None] * 3  # Peepholes of the gates i, f and o.
    if weights.peepholes is not None:
        peepholes = [None] * first + list(weights.peepholes)[first:]
    projection = weights.projection
    return [
        *gates(of_inputs),
        *gates(of_state),
        *peepholes,
        *gates(bias),
        None if projection is None else projection.T,
        None,  # `LSTMCell` has no projection bias.
    ]
