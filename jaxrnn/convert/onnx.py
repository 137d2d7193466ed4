"""Weights of the operators `LSTM`, `GRU` and `RNN` of ONNX.

A node is a dict with the node's arrays, under the names of the operator's inputs, and
its attributes:

    node = {"W": w, "R": r, "B": b, "linear_before_reset": 1}
    cell = jaxrnn.convert.onnx.load(node)
    nodes = jaxrnn.convert.onnx.save(cell)  # One for each layer.

ONNX is time major: its X is the `inputs` of `dynamic_rnn` with `time_major=True`. Its Y
has an axis for the directions after that of time.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._cells.bound import BoundCell
from ._cells import (
    as_layers,
    cell_of_layers,
    cells_of_pairs,
    layers_of_cell,
    pairs_of_cells,
)
from ._layer_weights import (
    GRU,
    GRU_AFTER,
    LSTM,
    RNN,
    LayerWeights,
    check_lacks,
    from_order,
    reordered,
)
from ._onnx_node import (
    activation_name,
    check_direction,
    check_node,
    kind_of_node,
    read_activations,
    spell,
)
from ._weights import public, reader

__all__ = ["load", "load_bidirectional", "save", "save_bidirectional"]

# ONNX's order of gates, in the letters of `GATES`.
_ORDER = {RNN: "c", GRU: "urc", GRU_AFTER: "urc", LSTM: "iofj"}
_PEEPHOLES = "iof"  # A `LayerWeights` has them in the order i, f, o.
_OPERATORS = {RNN: "RNN", GRU: "GRU", GRU_AFTER: "GRU", LSTM: "LSTM"}


@public
def load(*nodes: Mapping[str, Any]) -> BoundCell:
    """The bound cell of stacked nodes of one direction.

    Args:
        *nodes: From the inputs upwards, each a dict with the arrays W and R, optionally
            B and P, and any of the node's attributes, also `op_type`. Attributes that
            are left out have ONNX's defaults: `linear_before_reset=0` for a GRU. Or one
            list of nodes, as `save` returns it.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `GRUCell`, `CudnnCompatibleGRUCell`
        (`linear_before_reset`) or `BasicRNNCell`; of several nodes a bound
        `MultiRNNCell`.

    Raises:
        TypeError: If a node is not a dict, or a weight is not a floating array.
        ValueError: If a name is missing or not known, or an array has the wrong shape;
            if a node runs backward or in both directions; if an attribute has no
            counterpart: `clip`, `input_forget`, other activations of gates.

    Example:
        >>> import numpy as np, jaxrnn.convert.onnx
        >>> w, r = np.ones((1, 20, 3), np.float32), np.ones((1, 20, 5), np.float32)
        >>> cell = jaxrnn.convert.onnx.load({"W": w, "R": r})
        >>> type(cell.cell).__name__, cell.state_size
        ('LSTMCell', LSTMStateTuple(c=5, h=5))
        >>> [node] = jaxrnn.convert.onnx.save(cell)
        >>> {k: getattr(v, "shape", v) for k, v in node.items()}
        {'op_type': 'LSTM', 'W': (1, 20, 3), 'R': (1, 20, 5), 'B': (1, 40), \
'hidden_size': 5, 'direction': 'forward', 'activations': ['Sigmoid', 'Tanh', 'Tanh']}
    """
    layers = _layers(nodes, "forward", "load_bidirectional")
    return cell_of_layers([layer for (layer,) in layers])


@public
def load_bidirectional(
    *nodes: Mapping[str, Any],
) -> tuple[tuple[BoundCell, ...], tuple[BoundCell, ...]]:
    """The bound cells of stacked nodes of two directions.

    Args:
        *nodes: As in `load`; each reads the outputs of both directions below it.

    Returns:
        `(cells_fw, cells_bw)`, each with a cell for each node, as
        `stack_bidirectional_dynamic_rnn` takes them.

    Raises:
        TypeError: As in `load`.
        ValueError: If a node has one direction; as in `load`.
    """
    return cells_of_pairs(_layers(nodes, "bidirectional", "load"))


@public
def save(cell: BoundCell) -> list[dict[str, Any]]:
    """The node of each layer of a cell: its arrays and its attributes in one dict.

    The arrays are W, R, B and, with peepholes, P; `op_type` is for
    `onnx.helper.make_node`, and the others are attributes. Biases are in the first half
    of B, including the forget bias; the bias that a reset gate multiplies is in the
    second half.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`, `GRUCell`,
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of these.

    Raises:
        TypeError: If `cell` is not such a bound cell.
        ValueError: For what ONNX does not have: a projection, clips, other activations.
    """
    return [_node(each) for each in layers_of_cell("cell", cell)]


@public
def save_bidirectional(
    cells_fw: Sequence[BoundCell], cells_bw: Sequence[BoundCell]
) -> list[dict[str, Any]]:
    """The node of each layer of the cells of both directions; see `save`.

    Args:
        cells_fw: A cell for each layer, each as in `save`.
        cells_bw: The cells of the backward direction, likewise.

    Raises:
        TypeError: As in `save`.
        ValueError: If the directions differ in the number of layers, or in the kinds or
            sizes of these; as in `save`.
    """
    return [_node(*pair) for pair in pairs_of_cells(cells_fw, cells_bw)]


def _layers(
    nodes: Sequence[Any], direction: str, other: str
) -> list[tuple[LayerWeights, ...]]:
    """The one or two directions of each node, which must be `direction`."""
    layers, depth = [], None
    for i, node in enumerate(as_layers("nodes", nodes)):
        name = f"nodes[{i}]"
        check_node(name, node)
        read = reader(node, f"{name}['", "']")
        w = read("W", None, None, depth)
        check_direction(name, node, w, direction, other)
        count, rows, _ = w.shape
        r = read("R", count, rows, None)
        kind = kind_of_node(name, node, r)
        b, p = np.zeros((count, 2 * rows), r.dtype), [None] * count
        if node.get("B") is not None:
            b = read("B", count, 2 * rows)
        if node.get("P") is not None:
            p = read("P", count, 3 * r.shape[-1])
        activations = read_activations(name, node, kind, count)
        each = zip(w, r, b, p, activations, strict=True)
        layers.append(tuple(_layer(kind, *arrays) for arrays in each))
        depth = sum(layer.units for layer in layers[-1])
    return layers


def _layer(
    kind: str,
    w: np.ndarray,
    r: np.ndarray,
    b: np.ndarray,
    p: np.ndarray | None,
    activation: str,
) -> LayerWeights:
    peepholes = None
    if p is not None:
        peepholes = tuple(np.split(reordered(p, _PEEPHOLES, "ifo"), 3))
    more = {"peepholes": peepholes, "activation": activation}
    return from_order(_ORDER[kind], kind, w.T, r.T, *np.split(b, 2), **more)


def _node(*named: tuple[str, LayerWeights]) -> dict[str, Any]:
    """The node of the one or two directions of a layer."""
    names, layers = zip(*named, strict=True)
    shapes = {(layer.kind, layer.input_kernel.shape, layer.units) for layer in layers}
    if len(shapes) > 1:
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` must be of one kind and size, as one node "
            f"runs both ways, got {sorted(map(str, shapes))}."
        )
    for name, layer in named:
        check_lacks(name, layer, "ONNX", "projection")
    kind, units = layers[0].kind, layers[0].units
    arrays = [layer.in_order(_ORDER[kind]) for layer in layers]
    activations = [activation_name(*each) for each in named]
    node = {
        "op_type": _OPERATORS[kind],
        "W": np.stack([inputs.T for inputs, *_ in arrays]),
        "R": np.stack([state.T for _, state, *_ in arrays]),
        "B": np.stack([np.concatenate(biases) for _, _, *biases in arrays]),
    }
    if any(layer.peepholes is not None for layer in layers):
        # One of two directions may have none.
        none = [np.zeros(units, layers[0].bias.dtype)] * 3
        peepholes = [np.concatenate(layer.peepholes or none) for layer in layers]
        node["P"] = reordered(np.stack(peepholes), "ifo", _PEEPHOLES)
    node["hidden_size"] = units
    node["direction"] = "forward" if len(layers) == 1 else "bidirectional"
    node["activations"] = [s for one in activations for s in spell(kind, one)]
    if node["op_type"] == "GRU":
        node["linear_before_reset"] = int(kind == GRU_AFTER)
    return node
