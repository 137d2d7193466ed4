"""Export of layers to ONNX, with the operators `LSTM`, `GRU` and `RNN`.

Each layer becomes one node, which `convert.to_onnx_nodes` creates as a dict.
`_onnx_states.py` exports memories and short convolutions, which become other operators.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_bool
from .._base.errors import error_note
from .._base.hints import with_hints
from .._base.inputs import check_concrete
from .._base.modules import import_optional
from .._base.typing import Array
from .._cells.base import BoundCell
from .._cells.wrappers.multi_rnn import MultiRNNCell, OutputFunctionWrapper
from ..convert._layer_weights import as_bound, stacked
from ..convert._onnx import to_onnx_nodes
from . import _onnx_states
from ._graph import Graph, Node, Tensor, dtype_of, read_dense

# Opset 14 contains LSTM-14, GRU-14 and RNN-14, and requires IR version 7.
OPSET = 14
IR_VERSION = 7
_INT32 = 6  # The number of int32 in ONNX's enum of dtypes.
# The operators of functions that may follow a cell in a stack. Only functions that map
# 0 to 0 are possible, because outputs at padding must stay 0.
_OPERATORS = {jax.nn.relu: "Relu", jnp.tanh: "Tanh"}


@with_hints
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

    onnxruntime runs these operators only in float32. NaN in the padding does not affect
    the results. If the batch is empty, onnxruntime's LSTM and GRU crash the process.

    A `LinearAttentionMemoryCell` or `DeltaMemoryCell` becomes the operator
    `LinearAttention`, and a `ShortConvCell` becomes `CausalConvWithState`, in a file
    that runs one step or whole sequences in float32. These cells require
    `lengths=False` and support no `dense`. The file has these inputs and outputs:

    - `inputs` or, for a memory, the inputs `q`, `k`, `v`, `g` and, for the delta rule,
      `beta`, each `[batch, time, ...]`;
    - `initial_state` (if `initial_state` is True), like the cell's state;
    - `outputs`, e.g. `[batch, time, heads, value_size]`, and the final state, `state`.

    onnxruntime requires at least one step and, for a memory, at least one row.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`, `GRUCell`,
            `CudnnCompatibleGRUCell` or `contrib.CoupledInputForgetGateLSTMCell`. These
            cells may also be in a bound `MultiRNNCell`, where the functions
            `jax.nn.relu` and `jnp.tanh` may follow a cell, or in the pair
            `(cells_fw, cells_bw)` of `stack_bidirectional_dynamic_rnn`. Alternatively,
            one bound `LinearAttentionMemoryCell`, `DeltaMemoryCell` or `ShortConvCell`.
            The file omits dropout.
        dense: The pair `(kernel, bias)` of a dense layer on the outputs, `[size, n]`
            and `[n]`. If the bias is None, the layer adds no bias. The file's `outputs`
            are then `outputs @ kernel + bias`. Past the length of a row, these outputs
            equal the bias, or 0 without a bias. Default: no dense layer.
        lengths: Whether the file has an input `sequence_length`. If False, the file
            runs all steps of every row.
        initial_state: Whether the initial states are inputs, so that you can run a long
            sequence in several calls. If False, the initial states are zero.
        time_major: Whether time is the first axis of `inputs` and `outputs`.

    Returns:
        The bytes of the ONNX file. The file uses opset 14, which requires onnxruntime
        1.8 or later. For a memory or a convolution, the file uses opset 27, which
        requires onnxruntime 1.32 or later. `onnx.checker` supports this opset from onnx
        1.22 on.

    Raises:
        TypeError: If `cell` is unsupported, or the parameters are traced or differ in
            dtype.
        ValueError: If the shapes of `dense` do not match the outputs, or ONNX's
            operators do not support an argument or a feature of a cell, e.g. its
            projection, clips or activation. `to_stablehlo` supports any cell.
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
    check_concrete("cell", cell, why="a file stores the values")
    operators: list[list[str]] = []
    if isinstance(cell, BoundCell):
        bare = as_bound("cell", cell)
        if isinstance(bare.cell, _onnx_states.CELLS):
            graph = _onnx_states.graph_with_state(
                bare, dense, lengths, initial_state, time_major
            )
            return _serialized(graph, _onnx_states.OPSET, _onnx_states.IR_VERSION)
        layers = _layers(cell)
        cell, operators = stacked([each for each, _ in layers]), [x for _, x in layers]
    alone = ", ".join(f"`{each.__name__}`" for each in _onnx_states.CELLS)
    note = f"A cell outside of a stack may also be one of {alone}. "
    with error_note(f"{note}For anything ONNX cannot express, use `to_stablehlo`."):
        # For each layer, a dict of `op_type`, the arrays W, R, B and P, and attributes.
        nodes = to_onnx_nodes(cell)
    weights = (node["W"] for node in nodes)
    graph = Graph(dtype_of("cell", weights, "float16", "float32", "float64"))
    axes = ["time", "batch"] if time_major else ["batch", "time"]
    x = graph.input("inputs", [*axes, nodes[0]["W"].shape[2]])
    if not time_major:
        x = graph.node("Transpose", [x], perm=[1, 0, 2])
    length = None
    if lengths:  # onnxruntime requires lengths in [0, time].
        given = graph.input("sequence_length", ["batch"], dtype=np.int32)
        shape = graph.node("Shape", [x])
        time = graph.node("Gather", [shape, graph.constant(np.int64(0))])
        time = graph.node("Cast", [time], to=_INT32)
        least = graph.node("Max", [given, graph.constant(np.int32(0))])
        length = graph.node("Min", [least, time])

    # The name of each array of the state (h or c of a layer and direction), in the
    # order of `jax.tree.leaves`.
    both = nodes[0]["direction"] == "bidirectional"
    names = {
        (i, direction, letter): f"state_{prefix}{i}_{letter}"
        for direction, prefix in enumerate(("fw_", "bw_") if both else ("",))
        for i, node in enumerate(nodes)
        for letter in ("ch" if node["op_type"] == "LSTM" else "h")
    }
    shapes = [["batch", node["hidden_size"]] for node in nodes]
    starts: dict[tuple, Tensor] = {}
    if initial_state:
        for at, name in names.items():
            starts[at] = graph.input(f"initial_{name}", shapes[at[0]])

    finals = {}
    for i, node in enumerate(nodes):
        attributes = dict(node)
        op = attributes.pop("op_type")
        *weights, peepholes = (
            graph.constant(attributes.pop(k, None), f"{k}_{i}") for k in "WRBP"
        )
        operands = [x, *weights, length]
        letters = "hc" if op == "LSTM" else "h"  # In ONNX's order.
        for letter in letters:
            rows = [start for at, start in starts.items() if at[::2] == (i, letter)]
            axis = graph.constant(np.array([0], np.int64) if rows else None)
            rows = [graph.node("Unsqueeze", [row, axis]) for row in rows]
            operands.append(graph.node("Concat", rows, axis=0) if rows else None)
        if op == "LSTM":
            operands.append(peepholes)
        # Y is [time, directions, batch, units], and each final state is [directions,
        # batch, units].
        y = graph.tensor(f"Y_{i}")
        own = {(i, letter): graph.tensor(f"Y_{letter}_{i}") for letter in letters}
        graph.nodes.append(Node(op, operands, [y, *own.values()], attributes))
        finals |= own
        # Join the directions.
        order = axes if node is nodes[-1] else ["time", "batch"]
        perm = [2, 0, 1, 3] if order[0] == "batch" else [0, 2, 1, 3]
        y = graph.node("Transpose", [y], perm=perm)
        size = (1 + both) * node["hidden_size"]
        shape = graph.constant(np.array([0, 0, size], np.int64))
        x = graph.node("Reshape", [y, shape], shape=[*order, size])
        for operator in operators[i] if operators else []:
            x = graph.node(operator, [x], shape=[*order, size])

    if dense is not None:
        kernel, bias = read_dense(dense, x.shape[2], graph.dtype)
        shape = [*axes, kernel.shape[1]]
        factors = [x, graph.constant(kernel, "dense_kernel")]
        x = graph.node("MatMul", factors, shape=shape)
        if bias is not None:
            x = graph.node("Add", [x, graph.constant(bias, "dense_bias")], shape=shape)
    graph.outputs["outputs"] = graph.node("Identity", [x], "outputs", x.shape)
    for (i, direction, letter), name in names.items():
        at = graph.constant(np.int64(direction))
        final = graph.node("Gather", [finals[i, letter], at], axis=0)
        if length and initial_state:
            # Works around onnxruntime, whose operators return zeros instead of the
            # initial state for a row of length 0.
            runs = graph.node("Greater", [length, graph.constant(np.int32(0))])
            axis = graph.constant(np.array([1], np.int64))
            runs = graph.node("Unsqueeze", [runs, axis])
            final = graph.node("Where", [runs, final, starts[i, direction, letter]])
        graph.outputs[name] = graph.node("Identity", [final], name, shapes[i])
    return _serialized(graph, OPSET, IR_VERSION)


def _layers(bound: BoundCell) -> list[tuple[BoundCell, list[str]]]:
    """Returns the cells of a stack, each with the operators that follow it."""
    cell, operators = bound.cell, []
    while isinstance(cell, OutputFunctionWrapper) and cell.output_fn in _OPERATORS:
        operators.insert(0, _OPERATORS[cell.output_fn])
        cell = cell.cell
    if not isinstance(cell, MultiRNNCell):
        return [(cell.bind(bound.params), operators)]
    layers = []
    for each, owner in zip(cell.cells, cell.owners, strict=True):
        layers += _layers(each.bind(bound.params.get(f"cell_{owner}", {})))
    layers[-1][1].extend(operators)
    return layers


def _serialized(graph: Graph, opset: int, ir_version: int) -> bytes:
    """Serializes a graph to the bytes of an ONNX file."""
    onnx = import_optional("onnx")
    helper = onnx.helper

    def typed(tensor: Tensor) -> Any:
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
        return helper.make_tensor_value_info(tensor.name, dtype, tensor.shape)

    nodes = []
    for i, (op, operands, results, attributes) in enumerate(graph.nodes):
        inputs = [each.name if each else "" for each in operands]
        outputs = [each.name for each in results]
        node = helper.make_node(op, inputs, outputs, f"{op}_{i}", **attributes)
        nodes.append(node)
    # Store each constant once: constants with the same name are equal.
    constants = {x.name: x.values for x in graph.tensors if x.values is not None}
    proto = helper.make_graph(
        nodes,
        "jaxrnn",
        [typed(tensor) for tensor in graph.inputs.values()],
        [typed(tensor) for tensor in graph.outputs.values()],
        [onnx.numpy_helper.from_array(x, name) for name, x in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        proto, opset_imports=opsets, ir_version=ir_version, producer_name="jaxrnn"
    )
    return model.SerializeToString()
