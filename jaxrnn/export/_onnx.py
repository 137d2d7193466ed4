"""Export of layers to ONNX, with the operators `LSTM`, `GRU` and `RNN`.

Each layer becomes one node, which `convert.onnx.save` creates as a dict.
"""

from typing import Any, NamedTuple

import numpy as np

from .._base.arguments import as_bool, is_list_of
from .._base.errors import Verbatim, error_note
from .._base.expect import expect
from .._base.inputs import check_concrete
from .._base.modules import import_optional
from .._base.typing import Array, DType
from .._cells.bound import BoundCell
from ..convert._weights import reader
from ..convert.onnx import save

# Opset 14 contains the operators LSTM-14, GRU-14 and RNN-14. IR version 7 belongs to
# this opset.
OPSET = 14
IR_VERSION = 7
Node = dict[str, Any]

_ATTRIBUTES = (
    "hidden_size",
    "direction",
    "activations",
    "input_forget",
    "linear_before_reset",
)
_DTYPES = ("float16", "float32", "float64")


def to_onnx(
    cell: BoundCell | tuple,
    *,
    dense: tuple[Array, Array | None] | None = None,
    lengths: bool = True,
    initial_state: bool = False,
    time_major: bool = False,
) -> bytes:
    """Exports layers as an ONNX file that computes the results of `dynamic_rnn`.

    The file accepts any batch size and number of steps. The inputs of the file are:

    - `inputs`, `[batch, time, depth]`, in the dtype of the parameters;
    - `sequence_length` (if `lengths` is True), int32 `[batch]`, clamped to `[0, time]`;
    - the initial states (if `initial_state` is True), e.g. `initial_state_0_c`, one for
      each final state, in the order of the final states.

    The outputs are the results of `dynamic_rnn` or, with two directions, of
    `stack_bidirectional_dynamic_rnn`, in the order of `jax.tree.leaves`:

    - `outputs`, `[batch, time, size]`, zeros past the length of a row;
    - the final states, each `[batch, units]`. For layer 0, these are `state_0_c` and
      `state_0_h` for an LSTM, and only `state_0_h` for other cells. With two
      directions, the final states are `state_fw_0_h`, ..., then `state_bw_0_h`, ...

    In onnxruntime, NaN in the padding does not affect the results. onnxruntime runs
    these operators only in float32. If the batch is empty, onnxruntime's LSTM and GRU
    crash the process. ONNX files contain no checksum.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`, `GRUCell`,
            `CudnnCompatibleGRUCell` or `contrib.CoupledInputForgetGateLSTMCell`, or a
            bound `MultiRNNCell` of these; or the pair `(cells_fw, cells_bw)` of
            `stack_bidirectional_dynamic_rnn`. The file omits dropout.
        dense: The pair `(kernel, bias)` of a dense layer on the outputs, `[size, n]`
            and `[n]` (None for no bias). The file's `outputs` are then
            `outputs @ kernel + bias`, so the outputs past the length of a row equal the
            bias, or 0 without a bias.
        lengths: Whether the file has an input `sequence_length`; if False, the file
            processes all steps of every row.
        initial_state: Whether the initial states are inputs, so that you can run a
            sequence in parts; if False, the initial states are zero.
        time_major: Whether time is the first axis of `inputs` and `outputs`.

    Returns:
        The bytes of the ONNX file, in opset 14, which requires onnxruntime 1.8 or
        later.

    Raises:
        TypeError: If `cell` is unsupported, or the parameters differ in dtype.
        ValueError: If the shapes of `dense` do not match the outputs, or ONNX's
            operators do not support a feature of a cell, e.g. its projection, clips or
            activation. `to_stablehlo` supports any cell.
        ImportError: If the package `onnx` is missing: `pip install onnx`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn, jaxrnn.export
        >>> cell, step = jaxrnn.LSTMCell(4), jnp.ones((1, 3), jnp.float32)
        >>> bound = cell.bind(cell.init(jax.random.key(0), step))
        >>> file = jaxrnn.export.to_onnx(bound)
        >>> import onnx
        >>> [output.name for output in onnx.load_from_string(file).graph.output]
        ['outputs', 'state_0_c', 'state_0_h']

    Source: the operators of https://onnx.ai/onnx/operators/.
    """
    as_bool("lengths", lengths)
    as_bool("initial_state", initial_state)
    as_bool("time_major", time_major)
    nodes = _nodes(cell)
    dtype = _dtype(nodes)
    graph = Graph(dtype)
    axes = ["time", "batch"] if time_major else ["batch", "time"]
    size = nodes[0]["W"].shape[2]
    x = graph.input("inputs", [*axes, size])
    if not time_major:
        x = graph.node("Transpose", x, perm=[1, 0, 2])
    length = _clamped_lengths(graph, x) if lengths else ""
    states = _states(nodes)
    if initial_state:
        for state in states:
            graph.input(f"initial_{state.name}", ["batch", state.units])
    for i, node in enumerate(nodes):
        initial = [state for state in states if state.layer == i and initial_state]
        y = _run_layer(graph, i, node, x, length, initial)
        batch_major = node is nodes[-1] and not time_major
        x, size = _joined(graph, node, y, batch_major)
    if dense is not None:
        kernel, bias = read_dense(dense, size, dtype)
        x = _dense(graph, x, kernel, bias)
        size = kernel.shape[1]
    graph.output("outputs", x, [*axes, size])
    for state in states:
        final = _final_state(graph, state, length if initial_state else "")
        graph.output(state.name, final, ["batch", state.units])
    return graph.serialized()


def _nodes(cell: BoundCell | tuple) -> list[Node]:
    """The node of each layer, from the inputs upwards."""
    is_bidirectional = isinstance(cell, tuple)
    what = "a bound cell or the tuple (cells_fw, cells_bw)"
    fix = "To stack layers of one direction, use `MultiRNNCell`."
    expect(
        not isinstance(cell, list),
        "cell",
        f"be {what}",
        Verbatim("list"),
        fix,
        error=TypeError,
    )
    if is_bidirectional:
        expect(is_list_of(cell, 2), "cell", f"be {what}", cell, fix)
    with error_note("For anything ONNX cannot express, use `to_stablehlo`."):
        return save(cell, bidirectional=is_bidirectional)


def _dtype(nodes: list[Node]) -> np.dtype:
    """The dtype that all layers share."""
    dtypes = {node["W"].dtype for node in nodes}
    if len(dtypes) > 1 or next(iter(dtypes)).name not in _DTYPES:
        raise TypeError(
            "all parameters must share one dtype (float16, float32 or float64), got "
            f"{', '.join(sorted(map(str, dtypes)))}. Cast them to one of these dtypes."
        )
    return dtypes.pop()


def read_dense(
    dense: Any, size: int, dtype: Any
) -> tuple[np.ndarray, np.ndarray | None]:
    """The kernel `[size, n]` and the bias `[n]` of a dense layer; None for no bias.

    Raises:
        TypeError: If `dense` is not a pair of arrays of this dtype.
        ValueError: If the shapes do not match.
    """
    expect(is_list_of(dense, 2), "dense", "be (kernel, bias)", dense, error=TypeError)
    check_concrete("dense", dense, why="a file stores the values")
    read = reader(dict(zip(("kernel", "bias"), dense, strict=True)), "dense.")
    kernel = read("kernel", size, None)
    expect(
        kernel.dtype == dtype,
        "dense.kernel",
        f"be {dtype}, like the parameters",
        kernel,
        error=TypeError,
    )
    return kernel, None if dense[1] is None else read("bias", kernel.shape[1])


class Graph:
    """An ONNX graph that is built node by node; values are identified by name.

    Args:
        dtype: The default dtype of inputs and outputs.

    Raises:
        ImportError: If the package `onnx` is missing.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self._onnx = import_optional("onnx")
        self._dtype = dtype
        self._nodes = []
        self._constants = {}
        self._inputs = []
        self._outputs = []

    def element_type(self, dtype: DType) -> int:
        """The number that represents a dtype in ONNX."""
        return self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def input(self, name: str, shape: list[int | str], dtype: DType = None) -> str:
        """Adds an input and returns its name; strings in `shape` name unknown sizes."""
        self._inputs.append(self._typed(name, shape, dtype))
        return name

    def output(self, name: str, value: str, shape: list[int | str]) -> None:
        """Adds an output with this name for `value`."""
        self.node("Identity", value, outputs=[name])
        self._outputs.append(self._typed(name, shape))

    def constant(self, array: np.ndarray | np.generic, name: str | None = None) -> str:
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
        constants = list(self._constants.values())
        graph = helper.make_graph(
            self._nodes, "jaxrnn", self._inputs, self._outputs, constants
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="jaxrnn"
        )
        return model.SerializeToString()

    def _typed(self, name: str, shape: list[int | str], dtype: DType = None) -> Any:
        element = self.element_type(dtype or self._dtype)
        return self._onnx.helper.make_tensor_value_info(name, element, shape)


def _clamped_lengths(graph: Graph, x: str) -> str:
    """Adds an input for lengths, and clamps them to `[0, time]` for onnxruntime."""
    given = graph.input("sequence_length", ["batch"], np.int32)
    time = graph.node("Gather", graph.node("Shape", x), graph.constant(np.int64(0)))
    time = graph.node("Cast", time, to=graph.element_type(np.int32))
    least = graph.node("Max", given, graph.constant(np.int32(0)))
    return graph.node("Min", least, time)


class State(NamedTuple):
    """One state in the file: h or c, for one direction of one layer."""

    name: str
    layer: int
    direction: int
    letter: str
    units: int


def _states(nodes: list[Node]) -> list[State]:
    """All states, in the order of `jax.tree.leaves` of a state."""
    both = nodes[0]["direction"] == "bidirectional"
    prefixes = ("state_fw", "state_bw") if both else ("state",)
    return [
        State(f"{prefix}_{i}_{letter}", i, direction, letter, node["hidden_size"])
        for direction, prefix in enumerate(prefixes)
        for i, node in enumerate(nodes)
        for letter in ("ch" if node["op_type"] == "LSTM" else "h")
    ]


def _run_layer(
    graph: Graph, i: int, node: Node, x: str, length: str, initial: list[State]
) -> str:
    """Adds a layer; returns Y, `[time, directions, batch, units]`.

    The layer's final states are `Y_h_{i}` and, for an LSTM, `Y_c_{i}`.
    """
    weights = {k: graph.constant(node[k], f"{k}_{i}") for k in "WRBP" if k in node}
    inputs = [x, *(weights[k] for k in "WRB"), length, _stacked(graph, initial, "h")]
    outputs = [f"Y_{i}", f"Y_h_{i}"]
    if node["op_type"] == "LSTM":
        inputs += [_stacked(graph, initial, "c"), weights.get("P", "")]
        outputs.append(f"Y_c_{i}")
    attributes = {k: node[k] for k in _ATTRIBUTES if k in node}
    return graph.node(node["op_type"], *inputs, outputs=outputs, **attributes)


def _stacked(graph: Graph, states: list[State], letter: str) -> str:
    """Stacks the initial states of all directions: `[directions, batch, units]`."""
    names = [f"initial_{state.name}" for state in states if state.letter == letter]
    if not names:
        return ""
    axis = graph.constant(np.array([0], np.int64))
    rows = [graph.node("Unsqueeze", name, axis) for name in names]
    return graph.node("Concat", *rows, axis=0)


def _final_state(graph: Graph, state: State, length: str) -> str:
    """The final state `[batch, units]`.

    Unless `length` is "", the result for a row of length 0 is the row's initial state.
    onnxruntime's operators would return zeros instead.
    """
    at = graph.constant(np.int64(state.direction))
    final = graph.node("Gather", f"Y_{state.letter}_{state.layer}", at, axis=0)
    if not length:
        return final
    runs = graph.node("Greater", length, graph.constant(np.int32(0)))
    runs = graph.node("Unsqueeze", runs, graph.constant(np.array([1], np.int64)))
    return graph.node("Where", runs, final, f"initial_{state.name}")


def _joined(graph: Graph, node: Node, y: str, batch_major: bool) -> tuple[str, int]:
    """Joins the directions of Y; returns `[time, batch, size]` and `size`.

    With `batch_major`, the first two axes are swapped.
    """
    size = len(node["W"]) * node["hidden_size"]
    perm = [2, 0, 1, 3] if batch_major else [0, 2, 1, 3]
    y = graph.node("Transpose", y, perm=perm)
    shape = graph.constant(np.array([0, 0, size], np.int64))
    return graph.node("Reshape", y, shape), size


def _dense(graph: Graph, x: str, kernel: np.ndarray, bias: np.ndarray | None) -> str:
    """Adds the nodes of `x @ kernel + bias`."""
    x = graph.node("MatMul", x, graph.constant(kernel, "dense_kernel"))
    if bias is None:
        return x
    return graph.node("Add", x, graph.constant(bias, "dense_bias"))
