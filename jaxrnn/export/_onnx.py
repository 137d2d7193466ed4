"""Export of layers to ONNX, with the operators `LSTM`, `GRU` and `RNN`."""

from typing import Any

import numpy as np

from .._base.arguments import as_bool, check_entries
from .._base.errors import InvalidType, InvalidValue, describe
from .._base.typing import Array
from .._cells.bound import BoundCell
from ..convert.onnx import save, save_bidirectional
from ._onnx_graph import (
    Graph,
    by_direction,
    clamped_lengths,
    initial_states,
    joined,
    run_layer,
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

    The file accepts any batch size and number of steps. Its inputs are:

    - `inputs`, `[batch, time, depth]`, in the dtype of the parameters;
    - `sequence_length` (if `lengths` is True), int32 `[batch]`, clamped to `[0, time]`;
    - the initial states (if `initial_state` is True), e.g. `initial_state_0_c`, one for
      each final state, in the order of the final states.

    Its outputs are the results of the driver, in the order of `jax.tree.leaves`:

    - `outputs`, `[batch, time, size]`, zeros past the length of a row;
    - the final states, each `[batch, units]`. For layer 0, these are `state_0_c` and
      `state_0_h` for an LSTM, and only `state_0_h` for other cells. With two
      directions, the final states are `state_fw_0_h`, ..., then `state_bw_0_h`, ...

    In onnxruntime, NaN in the padding does not affect the results. onnxruntime supports
    only float32, and its LSTM and GRU crash the process if the batch is empty. ONNX
    files contain no checksum.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`, `GRUCell`,
            `CudnnCompatibleGRUCell` or `contrib.CoupledInputForgetGateLSTMCell`, or a
            bound `MultiRNNCell` of these; or the pair `(cells_fw, cells_bw)` of
            `stack_bidirectional_dynamic_rnn`. The file omits dropout.
        dense: The pair `(kernel, bias)` of a dense layer on the outputs, `[size, n]`
            and `[n]` (None for no bias). The file's `outputs` are then
            `outputs @ kernel + bias`, so the outputs past the length of a row equal the
            bias.
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
    x = x if time_major else graph.node("Transpose", x, perm=[1, 0, 2])
    length = clamped_lengths(graph, x) if lengths else ""
    initial = initial_states(graph, nodes) if initial_state else [{}] * len(nodes)
    states = {}
    for i, node in enumerate(nodes):
        y, final = run_layer(graph, i, node, x, length, initial[i])
        states |= final
        batch_major = node is nodes[-1] and not time_major
        x, size = joined(graph, node, y, batch_major)
    if dense is not None:
        kernel, bias = _checked_dense(dense, size, dtype)
        x, size = _dense(graph, x, kernel, bias), kernel.shape[1]
    graph.output("outputs", x, [*axes, size])
    for name in sorted(states, key=by_direction):
        graph.output(name, *states[name])
    return graph.serialized()


def _nodes(cell: Any) -> list[dict[str, Any]]:
    """The node of each layer; errors of `convert.onnx` are raised under this name."""
    if isinstance(cell, tuple) and len(cell) != 2:
        raise InvalidValue(
            "`cell` must be a bound cell or the pair (cells_fw, cells_bw), "
            f"got a tuple of {len(cell)}. Stack layers of one direction in a "
            "MultiRNNCell."
        )
    if isinstance(cell, tuple) and any(cells is None for cells in cell):
        raise InvalidType(
            "`cell` must be a bound cell or the pair (cells_fw, cells_bw), "
            "got None for one direction. Pass only the cell of the other direction; if "
            "it runs backward, reverse the inputs and outputs of the file with "
            "`reverse_sequence`."
        )
    try:
        return save_bidirectional(*cell) if isinstance(cell, tuple) else save(cell)
    except (TypeError, ValueError) as error:
        _, _, reason = str(error).partition(": ")
        fix = "For anything ONNX cannot express, use `to_stablehlo`."
        raise type(error)(f"{reason} {fix}") from None


def _dtype(nodes: list[dict[str, Any]]) -> np.dtype:
    """The dtype that all layers share."""
    dtypes = {node["W"].dtype for node in nodes}
    if len(dtypes) > 1 or next(iter(dtypes)).name not in _DTYPES:
        raise InvalidType(
            f"the parameters must share one dtype ({', '.join(_DTYPES)}), "
            f"got {', '.join(sorted(map(str, dtypes)))}. Cast them with jax.tree.map."
        )
    return dtypes.pop()


def _checked_dense(
    dense: Any, size: int, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns `(kernel, bias)` as arrays; raises an error if the shapes differ."""
    check_entries("dense", dense, 2, "(kernel, bias)", error=InvalidType)
    kernel = np.asarray(dense[0])
    bias = None if dense[1] is None else np.asarray(dense[1])
    columns = kernel.shape[-1:]
    wanted = {"kernel": (kernel, (size, *columns))}
    if bias is not None:
        wanted["bias"] = bias, columns
    for name, (got, shape) in wanted.items():
        if got.shape != shape or got.dtype != dtype:
            raise InvalidValue(
                f"`dense` must be a pair (kernel, bias) of dtype {dtype} "
                f"and shapes [{size}, n] and [n], got {describe(got)} as its {name}."
            )
    return kernel, bias


def _dense(graph: Graph, x: str, kernel: np.ndarray, bias: np.ndarray | None) -> str:
    """Adds the nodes of `x @ kernel + bias`."""
    x = graph.node("MatMul", x, graph.constant(kernel, "dense_kernel"))
    if bias is None:
        return x
    return graph.node("Add", x, graph.constant(bias, "dense_bias"))
