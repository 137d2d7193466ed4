"""A graph of ONNX operators, including recurrent layers, built node by node.

A layer is a dict, as returned by `convert.onnx.save`.
"""

from itertools import chain
from typing import Any

import numpy as np

from .._base.optional import import_optional

# The first opset that has the current versions of LSTM, GRU and RNN, and the IR version
# that belongs to this opset.
OPSET, IR_VERSION = 14, 7
Node = dict[str, Any]
Names = dict[str, list[str]]  # Maps ONNX's letter of a state to a name per direction.

_ATTRIBUTES = (
    *("hidden_size", "direction", "activations", "input_forget"),
    "linear_before_reset",
)


class Graph:
    """An ONNX graph that is built node by node; values are identified by name.

    Args:
        dtype: The default dtype of inputs and outputs.

    Raises:
        ImportError: If the package `onnx` is missing.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self._onnx, self._dtype = import_optional("onnx"), dtype
        self._nodes, self._constants = [], {}
        self._inputs, self._outputs = [], []

    def element_type(self, dtype: Any) -> int:
        """The number that represents a dtype in ONNX."""
        return self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def input(self, name: str, shape: list[int | str], dtype: Any = None) -> str:
        """Adds an input and returns its name; strings in `shape` are unknown sizes."""
        self._inputs.append(self._typed(name, shape, dtype))
        return name

    def output(self, name: str, value: str, shape: list[int | str]) -> None:
        """Adds an output with this name for `value`."""
        self.node("Identity", value, outputs=[name])
        self._outputs.append(self._typed(name, shape))

    def constant(self, array: Any, name: str | None = None) -> str:
        """Adds a constant and returns its name; equal unnamed arrays share storage."""
        array = np.asarray(array)
        name = name or f"{array.dtype}_{array.tolist()}"
        self._constants[name] = self._onnx.numpy_helper.from_array(array, name)
        return name

    def node(
        self, op: str, *inputs: str, outputs: list[str] | None = None, **attributes: Any
    ) -> str:
        """Adds a node and returns the name of its first output; "" omits an input."""
        name = f"{op}_{len(self._nodes)}"
        outputs = outputs or [name]
        node = self._onnx.helper.make_node(op, inputs, outputs, name, **attributes)
        self._nodes.append(node)
        return outputs[0]

    def serialized(self) -> bytes:
        """The bytes of the ONNX file."""
        helper = self._onnx.helper
        ends, constants = (self._inputs, self._outputs), list(self._constants.values())
        graph = helper.make_graph(self._nodes, "jaxrnn", *ends, constants)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="jaxrnn"
        )
        return model.SerializeToString()

    def _typed(self, name: str, shape: list[int | str], dtype: Any = None) -> Any:
        element = self.element_type(dtype or self._dtype)
        return self._onnx.helper.make_tensor_value_info(name, element, shape)


def clamped_lengths(graph: Graph, x: str) -> str:
    """Adds an input for lengths, and clamps them to `[0, time]` for onnxruntime."""
    given = graph.input("sequence_length", ["batch"], np.int32)
    time = graph.node("Gather", graph.node("Shape", x), graph.constant(np.int64(0)))
    time = graph.node("Cast", time, to=graph.element_type(np.int32))
    least = graph.node("Max", given, graph.constant(np.int32(0)))
    return graph.node("Min", least, time)


def _state_names(i: int, node: Node) -> Names:
    both = node["direction"] == "bidirectional"
    prefixes = ("state_fw", "state_bw") if both else ("state",)
    letters = "ch" if node["op_type"] == "LSTM" else "h"
    return {k: [f"{prefix}_{i}_{k}" for prefix in prefixes] for k in letters}


def initial_states(graph: Graph, nodes: list[Node]) -> list[Names]:
    """Adds inputs for the initial states, in the order of the driver's states.

    Returns:
        For each layer, the names of the inputs by letter and direction.
    """
    layers = [_state_names(i, node) for i, node in enumerate(nodes)]
    sizes = {
        name: node["hidden_size"]
        for node, names in zip(nodes, layers, strict=True)
        for name in chain(*names.values())
    }
    for name in sorted(sizes, key=by_direction):
        graph.input(f"initial_{name}", ["batch", sizes[name]])
    return [
        {k: [f"initial_{name}" for name in names] for k, names in layer.items()}
        for layer in layers
    ]


def by_direction(name: str) -> bool:
    """A sort key of states: forward states of all layers, then backward states.

    `stack_bidirectional_dynamic_rnn` takes and returns states in this order.
    """
    return name.startswith("state_bw")


def run_layer(
    graph: Graph, i: int, node: Node, x: str, length: str, initial: Names
) -> tuple[str, dict[str, tuple[str, list]]]:
    """Adds a layer; returns Y `[time, directions, batch, units]` and final states."""
    letters = _state_names(i, node)
    weights = {k: graph.constant(node[k], f"{k}_{i}") for k in "WRBP" if k in node}
    stacked = {k: _stacked(graph, states) for k, states in initial.items()}
    inputs = [x, *(weights[k] for k in "WRB"), length, stacked.get("h", "")]
    if "c" in letters:
        inputs += [stacked.get("c", ""), weights.get("P", "")]
    attributes = {k: node[k] for k in _ATTRIBUTES if k in node}
    outputs = [f"Y_{i}", *(f"Y_{k}_{i}" for k in sorted(letters, reverse=True))]
    graph.node(node["op_type"], *inputs, outputs=outputs, **attributes)
    return outputs[0], _final_states(graph, i, node, length, initial)


def _final_states(
    graph: Graph, i: int, node: Node, length: str, initial: Names
) -> dict[str, tuple[str, list]]:
    """The value and the shape of each final state, by name."""
    states = {}
    for k, names in _state_names(i, node).items():
        for direction, name in enumerate(names):
            at = graph.constant(np.int64(direction))
            state = graph.node("Gather", f"Y_{k}_{i}", at, axis=0)
            if initial and length:
                state = _kept(graph, length, state, initial[k][direction])
            states[name] = state, ["batch", node["hidden_size"]]
    return states


def _stacked(graph: Graph, states: list[str]) -> str:
    """Stacks the states of all directions: `[directions, batch, units]`."""
    axis = graph.constant(np.array([0], np.int64))
    states = [graph.node("Unsqueeze", state, axis) for state in states]
    return graph.node("Concat", *states, axis=0)


def _kept(graph: Graph, length: str, state: str, initial: str) -> str:
    """Selects the initial state where the length is 0; onnxruntime returns zeros."""
    runs = graph.node("Greater", length, graph.constant(np.int32(0)))
    runs = graph.node("Unsqueeze", runs, graph.constant(np.array([1], np.int64)))
    return graph.node("Where", runs, state, initial)


def joined(graph: Graph, node: Node, y: str, batch_major: bool) -> tuple[str, int]:
    """Joins the directions of Y; returns `[time, batch, size]` and `size`.

    With `batch_major`, the first two axes are swapped.
    """
    size = len(node["W"]) * node["hidden_size"]
    perm = [2, 0, 1, 3] if batch_major else [0, 2, 1, 3]
    y = graph.node("Transpose", y, perm=perm)
    shape = graph.constant(np.array([0, 0, size], np.int64))
    return graph.node("Reshape", y, shape), size
