"""Exports memories and short convolutions to ONNX's operators with a state.

The operators `LinearAttention` and `CausalConvWithState` run all steps of a sequence.
"""

import math
from typing import Any

import numpy as np

from .._base.errors import expect
from .._cells.base import BoundCell
from .._cells.matrix.memories import DeltaMemoryCell, LinearAttentionMemoryCell
from .._cells.matrix.rule import LEAST_LOG
from .._cells.short_conv import ShortConvCell
from ..convert._weights import Reader
from ._graph import Graph, Node, Tensor, dtype_of

# Opset 27 is the first opset with both operators, and requires IR version 13.
OPSET = 27
IR_VERSION = 13
CELLS = LinearAttentionMemoryCell, DeltaMemoryCell, ShortConvCell


def graph_with_state(
    bound: BoundCell,
    dense: object,
    lengths: bool,
    initial_state: bool,
    time_major: bool,
) -> Graph:
    """Builds the graph of a cell of `CELLS`; see `to_onnx` for the arguments.

    Raises:
        TypeError: If a parameter is not a float32 array.
        ValueError: If the graph cannot have lengths, a dense layer or a `scale`, or a
            parameter does not have the shape that the cell requires.
    """
    cell, kind = bound.cell, type(bound.cell).__name__
    must = f"be False for `{kind}`, because ONNX's operator does not support lengths"
    fix = "Pass `lengths=False`, and run rows of equal length."
    expect(not lengths, "lengths", must, lengths, fix)
    must = f"be None for `{kind}`"
    fix = "Apply the dense layer to the file's `outputs` after each run."
    expect(dense is None, "dense", must, dense, fix)
    graph = Graph(np.dtype(np.float32))
    axes = ["time", "batch"] if time_major else ["batch", "time"]

    def swapped(x: Tensor, rank: int) -> Tensor:
        """Swaps batch and time if the file is time-major."""
        perm = [1, 0, *range(2, rank)]
        return graph.node("Transpose", [x], perm=perm) if time_major else x

    def given(name: str, size: Any) -> Tensor:
        shape = [*axes, *np.atleast_1d(size).tolist()]
        return swapped(graph.input(name, shape), len(shape))

    state_shape = ["batch", *cell.state_size]
    start = lambda: graph.input("initial_state", state_shape) if initial_state else None
    if isinstance(cell, ShortConvCell):
        x = given("inputs", cell.num_units)
        y, state = _convolution(graph, bound, x, start())
    else:
        sizes = cell.input_sizes._asdict()
        values = {name: given(name, size) for name, size in sizes.items()}
        y, state = _attention(graph, cell, values, start())
    shape = [*axes, *np.atleast_1d(cell.output_size).tolist()]
    y = swapped(y, len(shape))
    graph.outputs["outputs"] = graph.node("Identity", [y], "outputs", shape)
    graph.outputs["state"] = graph.node("Identity", [state], "state", state_shape)
    return graph


def _convolution(
    graph: Graph, bound: BoundCell, x: Tensor, past: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Adds the operator; returns the outputs `[batch, time, units]` and the state."""
    cell = bound.cell
    read = Reader(bound.params, "cell.params['", "']")
    kernel = read("kernel", cell.width, cell.num_units)
    bias = read("bias", cell.num_units) if cell.use_bias else None
    dtype_of("cell", [kernel], "float32")
    time_last = lambda x: graph.node("Transpose", [x], perm=[0, 2, 1])
    weight = graph.constant(kernel.T[:, None], "kernel")
    past = None if past is None else time_last(past)
    operands = [time_last(x), weight, graph.constant(bias, "bias"), past]
    results = graph.tensor("Y"), graph.tensor("present")
    graph.nodes.append(Node("CausalConvWithState", operands, results, {}))
    y, state = map(time_last, results)
    return y, state


def _attention(
    graph: Graph,
    cell: LinearAttentionMemoryCell | DeltaMemoryCell,
    values: dict[str, Tensor],
    past: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Adds the operator; returns its outputs `[batch, time, heads, value]` and state.

    The operator merges the axes of heads and sizes. If heads share a query and a key,
    these are repeated for each head, because each head has its own memory. (The
    operator's `q_num_heads` is for several queries that read one memory.)
    """
    heads = cell.num_heads
    fits = cell.scale is None or np.float32(cell.scale) != 0
    must = "not be 0 in float32, because ONNX replaces 0 with `1 / sqrt(key_size)`"
    expect(fits, "cell.scale", must, cell.scale)
    ints = lambda *sizes: graph.constant(np.array(sizes, np.int64))
    times = heads // (cell.num_key_heads or heads)
    for name in "qk" if times > 1 else "":
        x = graph.node("Unsqueeze", [values[name], ints(3)])
        values[name] = graph.node("Expand", [x, ints(1, 1, 1, times, 1)])
    least = graph.constant(np.float32(LEAST_LOG))
    values["g"] = graph.node("Max", [values["g"], least])
    sizes, _ = cell.rule.sizes(heads, cell.key_size, cell.value_size)
    packed = {
        name: graph.node("Reshape", [values[name], ints(0, 0, math.prod(size))])
        for name, size in sizes._asdict().items()
    }
    is_delta = isinstance(cell, DeltaMemoryCell)
    attributes = {
        "q_num_heads": heads,
        "kv_num_heads": heads,
        "update_rule": "gated_delta" if is_delta else "gated",
        "scale": cell.scale or 0.0,
    }
    q, k, v, *gates = packed.values()
    results = y, state = graph.tensor("Y"), graph.tensor("present")
    node = Node("LinearAttention", [q, k, v, past, *gates], results, attributes)
    graph.nodes.append(node)
    return graph.node("Reshape", [y, ints(0, 0, heads, cell.value_size)]), state
