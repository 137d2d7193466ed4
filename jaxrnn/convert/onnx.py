"""Weights of the ONNX operators `LSTM`, `GRU` and `RNN`.

A node is a dict that maps names of inputs to arrays, and names of attributes to values:

    node = {"W": w, "R": r, "B": b, "linear_before_reset": 1}
    cell = jaxrnn.convert.onnx.load(node)
    nodes = jaxrnn.convert.onnx.save(cell)  # One node per layer.

`nodes` reads these dicts from a model:

    cell = jaxrnn.convert.onnx.load(jaxrnn.convert.onnx.nodes("model.onnx"))

ONNX's operators are time major. Their input X corresponds to the `inputs` of
`dynamic_rnn` with `time_major=True`. The output Y has an additional axis for the
directions, after the time axis.
"""

from typing import Any

import numpy as np

from .._base.errors import Verbatim, describe
from .._base.expect import expect
from .._base.modules import export as _export
from .._base.typing import Params
from . import _onnx_nodes
from ._bound_cells import Cells, Layer, Named, as_layers, bind_layers, layers_of
from ._layer_weights import Kind, Library, reordered
from ._onnx_nodes import ACTIVATIONS, read_activations, read_flag, spelled
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

__all__ = ["load", "nodes", "save"]


_PEEPHOLES = "iof"  # ONNX's order; `LayerWeights` has the order i, f, o.
_ORDERS = {Kind.RNN: "c", Kind.GRU_AFTER: "urc", Kind.GRU: "urc", Kind.LSTM: "iofj"}
_LIBRARY = Library(
    "ONNX",
    _ORDERS,
    lacks=("projection", "clips"),
    activations=dict.fromkeys(_ORDERS, tuple(ACTIVATIONS.values())),
)
_DIRECTIONS = ("forward", "bidirectional")
_KNOWN = (
    *("op_type", "W", "R", "B", "P", "direction", "activations", "activation_alpha"),
    *("activation_beta", "clip", "input_forget", "linear_before_reset"),
    # `load` ignores `name` and `layout`, and only checks `hidden_size`.
    *("name", "hidden_size", "layout"),
)


def nodes(model: object, *names: str) -> list[Params]:
    """Reads the recurrent nodes of an ONNX model as dicts for `load`.

    Pass all nodes of one stack to `load`. The dict of a node contains neither lengths
    nor initial states; pass both to `dynamic_rnn`.

    Args:
        model: The path of a file, the bytes of a file, or an `onnx.ModelProto`. If
            weights are stored in other files, pass the path.
        *names: Names of nodes, or of scopes that contain nodes, e.g. "encoder" for
            "/encoder/LSTM" and "/encoder/LSTM_1". For a node without a name, pass the
            name of its first output. Without `names`, all recurrent nodes are read.

    Returns:
        A dict for each node, in the order of the names; nodes of one scope are in the
        order of the graph. A dict holds `op_type`, `name`, the arrays W, R and, if the
        node has them, B and P, and the attributes.

    Raises:
        TypeError: If `model` is not one of these types.
        ValueError: If the model has no recurrent node, or one of the names matches no
            recurrent node; if one of the model's functions has a recurrent node; if a
            weight is neither an initializer nor a Constant, or cannot be read.
        ImportError: If the package `onnx` is missing: `pip install onnx`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn, jaxrnn.convert.onnx, jaxrnn.export
        >>> cell, step = jaxrnn.LSTMCell(4), jnp.ones((1, 3), jnp.float32)
        >>> file = jaxrnn.export.to_onnx(cell.bind(cell.init(jax.random.key(0), step)))
        >>> [node] = jaxrnn.convert.onnx.nodes(file)
        >>> node["op_type"], node["W"].shape, node["direction"]
        ('LSTM', (1, 16, 3), 'forward')
    """
    proto = _onnx_nodes.as_model(model)
    _onnx_nodes.check_functions(proto)
    graph = proto.graph
    found = list(_onnx_nodes.recurrent_nodes(graph))
    operators = listed(sorted({_onnx_nodes.as_text(n.op_type) for n in graph.node}))
    expect(found, "model", "have an LSTM, GRU or RNN node", operators)
    return [_onnx_nodes.as_dict(*each) for each in _onnx_nodes.chosen(found, names)]


def load(*nodes: Weights, bidirectional: bool = False) -> Any:
    """Loads one or several stacked nodes as a bound cell, or as cells per direction.

    Args:
        *nodes: The nodes from the inputs upwards, or a single list of nodes, as
            returned by `save`. Each node is a dict with the arrays W and R and,
            optionally, B, P, `op_type` and the attributes. Missing attributes get
            ONNX's default values, e.g. `linear_before_reset=0` for a GRU. A
            bidirectional node reads the outputs of both directions of the node below.
        bidirectional: Whether the nodes have two directions.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `GRUCell`, `CudnnCompatibleGRUCell`
        (for `linear_before_reset`), `BasicRNNCell` or
        `contrib.CoupledInputForgetGateLSTMCell` (for `input_forget`); for several
        nodes, a bound `MultiRNNCell`. For two directions, `(cells_fw, cells_bw)` for
        `stack_bidirectional_dynamic_rnn`, each with one cell per node.

    Raises:
        TypeError: If a node is not a dict, or a weight is not a floating-point array.
        ValueError: If a name is missing or unknown, or an array has the wrong shape; if
            a node runs only backward, or `bidirectional` does not fit the node; if a
            node has a feature that jaxrnn does not support: gates with an activation
            other than the sigmoid, values of `activation_alpha` or `activation_beta`
            other than ONNX's defaults, or a `clip`.

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
    given = enumerate(as_layers("nodes", nodes))
    return bind_layers(
        [_layer(f"nodes[{i}]", node, bidirectional) for i, node in given]
    )


def save(cell: Cells, *, bidirectional: bool = False) -> list[Params]:
    """Returns a node for each layer of a cell: a dict of arrays and attributes.

    The arrays are W, R, B and, with peepholes, P. `op_type` is the first argument of
    `onnx.helper.make_node`; the other entries are attributes. The first half of B holds
    the biases, including the forget bias. The second half holds the bias that a reset
    gate multiplies; the other entries of this half are zero.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`, `GRUCell`,
            `CudnnCompatibleGRUCell` or `contrib.CoupledInputForgetGateLSTMCell`, or a
            bound `MultiRNNCell` of these. For two directions, the pair
            `(cells_fw, cells_bw)`, each a list with one bound cell per layer.
        bidirectional: Whether `cell` is such a pair.

    Raises:
        TypeError: If `cell` does not hold these bound cells.
        ValueError: If a cell has a feature that ONNX does not support: a projection,
            clips, layer normalization, or an activation that ONNX lacks; if the
            directions differ in the number, kinds or sizes of their layers.
    """
    return [_node(layer) for layer in layers_of(_LIBRARY, cell, bidirectional)]


def _layer(name: str, given: object, bidirectional: bool) -> Layer:
    """Reads a node as one `LayerWeights` per direction."""
    node = _as_node(name, given)
    read = reader(node, f"{name}['", "']")
    w = read("W", None, None, None)
    _check_direction(name, node, w)
    check_directions(name, len(w), bidirectional)
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
    is_coupled = read_flag(name, node, "input_forget", kind, Kind.LSTM)
    activations = read_activations(name, node, kind, w)
    return tuple(
        _LIBRARY.layer(
            kind,
            w.T,
            r.T,
            *blocks(b, 2),
            peepholes=p,
            activation=activation,
            is_coupled=is_coupled,
        )
        for w, r, b, p, activation in zip(w, r, b, p, activations, strict=True)
    )


def _as_node(name: str, given: object) -> Params:
    """The node, with byte strings from protocol buffers decoded to strings.

    Raises:
        TypeError: If `given` is not a dict.
        ValueError: If an attribute or the operator is unknown.
    """
    fix = "Read the nodes of a model with `convert.onnx.nodes(model)`."
    given = as_mapping(name, given, fix)
    node = {key: _onnx_nodes.as_text(value) for key, value in given.items()}
    operator = node.get("op_type", "LSTM")
    expect(
        operator in ("LSTM", "GRU", "RNN"),
        f"{name}['op_type']",
        "be LSTM, GRU or RNN",
        operator,
    )
    check_only(name, node, _KNOWN)
    return node


def _check_direction(name: str, node: Weights, w: np.ndarray) -> None:
    """Raises ValueError if the direction is unknown or does not match W's shape."""
    direction = node.get("direction", _DIRECTIONS[len(w) == 2])
    what = "forward or bidirectional"
    fix = (
        "For 'reverse', pass 'forward', and apply `reverse_sequence` to all sequences."
    )
    expect(
        direction in _DIRECTIONS, f"{name}['direction']", f"be {what}", direction, fix
    )
    count = _DIRECTIONS.index(direction) + 1
    must = f"be [{count}, ...], because the direction is {direction}"
    expect(len(w) == count, f"{name}['W']", must, w)


def _kind(name: str, node: Weights, r: np.ndarray) -> Kind:
    """The kind of a node's layer, inferred from the shape of R and the attributes."""
    units = r.shape[2]
    kind = _LIBRARY.kind_of(f"{name}['R']", r, r.shape[1], units)
    what = f"{kind} to match `R` ({describe(r)})"
    expect(
        node.get("op_type", kind) in (kind,),
        f"{name}['op_type']",
        f"be {what}",
        node.get("op_type", kind),
    )
    fits = node.get("P") is None or kind == Kind.LSTM
    must = f"be omitted for the operator {kind}"
    expect(fits, f"{name}['P']", must, node.get("P"))
    size = node.get("hidden_size", units)
    expect(size == units, f"{name}['hidden_size']", f"be {units} to match `R`", size)
    after = read_flag(name, node, "linear_before_reset", kind, Kind.GRU)
    return Kind.GRU_AFTER if after else kind


def _node(named: list[Named]) -> Params:
    """Builds the node of a layer that has one or two directions."""
    names, layers = zip(*named, strict=True)
    sizes = [f"{layer.kind} (size {layer.units})" for layer in layers]
    must = f"be {sizes[0]} like `{names[0]}`, because one node runs both cells"
    expect(sizes[-1] == sizes[0], names[-1], must, Verbatim(sizes[-1]))
    kind = layers[0].kind
    units = layers[0].units
    arrays = [_LIBRARY.arrays(layer) for layer in layers]
    theirs = {ours: name for name, ours in ACTIVATIONS.items()}
    activations = [theirs[layer.activation_key] for layer in layers]
    node = {
        "op_type": kind.family,
        "W": joined([inputs.T[None] for inputs, *_ in arrays]),
        "R": joined([state.T[None] for _, state, *_ in arrays]),
        "B": joined([joined(biases)[None] for _, _, *biases in arrays]),
    }
    if any(layer.peepholes is not None for layer in layers):
        # A direction without peepholes gets zeros, because P covers both directions.
        none = [np.zeros(units, layers[0].bias.dtype)] * 3
        peepholes = [joined(layer.peepholes or none)[None] for layer in layers]
        node["P"] = reordered(joined(peepholes), "ifo", _PEEPHOLES)
    node["hidden_size"] = units
    node["direction"] = _DIRECTIONS[len(layers) - 1]
    node["activations"] = [s for one in activations for s in spelled(kind, one)]
    if all(layer.is_coupled for layer in layers):
        node["input_forget"] = 1
    if kind.family == "GRU":
        node["linear_before_reset"] = int(kind == Kind.GRU_AFTER)
    return node


_export(globals())
