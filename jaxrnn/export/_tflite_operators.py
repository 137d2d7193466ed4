"""Export of layers to the fused recurrent operators of TensorFlow Lite."""

import dataclasses
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import check_time_major, is_list_of
from .._base.errors import describe, error_note
from .._base.expect import expect
from .._base.inputs import check_concrete
from .._base.typing import Array, ArrayLike, PyTree, RNNCellLike, Shaped
from .._cells.basic_rnn import BasicRNNCell
from .._cells.bound import BoundCell
from .._cells.lstm import BasicLSTMCell, LSTMCell
from .._drivers.dynamic_rnn import dynamic_rnn
from .._drivers.stack_bidirectional import stack_bidirectional_dynamic_rnn
from ..contrib import CoupledInputForgetGateLSTMCell
from ..convert._bound_cells import as_bound, as_pairs, layer_of, single_cells
from ..convert._layer_weights import Kind, LayerWeights, Library
from ..lite import TFLiteLSTMCell, TfLiteRNNCell
from ._functions import check_fixed_sizes
from ._onnx import read_dense
from ._tflite_graph import ABSENT, Graph, add_dense, add_swap

Layer: TypeAlias = tuple[LayerWeights, ...]
"""The weights of a layer's one or two directions."""

# Values of the format's enum `ActivationFunctionType`. LSTMs lack "linear", because
# without an activation, the results of LiteRT 2.3's LSTM operators differ from the
# results of jaxrnn.
_ACTIVATIONS = {
    Kind.RNN: {"tanh": 4, "relu": 1, "linear": 0},
    Kind.LSTM: {"tanh": 4, "relu": 1},
}
LIBRARY = Library(
    "TensorFlow Lite",
    {Kind.RNN: "c", Kind.LSTM: "ifjo"},
    lacks=(),
    activations={kind: tuple(names) for kind, names in _ACTIVATIONS.items()},
)
# Maps the kind of a layer and the number of directions to the operator, the class of
# the operator's options, and the number of trailing inputs to omit. The operator uses
# the omitted inputs for layer normalization or as an auxiliary input.
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
_FIX = "Use `to_tflite` or `to_stablehlo`, which do not need fused operators."


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
    for inputs of the given shape, without dropout. This function does not need
    TensorFlow. `to_tflite` also supports other cells, lengths and final states. In
    measurements on a CPU (one row, 128 units), these operators took 1.4 to 1.6 times as
    long as the loops that `to_tflite` exports.

    The file keeps the state in variables, so each run continues where the previous run
    ended. A file that is exported for one time step can therefore process a stream step
    by step. To set the state to zeros, call `reset_all_variables()` of the interpreter
    before each new sequence or, with two directions, before each run. The interpreter's
    methods `get_tensor` and `set_tensor` read and write a variable by its index.
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
            `[units]` (None for no bias).

    Returns:
        The bytes of the file. The signature has one input (`inputs`) and one output
        (`outputs`), `[batch, time, size]`, or `[time, batch, size]` if `time_major`.

    Raises:
        TypeError: If TensorFlow Lite has no operator for a cell, the inputs are not
            float32 arrays of rank 3, or the parameters are not float32.
        ValueError: If the operator does not support an activation, a clip or layer
            normalization, the two directions differ in an activation or clip, or shapes
            do not match.
        ImportError: If `ai_edge_litert` is missing: `pip install ai-edge-litert`.

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
    layers = _read_pairs(*cells) if both else _read_stack("cells", cells)
    graph = Graph()
    first = graph.tensor("inputs", inputs.shape)
    last = first
    # The time-major layout is faster. In the batch-major layout, the bidirectional
    # operators of LiteRT 2.3 compute wrong results for several rows.
    swap = not time_major and inputs.shape[0] > 1
    if swap:
        last = add_swap(graph, last)
    for i, layer in enumerate(layers):
        last = _add_layer(graph, f"layer_{i}", layer, last, time_major or swap)
    if dense is not None:
        kernel, bias = read_dense(dense, outputs.shape[-1], np.float32)
        last = add_dense(graph, kernel, bias, last)
    if swap:
        last = add_swap(graph, last)
    return graph.to_bytes(first, last)


def _check_inputs(inputs: Any) -> None:
    dtype = getattr(inputs, "dtype", None)
    if dtype != jnp.float32 or len(inputs.shape) != 3:
        raise TypeError(
            "`inputs` must be a float32 array of rank 3, or a `jax.ShapeDtypeStruct` "
            f"for such an array, got {describe(inputs)}."
        )
    check_fixed_sizes("inputs", inputs)


def _outputs(cells: Any, inputs: Shaped, time_major: bool) -> Any:
    """Checks the arguments; returns the shape of the outputs."""

    def run(x: Array) -> PyTree:
        if not isinstance(cells, tuple):
            return dynamic_rnn(cells, x, dtype=x.dtype, time_major=time_major)
        what = "a cell or a pair of forward and backward cells"
        fix = "To stack layers, use `MultiRNNCell`."
        expect(is_list_of(cells, 2), "cells", f"be {what}", cells, fix)
        pairs = as_pairs(cells)
        cells_fw = [fw for (_, fw), _ in pairs]
        cells_bw = [bw for _, (_, bw) in pairs]
        return stack_bidirectional_dynamic_rnn(
            cells_fw, cells_bw, x, dtype=x.dtype, time_major=time_major
        )

    with error_note("Raised while computing the shapes of the outputs."):
        return jax.eval_shape(run, jax.ShapeDtypeStruct(inputs.shape, jnp.float32))[0]


def _read_stack(name: str, cell: Any) -> list[Layer]:
    """The unidirectional layers of a bound cell, from the inputs upwards.

    Raises:
        TypeError: If TensorFlow Lite has no operator for the cell, or its parameters
            are not float32.
        ValueError: If the operator does not support the activation or a clip.
    """
    return [(_read_direction(*each),) for each in single_cells(name, cell)]


def _read_pairs(cells_fw: Any, cells_bw: Any) -> list[Layer]:
    """The weights of both directions of each layer.

    Raises:
        TypeError: As in `_read_stack`.
        ValueError: If the directions differ in a property that the operator applies to
            both directions; also as in `_read_stack`.
    """
    pairs = []
    for i, pair in enumerate(as_pairs((cells_fw, cells_bw))):
        fw, bw = (_read_direction(*each) for each in pair)
        if _shared(fw) != _shared(bw):
            raise ValueError(
                f"`cells_bw[{i}]` must match `cells_fw[{i}]` ({_text(_shared(fw))}), "
                f"because one operator runs both, got {_text(_shared(bw))}. {_FIX}"
            )
        pairs.append((fw, bw))
    return pairs


def _shared(weights: LayerWeights) -> dict[str, Any]:
    """The properties that both directions must share."""
    shared = {"kind": weights.kind, "activation": weights.activation_name}
    if weights.kind == Kind.RNN:
        return shared
    sizes = {"units": weights.units, "outputs": len(weights.state_kernel)}
    return shared | sizes | _clips(weights)


def _text(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in fields.items())


def _clips(weights: LayerWeights) -> dict[str, float]:
    """The clips that have an effect; `proj_clip` needs a projection."""
    clips = dict(weights.clips)
    if weights.projection is None:
        clips.pop("proj_clip", None)
    return clips


def _in_core_layout(bound: BoundCell) -> BoundCell:
    """Replaces a cell of `jaxrnn.lite` with the equivalent core cell."""
    cell = bound.cell
    if not isinstance(cell, TFLiteLSTMCell | TfLiteRNNCell):
        return bound
    kind = LSTMCell if isinstance(cell, LSTMCell) else BasicRNNCell
    fields = {f.name: getattr(cell, f.name) for f in dataclasses.fields(cell)}
    return kind(**fields).bind(cell.stage_params(bound.params))


def _read_direction(name: str, cell: Any) -> LayerWeights:
    """The weights of a single cell.

    Raises:
        TypeError: As in `_read_stack`.
        ValueError: As in `_read_stack`.
    """
    bound = _in_core_layout(as_bound(name, cell))
    cell = bound.cell
    if type(cell) not in _CELLS:
        names = ", ".join(each.__name__ for each in _CELLS)
        raise TypeError(
            f"`{name}` must be one of {names}, or a cell of jaxrnn.lite, got {cell!r}. "
            f"{_FIX}"
        )
    check_concrete(f"{name}.params", bound.params, why="a file stores the values")
    weights = layer_of(name, bound)
    expect(
        weights.bias.dtype == np.float32,
        name,
        "have float32 parameters",
        weights.bias,
        error=TypeError,
    )
    LIBRARY.check(name, weights)
    if 0 in _clips(weights).values():
        raise ValueError(
            f"`{name}` must have clips above 0 (0 means no clip in the operator), got "
            f"{_text(_clips(weights))}. {_FIX}"
        )
    return weights


def _options(weights: LayerWeights) -> dict[str, Any]:
    """The operator's options for the activation and the clips; 0 means no clip."""
    number = _ACTIVATIONS[weights.kind][weights.activation_key]
    options: dict[str, Any] = {"fusedActivationFunction": number}
    if weights.kind == Kind.LSTM:
        clips = _clips(weights)
        options["cellClip"] = clips.get("cell_clip", 0.0)
        options["projClip"] = clips.get("proj_clip", 0.0)
    return options


def _add_layer(
    graph: Graph, name: str, layer: Layer, inputs: int, time_major: bool
) -> int:
    """Adds the operator for a layer, which has one or two directions.

    Args:
        graph: The model.
        name: The name of the layer in the file.
        layer: The weights of the layer's one or two directions.
        inputs: The index of the tensor of inputs, `[batch, time, depth]`, or
            `[time, batch, depth]` if `time_major`.
        time_major: Whether time is the first axis.

    Returns:
        The index of the tensor of outputs, `[batch, time, size]`, or
        `[time, batch, size]` if `time_major`, with both directions concatenated.
    """
    steps = graph.shape(inputs)[:2]
    batch = steps[1 if time_major else 0]
    kind = layer[0].kind
    operator, options, absent = _OPERATORS[kind, len(layer)]
    fields = _options(layer[0]) | {"timeMajor": time_major}
    names = [name]
    if len(layer) == 2:
        names = [f"{name}/fw", f"{name}/bw"]
        fields["mergeOutputs"] = True
    operands = [inputs]
    states = []
    for own_name, weights in zip(names, layer, strict=True):
        operands += graph.constants(own_name, _arrays(weights))
        variables = _variables(graph, own_name, weights, batch)
        # The RNN operators expect the state of each direction after the weights of the
        # direction. The LSTM operators expect all states after all weights.
        if kind == Kind.RNN:
            operands += variables
        else:
            states += variables
    operands += [*states, *[ABSENT] * absent]
    size = sum(len(weights.state_kernel) for weights in layer)
    output = graph.tensor(f"{name}/outputs", (*steps, size))
    graph.operator(operator, operands, output, options, **fields)
    return output


def _variables(graph: Graph, name: str, weights: LayerWeights, batch: int) -> list[int]:
    """Adds the variables for h and, in an LSTM, c, which the operator updates."""
    sizes = {"h": len(weights.state_kernel)}
    if weights.kind == Kind.LSTM:
        sizes["c"] = weights.units
    return [
        graph.tensor(f"{name}/{state}", (batch, size), isVariable=True)
        for state, size in sizes.items()
    ]


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
        weights.peepholes or (None, None, None),  # For the gates i, f and o.
        np.split(bias.T, 4),
    ):
        # If the arrays of gate i are absent, the operator computes i as 1 - f.
        arrays += [None, *gates[1:]] if weights.is_coupled else gates
    # The last input is a bias of the projection; `LSTMCell` has no such bias.
    return [*arrays, None if projection is None else projection.T, None]
