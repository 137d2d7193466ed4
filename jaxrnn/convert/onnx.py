"""Weights of the operators `LSTM`, `GRU` and `RNN` of ONNX.

A node is a dict with the node's arrays, under the names of the operator's inputs, and
its attributes:

    node = {"W": w, "R": r, "B": b, "linear_before_reset": 1}
    cell = jaxrnn.convert.onnx.load(node)
    nodes = jaxrnn.convert.onnx.save(cell)  # One for each layer.

ONNX is time major: its X is the `inputs` of `dynamic_rnn` with `time_major=True`. Its Y
has an axis for the directions after that of time.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .._cells.bound import BoundCell
from ._layer_weights import (
    GATES,
    GRU,
    GRU_AFTER,
    LSTM,
    RNN,
    LayerWeights,
    bind,
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
from ._pairs import (
    as_layers,
    bind_both,
    merge_biases,
    split_biases,
    unbind_both,
    unbind_named,
)
from ._weights import pick, reader

__all__ = ["load", "load_bidirectional", "save", "save_bidirectional"]

# The blocks of rows, under the names of `GATES`.
_ORDER = {RNN: "c", GRU: "urc", GRU_AFTER: "urc", LSTM: "iofj"}
_PEEPHOLES = "iof"  # Of the same gates a `LayerWeights` has i, f and o.
_OPERATORS = {RNN: "RNN", GRU: "GRU", GRU_AFTER: "GRU", LSTM: "LSTM"}


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
    where = "convert.onnx.load"
    layers = _layers(where, nodes, "forward", "load_bidirectional")
    return bind(where, [layer for (layer,) in layers])


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
    where = "convert.onnx.load_bidirectional"
    layers = _layers(where, nodes, "bidirectional", "load")
    return bind_both(where, layers)


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
    where = "convert.onnx.save"
    layers = unbind_named(where, "cell", cell)
    return [_node(where, (name,), (layer,)) for name, layer in layers]


def save_bidirectional(
    cells_fw: Sequence[BoundCell], cells_bw: Sequence[BoundCell]
) -> list[dict[str, Any]]:
    """The node of each layer of the cells of both directions; see `save`.

    Args:
        cells_fw: A cell for each layer, each as in `save`.
        cells_bw: The cells of the backward direction, likewise.

    Raises:
        TypeError: As in `save`.
        ValueError: If both do not have the same number of layers, or the two of a layer
            have other kinds or sizes; as in `save`.
    """
    where = "convert.onnx.save_bidirectional"
    pairs = unbind_both(where, cells_fw, cells_bw)
    return [
        _node(where, (f"cells_fw[{i}]", f"cells_bw[{i}]"), pair)
        for i, pair in enumerate(pairs)
    ]


def _layers(
    where: str, nodes: Sequence[Any], direction: str, other: str
) -> list[tuple[LayerWeights, ...]]:
    """The one or two directions of each node, which must be `direction`."""
    nodes = as_layers(nodes)
    if not nodes:
        raise ValueError(f"{where}: `nodes` must be at least one, got none.")
    layers, depth = [], None
    for i, node in enumerate(nodes):
        name = f"nodes[{i}]"
        check_node(where, name, node)
        get = _getter(where, name, node)
        w = get("W", None, None, depth)
        check_direction(where, name, node, w, direction, other)
        layers.append(_both(where, name, node, get, w))
        depth = sum(layer.units for layer in layers[-1])
    return layers


def _getter(
    where: str, name: str, node: Mapping[str, Any]
) -> Callable[..., np.ndarray]:
    """`get(key, *shape)` for the arrays of a node."""
    read = reader(where)
    find = lambda key: pick(f"{where}: {name}", node, key)
    return lambda key, *shape: read(f"{name}['{key}']", find(key), shape)


def _both(
    where: str,
    name: str,
    node: Mapping[str, Any],
    get: Callable[..., np.ndarray],
    w: np.ndarray,
) -> tuple[LayerWeights, ...]:
    """The directions of a node."""
    count, rows, _ = w.shape
    r = get("R", count, rows, None)
    units = r.shape[-1]
    kind = kind_of_node(where, name, node, r)
    has_bias, has_peepholes = (node.get(key) is not None for key in "BP")
    b = get("B", count, 2 * rows) if has_bias else np.zeros((count, 2 * rows), r.dtype)
    p = get("P", count, 3 * units) if has_peepholes else [None] * count
    activations = read_activations(where, name, node, kind, count)
    each = zip(w, r, b, p, activations, strict=True)
    return tuple(_layer(kind, *arrays) for arrays in each)


def _layer(
    kind: str,
    w: np.ndarray,
    r: np.ndarray,
    b: np.ndarray,
    p: np.ndarray | None,
    activation: str,
) -> LayerWeights:
    ours = lambda array: reordered(array.T, _ORDER[kind], GATES[kind])
    bias, state_bias = merge_biases(kind, *map(ours, np.split(b, 2)))
    peepholes = None
    if p is not None:
        i, f, o = np.split(reordered(p, _PEEPHOLES, "ifo"), 3)
        peepholes = i, f, o
    return LayerWeights(
        kind, ours(w), ours(r), bias, state_bias, peepholes, activation=activation
    )


def _node(
    where: str, names: tuple[str, ...], layers: tuple[LayerWeights, ...]
) -> dict[str, Any]:
    shapes = {(layer.kind, layer.inputs.shape, layer.units) for layer in layers}
    if len(shapes) > 1:
        raise ValueError(
            f"{where}: `{names[0]}` and `{names[1]}` must be of one kind and size, as "
            f"one node runs both ways, got {sorted(map(str, shapes))}."
        )
    layer = layers[0]
    theirs = lambda array: reordered(array, GATES[layer.kind], _ORDER[layer.kind]).T
    stack = lambda arrays: np.stack(list(arrays))
    node = {
        "op_type": _OPERATORS[layer.kind],
        "W": stack(theirs(each.inputs) for each in layers),
        "R": stack(theirs(each.state) for each in layers),
        "B": stack(
            np.concatenate([theirs(bias) for bias in split_biases(each)])
            for each in layers
        ),
    }
    peepholes = [_peepholes(where, *each) for each in zip(names, layers, strict=True)]
    if any(p is not None for p in peepholes):
        # One of two directions may have none.
        none = np.zeros(3 * layer.units, layer.bias.dtype)
        node["P"] = stack(none if p is None else p for p in peepholes)
    node["hidden_size"] = layer.units
    node["direction"] = "forward" if len(layers) == 1 else "bidirectional"
    node["activations"] = [
        spelled
        for each in zip(names, layers, strict=True)
        for spelled in spell(layer.kind, activation_name(where, *each))
    ]
    if node["op_type"] == "GRU":
        node["linear_before_reset"] = int(layer.kind == GRU_AFTER)
    return node


def _peepholes(where: str, name: str, layer: LayerWeights) -> np.ndarray | None:
    if layer.projection is not None:
        raise ValueError(
            f"{where}: `{name}` must have no projection, which ONNX's LSTM does not "
            "have, got `num_proj`."
        )
    if layer.peepholes is None:
        return None
    return reordered(np.concatenate(layer.peepholes), "ifo", _PEEPHOLES)
