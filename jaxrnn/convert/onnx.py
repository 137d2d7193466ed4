"""Weights of the ONNX operators `LSTM`, `GRU` and `RNN`.

A node is a dict that contains the operator's arrays, by input name, and its attributes:

    node = {"W": w, "R": r, "B": b, "linear_before_reset": 1}
    cell = jaxrnn.convert.onnx.load(node)
    nodes = jaxrnn.convert.onnx.save(cell)  # One node per layer.

`nodes` reads these dicts from a model:

    cell = jaxrnn.convert.onnx.load(jaxrnn.convert.onnx.nodes("model.onnx"))

ONNX is time major: X corresponds to the `inputs` of `dynamic_rnn` with
`time_major=True`. Y has an additional axis for the directions, after the time axis.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._base.arguments import check_equal, check_one_of
from .._base.boundary import export as _export
from .._base.errors import InvalidValue, describe
from .._base.typing import Params
from .._cells.bound import BoundCell
from . import _bound_cells, _onnx_nodes
from ._bound_cells import BothCells, Cells, Named, cell_of_layers, cells_of_pairs
from ._layer_weights import Kind, LayerWeights, Library, kind_of, reordered
from ._onnx_nodes import ACTIVATIONS, is_coupled, read_activations, spelled
from ._weights import (
    Weights,
    as_mapping,
    blocks,
    check_directions,
    check_only,
    joined,
    listed,
    reader,
)

__all__ = ["load", "load_bidirectional", "nodes", "save", "save_bidirectional"]


def __dir__() -> list[str]:
    return __all__


_PEEPHOLES = "iof"  # `LayerWeights` stores peepholes in the order i, f, o.
_ORDERS = {Kind.RNN: "c", Kind.GRU: "urc", Kind.GRU_AFTER: "urc", Kind.LSTM: "iofj"}
_LIBRARY = Library(
    "ONNX",
    _ORDERS,
    lacks=("projection", "clips"),
    activations=dict.fromkeys(_ORDERS, tuple(ACTIVATIONS.values())),
    has_coupled=True,
)
_DIRECTIONS = ("forward", "bidirectional")
_KNOWN = (
    *("op_type", "W", "R", "B", "P", "direction", "activations", "activation_alpha"),
    *("activation_beta", "clip", "input_forget", "linear_before_reset"),
    *("name", "hidden_size", "layout"),  # Accepted, but not used.
)


def nodes(model: object, *names: str) -> list[Params]:
    """Reads the recurrent nodes of an ONNX model as dicts for `load`.

    Pass all nodes of one stack to `load` or `load_bidirectional`. The lengths and
    initial states of a node are not part of its dict; pass them to the driver.

    Args:
        model: The path of a file, the bytes of a file, or an `onnx.ModelProto`. Only a
            path finds weights that are stored in other files.
        *names: Names of nodes, or of the scopes that contain them: "encoder" selects
            "/encoder/LSTM" and "/encoder/LSTM_1". A node without a name has the name of
            its first output. By default, all recurrent nodes.

    Returns:
        A dict for each node, in the order of the names; nodes of one scope are in the
        order of the graph. A dict holds `op_type`, `name`, the arrays W, R and, if the
        node has them, B and P, and the attributes.

    Raises:
        TypeError: If `model` is not one of these types.
        ValueError: If the model has no recurrent node, or none with one of the names;
            the message lists the nodes. Also if a weight is neither an initializer nor
            a Constant.
        ImportError: If the package `onnx` is missing: `pip install onnx`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn, jaxrnn.convert.onnx, jaxrnn.export
        >>> cell, step = jaxrnn.LSTMCell(4), jnp.ones((1, 3), jnp.float32)
        >>> file = jaxrnn.export.to_onnx(cell.bind(cell.init(jax.random.key(0), step)))
        >>> [node] = jaxrnn.convert.onnx.nodes(file)
        >>> node["op_type"], node["W"].shape, node["direction"]
        ('LSTM', (1, 16, 3), 'forward')
    """
    graph = _onnx_nodes.as_model(model).graph
    found = list(_onnx_nodes.recurrent_nodes(graph))
    if not found:
        raise InvalidValue(
            "`model` must have an LSTM, GRU or RNN node, got the operators "
            f"{listed(_onnx_nodes.operators(graph))}."
        )
    return [_onnx_nodes.as_dict(*each) for each in _onnx_nodes.chosen(found, names)]


def load(*nodes: Weights) -> BoundCell:
    """Loads one or several stacked unidirectional nodes as a bound cell.

    Args:
        *nodes: The nodes from the inputs upwards, or a single list of nodes, as
            returned by `save`. Each node is a dict with the arrays W and R and,
            optionally, B, P, `op_type` and the attributes. Missing attributes get
            ONNX's default values, e.g. `linear_before_reset=0` for a GRU.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `GRUCell`, `CudnnCompatibleGRUCell`
        (for `linear_before_reset`), `BasicRNNCell` or
        `contrib.CoupledInputForgetGateLSTMCell` (for `input_forget`); for several
        nodes, a bound `MultiRNNCell`.

    Raises:
        TypeError: If a node is not a dict, or a weight is not a floating-point array.
        ValueError: If a name is missing or unknown, or an array has the wrong shape; if
            a node runs backward or in both directions; if the node has a feature that
            jaxrnn does not support: gates with an activation other than the sigmoid,
            values of `activation_alpha` or `activation_beta` other than ONNX's
            defaults, or a `clip` that has an effect. If all activations are the
            sigmoid, tanh or the hard sigmoid, a clip of at least 104 has no effect in
            float32.

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
    return cell_of_layers([layer for (layer,) in _layers(nodes, 1)])


def load_bidirectional(*nodes: Weights) -> BothCells:
    """Loads one or several stacked bidirectional nodes as bound cells.

    Args:
        *nodes: As in `load`. Each node reads the outputs of both directions of the node
            below.

    Returns:
        `(cells_fw, cells_bw)` for `stack_bidirectional_dynamic_rnn`, each with one cell
        per node.

    Raises:
        TypeError: As in `load`.
        ValueError: If a node has only one direction; also as in `load`.
    """
    return cells_of_pairs(_layers(nodes, 2))


def save(cell: BoundCell) -> list[Params]:
    """Returns a node for each layer of a cell: a dict of arrays and attributes.

    The arrays are W, R, B and, with peepholes, P. `op_type` is the first argument of
    `onnx.helper.make_node`; the other entries are attributes. The first half of B holds
    the biases, including the forget bias. The second half holds the bias that a reset
    gate multiplies; the other entries of this half are zero.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`, `GRUCell`,
            `CudnnCompatibleGRUCell` or `contrib.CoupledInputForgetGateLSTMCell`, or a
            bound `MultiRNNCell` of these.

    Raises:
        TypeError: If `cell` is not one of these bound cells.
        ValueError: If `cell` has a feature that ONNX does not support: a projection,
            clips, layer normalization, or another activation.
    """
    return [_node(each) for each in _bound_cells.layers_of_cell(_LIBRARY, cell)]


def save_bidirectional(cells_fw: Cells, cells_bw: Cells) -> list[Params]:
    """Returns a node for each bidirectional layer; see `save`.

    Args:
        cells_fw: The forward cell of each layer, as in `save`.
        cells_bw: The backward cell of each layer, as in `save`.

    Raises:
        TypeError: As in `save`.
        ValueError: If the directions differ in the number, kinds or sizes of their
            layers; also as in `save`.
    """
    pairs = _bound_cells.pairs_of_cells(_LIBRARY, cells_fw, cells_bw)
    return [_node(*pair) for pair in pairs]


def _layers(nodes: Sequence[Any], directions: int) -> list[tuple[LayerWeights, ...]]:
    """The weights of each node: one `LayerWeights` per direction."""
    layers: list[tuple[LayerWeights, ...]] = []
    depth = None
    for i, node in enumerate(_bound_cells.as_layers("nodes", nodes)):
        layers.append(_directions(f"nodes[{i}]", node, depth, directions))
        depth = sum(layer.units for layer in layers[-1])
    return layers


def _directions(
    name: str, given: object, depth: int | None, directions: int
) -> tuple[LayerWeights, ...]:
    """Reads a node as one `LayerWeights` per direction."""
    node = _as_node(name, given)
    read = reader(node, f"{name}['", "']")
    w = read("W", None, None, depth)
    _check_direction(name, node, w)
    check_directions(name, len(w), directions)
    count, rows, _ = w.shape
    r = read("R", count, rows, None)
    kind = _kind(name, node, r)
    units = r.shape[2]
    b = np.zeros((count, 2 * rows), r.dtype)
    p = [None] * count
    if node.get("B") is not None:
        b = read("B", count, 2 * rows)
    if node.get("P") is not None:
        rows_of_p = reordered(read("P", count, 3 * units), _PEEPHOLES, "ifo")
        p = [tuple(blocks(row, 3)) for row in rows_of_p]
    coupled = is_coupled(name, node, kind)
    activations = read_activations(name, node, kind, w)
    return tuple(
        _LIBRARY.layer(
            kind,
            w.T,
            r.T,
            *blocks(b, 2),
            peepholes=p,
            activation=activation,
            is_coupled=coupled,
        )
        for w, r, b, p, activation in zip(w, r, b, p, activations, strict=True)
    )


def _as_node(name: str, given: object) -> Params:
    """The node, with byte strings from protocol buffers decoded to strings.

    Raises:
        TypeError: If `node` is not a dict.
        ValueError: If an attribute is unknown.
    """
    fix = "`convert.onnx.nodes(model)` reads a list of dicts from a model."
    given = as_mapping(name, given, fix)
    node = {key: _onnx_nodes.as_text(value) for key, value in given.items()}
    operator = node.get("op_type", "LSTM")
    check_one_of(
        f"{name}['op_type']", operator, ("LSTM", "GRU", "RNN"), "LSTM, GRU or RNN"
    )
    check_only(name, node, _KNOWN)
    return node


def _check_direction(name: str, node: Weights, w: np.ndarray) -> None:
    """Raises ValueError if the direction is unknown or does not match W's shape."""
    direction = node.get("direction", _DIRECTIONS[len(w) == 2])
    what = "forward or bidirectional"
    fix = "Load 'reverse' as 'forward', and run it on inputs of `reverse_sequence`."
    check_one_of(f"{name}['direction']", direction, _DIRECTIONS, what, fix)
    count = _DIRECTIONS.index(direction) + 1
    if len(w) != count:
        raise InvalidValue(
            f"`{name}['W']` must have {count} rows, as {direction}, got {describe(w)}."
        )


def _kind(name: str, node: Weights, r: np.ndarray) -> Kind:
    """The `kind` of a `LayerWeights`, from the shape of R and the attributes."""
    units = r.shape[2]
    kind = kind_of(f"{name}['R']", r, r.shape[1], units)
    what = f"{kind} to match `R` ({describe(r)})"
    check_one_of(f"{name}['op_type']", node.get("op_type", kind), (kind,), what)
    for key, owner in (("P", Kind.LSTM), ("linear_before_reset", Kind.GRU)):
        if node.get(key) is not None and kind != owner:
            raise InvalidValue(f"`{name}['{key}']` is only for {owner}, got {kind}.")
    size = node.get("hidden_size", units)
    check_equal(f"{name}['hidden_size']", size, units, f"be {units} to match `R`")
    after = node.get("linear_before_reset") or 0
    check_one_of(f"{name}['linear_before_reset']", after, (0, 1), "0 or 1")
    return Kind.GRU_AFTER if after else kind


def _node(*named: Named) -> Params:
    """Builds the node of a layer that has one or two directions."""
    names, layers = zip(*named, strict=True)
    shapes = {
        (str(layer.kind), layer.input_kernel.shape, layer.units) for layer in layers
    }
    if len(shapes) > 1:
        raise InvalidValue(
            f"`{names[0]}` and `{names[1]}` must be of one kind and size, since one "
            f"node runs both directions, got {sorted(map(str, shapes))}."
        )
    kind = layers[0].kind
    units = layers[0].units
    arrays = [_LIBRARY.arrays(layer) for layer in layers]
    theirs = {ours: name for name, ours in ACTIVATIONS.items()}
    activations = [theirs[layer.activation_key] for layer in layers]
    operator = "GRU" if kind == Kind.GRU_AFTER else str(kind)
    node = {
        "op_type": operator,
        "W": joined([inputs.T[None] for inputs, *_ in arrays]),
        "R": joined([state.T[None] for _, state, *_ in arrays]),
        "B": joined([joined(biases)[None] for _, _, *biases in arrays]),
    }
    if any(layer.peepholes is not None for layer in layers):
        # A direction without peepholes gets zeros, since P covers both directions.
        none = [np.zeros(units, layers[0].bias.dtype)] * 3
        peepholes = [joined(layer.peepholes or none)[None] for layer in layers]
        node["P"] = reordered(joined(peepholes), "ifo", _PEEPHOLES)
    node["hidden_size"] = units
    node["direction"] = _DIRECTIONS[len(layers) - 1]
    node["activations"] = [s for one in activations for s in spelled(kind, one)]
    if all(layer.is_coupled for layer in layers):
        node["input_forget"] = 1
    if operator == "GRU":
        node["linear_before_reset"] = int(kind == Kind.GRU_AFTER)
    return node


_export(globals())
