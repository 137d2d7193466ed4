"""Export of layers to the fused recurrent operators of TensorFlow Lite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import check_dtype, check_entries, check_time_major
from .._base.errors import InvalidType, describe, error_note
from .._base.typing import Array, ArrayLike, PyTree, RNNCellLike, Shaped
from .._drivers.dynamic_rnn import dynamic_rnn
from .._drivers.stack_bidirectional import stack_bidirectional_dynamic_rnn
from ..convert._bound_cells import paired
from ..convert._weights import check_concrete, reader
from ._tflite import check_fixed_sizes
from ._tflite_layers import (
    Graph,
    add_dense,
    add_layer,
    add_swap,
    read_pairs,
    read_stack,
)


def to_tflite_operators(
    cells: RNNCellLike | tuple[Any, Any],
    inputs: Shaped,
    *,
    time_major: bool = False,
    dense: tuple[ArrayLike, ArrayLike] | None = None,
) -> bytes:
    """Exports layers as a TensorFlow Lite file, with one operator per layer.

    The operators are `UNIDIRECTIONAL_SEQUENCE_LSTM`, `UNIDIRECTIONAL_SEQUENCE_RNN` and
    the corresponding `BIDIRECTIONAL` operators. The file computes the outputs of
    `dynamic_rnn(cell, inputs, dtype=float32)`, or of `stack_bidirectional_dynamic_rnn`,
    for inputs of the given shape, without dropout. This function does not need
    TensorFlow. `to_tflite` also supports other cells, lengths and final states. The
    loops that `to_tflite` exports take about half as long as these operators on a CPU.

    The file keeps the state in variables, so each run continues where the previous run
    ended. A file that is exported for one time step can therefore process a stream step
    by step. Call `reset_all_variables()` before each new sequence to set the state to
    zeros. With two directions, call `reset_all_variables()` before each run.
    `get_tensor` and `set_tensor` read and write a variable by its index.
    `get_tensor_details` lists the indices under the names of the variables:
    `layer_0/h`, `layer_0/c`, `layer_1/h`, ..., or with two directions `layer_0/fw/h`,
    `layer_0/bw/h`, ...

    Args:
        cells: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`,
            `contrib.CoupledInputForgetGateLSTMCell` (without layer normalization), a
            cell of `jaxrnn.lite`, or a `MultiRNNCell` of these. The parameters must be
            float32, and the activation must be tanh or relu; a `BasicRNNCell` also
            supports a linear activation. For two directions, a pair
            `(cells_fw, cells_bw)`, each a cell or a list with one cell per layer.
        inputs: An array or `jax.ShapeDtypeStruct`, float32 `[batch, time, depth]`, or
            `[time, batch, depth]` if `time_major`.
        time_major: Whether time is the first axis of inputs and outputs.
        dense: None, or the pair `(kernel, bias)` of a final dense layer, which computes
            `outputs @ kernel + bias` at each step; float32 `[size, units]` and
            `[units]`.

    Returns:
        The bytes of the file. Its signature has one input (`inputs`) and one output
        (`outputs`), `[batch, time, size]`, or `[time, batch, size]` if `time_major`.

    Raises:
        TypeError: If TensorFlow Lite has no operator for a cell, or the inputs or
            parameters are not float32.
        ValueError: If the operator does not support an activation, a clip or layer
            normalization, the two directions differ in an activation or clip, or shapes
            do not match.
        ImportError: If `ai_edge_litert` is missing.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn, jaxrnn.export
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
    _check_inputs(inputs)
    outputs = _outputs(cells, inputs, time_major)
    both = isinstance(cells, tuple)
    layers = read_pairs(*cells) if both else read_stack("cells", cells)
    graph = Graph()
    first = graph.tensor("inputs", inputs.shape)
    last = first
    # Time-major layout is faster. Also, with batch-major layout and several rows, the
    # bidirectional operators of LiteRT 2.3 compute wrong results.
    swap = not time_major and inputs.shape[0] > 1
    if swap:
        last = add_swap(graph, last)
    for i, layer in enumerate(layers):
        last = add_layer(graph, f"layer_{i}", layer, last, time_major or swap)
    if dense is not None:
        kernel, bias = _read_dense(dense, outputs.shape[-1])
        last = add_dense(graph, kernel, bias, last)
    if swap:
        last = add_swap(graph, last)
    return graph.to_bytes(first, last)


def _check_inputs(inputs: Any) -> None:
    dtype = getattr(inputs, "dtype", None)
    if dtype != jnp.float32 or len(inputs.shape) != 3:
        raise InvalidType(
            "`inputs` must be a float32 array of rank 3, or a matching "
            f"`jax.ShapeDtypeStruct`, got {describe(inputs)}."
        )
    check_fixed_sizes("inputs", inputs)


def _outputs(cells: Any, inputs: Shaped, time_major: bool) -> Any:
    """Runs the driver's checks and returns the shape of its outputs."""

    def run(x: Array) -> PyTree:
        if not isinstance(cells, tuple):
            return dynamic_rnn(cells, x, dtype=x.dtype, time_major=time_major)
        what = "a cell or a pair of forward and backward cells"
        fix = "Stack layers in a MultiRNNCell."
        check_entries("cells", cells, 2, what, fix)
        cells_fw, cells_bw = zip(*paired(*cells), strict=True)
        return stack_bidirectional_dynamic_rnn(
            cells_fw, cells_bw, x, dtype=x.dtype, time_major=time_major
        )

    with error_note("Raised by the driver that computes these outputs."):
        return jax.eval_shape(run, jax.ShapeDtypeStruct(inputs.shape, jnp.float32))[0]


def _read_dense(dense: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    check_entries("dense", dense, 2, "(kernel, bias)", error=InvalidType)
    check_concrete("dense", dense, "a file stores its values")
    read = reader(dict(zip(("kernel", "bias"), dense, strict=True)), "dense.")
    kernel = read("kernel", size, None)
    check_dtype("dense", kernel, np.float32, "be float32")
    return kernel, read("bias", kernel.shape[1])
