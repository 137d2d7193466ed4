"""Layers of one or two directions as fused operators of TensorFlow Lite."""

import itertools

import numpy as np

from ..convert._layer_weights import LSTM, RNN, LayerWeights
from ._tflite_cells import LIBRARY, Layer
from ._tflite_graph import ABSENT, Graph

# For kind and number of directions: the operator, its options, and how many of its
# last inputs are left out: layer normalization, or an auxiliary input with its weights.
_OPERATORS = {
    (RNN, 1): ("UNIDIRECTIONAL_SEQUENCE_RNN", "SequenceRNNOptions", 0),
    (RNN, 2): ("BIDIRECTIONAL_SEQUENCE_RNN", "BidirectionalSequenceRNNOptions", 3),
    (LSTM, 1): ("UNIDIRECTIONAL_SEQUENCE_LSTM", "UnidirectionalSequenceLSTMOptions", 4),
    (LSTM, 2): ("BIDIRECTIONAL_SEQUENCE_LSTM", "BidirectionalSequenceLSTMOptions", 9),
}


def add_layer(
    graph: Graph, name: str, layer: tuple[Layer, ...], inputs: int, time_major: bool
) -> int:
    """Adds the operator for the one or two directions of a layer.

    Args:
        graph: The model.
        name: That of the layer in the file.
        layer: Its one or two directions.
        inputs: A tensor `[batch, time, depth]`.
        time_major: Whether time is the first axis.

    Returns:
        The outputs, `[batch, time, size]`; those of two directions joined.
    """
    steps = graph.shape(inputs)[:2]
    batch, directions = steps[1 if time_major else 0], len(layer)
    kind, fields = layer[0].weights.kind, dict(layer[0].options, timeMajor=time_major)
    operator, options, absent = _OPERATORS[kind, directions]
    names = [name]
    if directions == 2:
        names, fields["mergeOutputs"] = [f"{name}/fw", f"{name}/bw"], True
    arrays = [_arrays(one.weights) for one in layer]
    operands = [graph.constants(n, a) for n, a in zip(names, arrays, strict=True)]
    states = [
        _states(graph, n, one, batch) for n, one in zip(names, layer, strict=True)
    ]
    if kind == RNN:  # The state of each follows its weights.
        states, operands = [], [a + b for a, b in zip(operands, states, strict=True)]
    flat = itertools.chain.from_iterable(operands + states)
    operands = [inputs, *flat, *[ABSENT] * absent]
    output = graph.tensor(
        f"{name}/outputs", (*steps, sum(one.outputs for one in layer))
    )
    graph.operator(operator, operands, output, options, fields)
    return output


def add_dense(graph: Graph, kernel: np.ndarray, bias: np.ndarray, inputs: int) -> int:
    """Adds `inputs @ kernel + bias`; its output."""
    operands = inputs, *graph.constants("dense", [kernel.T, bias])
    output = graph.tensor("dense/outputs", (*graph.shape(inputs)[:2], len(bias)))
    options = "FullyConnectedOptions", {"keepNumDims": True}
    graph.operator("FULLY_CONNECTED", operands, output, *options)
    return output


def add_swap(graph: Graph, inputs: int) -> int:
    """Adds the exchange of the axes of batch and time; its output."""
    batch, time, size = graph.shape(inputs)
    operands = inputs, graph.constant("swap", np.array([1, 0, 2], np.int32))
    output = graph.tensor("swapped", (time, batch, size))
    graph.operator("TRANSPOSE", operands, output, "TransposeOptions", {})
    return output


def _states(graph: Graph, name: str, layer: Layer, batch: int) -> list[int]:
    """Those of h and, in an LSTM, c: variables, which the operator reads and writes."""
    sizes = {"h": layer.outputs}
    if layer.weights.kind == LSTM:
        sizes["c"] = layer.weights.units
    return [graph.tensor(f"{name}/{n}", (batch, s), True) for n, s in sizes.items()]


def _arrays(weights: LayerWeights) -> list[np.ndarray | None]:
    """The constant inputs of one direction, in the order of the operator."""
    if weights.kind == RNN:
        return [weights.input_kernel.T, weights.state_kernel.T, weights.bias]
    of_inputs, of_state, bias, _ = LIBRARY.arrays(weights)
    gates = lambda array: np.split(array.T, 4)
    projection = weights.projection
    return [
        *gates(of_inputs),
        *gates(of_state),
        *(weights.peepholes or [None] * 3),  # Of i, f and o.
        *gates(bias),
        None if projection is None else projection.T,
        None,  # The bias of the projection.
    ]
