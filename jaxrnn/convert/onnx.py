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

import os
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from .._base.arguments import check_instance
from .._base.errors import Verbatim, describe, expect
from .._base.modules import export as _export, import_optional
from .._base.typing import Params
from ._layer_weights import (
    Cells,
    Kind,
    Layer,
    Library,
    Named,
    as_layers,
    bind_layers,
    reordered,
)
from ._weights import (
    Reader,
    Weights,
    as_mapping,
    blocks,
    check_directions,
    check_only,
    joined,
    listed,
)

__all__ = ["load", "nodes", "save"]

Proto: TypeAlias = Any
"""A protocol buffer of `onnx`, a package that is imported only where it is used."""
Found: TypeAlias = tuple[Proto, dict[str, Proto]]
"""A recurrent node, and the constants that it can read, by name."""

_OPERATORS = ("LSTM", "GRU", "RNN")
# The index of each array of weights among the operators' inputs. The other inputs (X,
# lengths, initial states) are not weights.
_WEIGHTS = {"W": 1, "R": 2, "B": 3, "P": 7}
# Maps ONNX's names of activations to jaxrnn's names.
_ACTIVATIONS = {
    "Elu": "elu",
    "HardSigmoid": "hard_sigmoid",
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
}
_SPELLINGS = {name.lower(): name for name in _ACTIVATIONS}
# ONNX's defaults, which are also the constants of jaxrnn's activations.
_CONSTANTS = {
    "activation_alpha": {"Elu": 1.0, "HardSigmoid": 0.2},
    "activation_beta": {"HardSigmoid": 0.5},
}
_FIX = "Write the step as a `FunctionCell`."
_OWN_ACTIVATION = (
    "Remove this attribute, and bind the loaded parameters to the same cell with your "
    "own `activation`."
)
_PEEPHOLES = "iof"  # ONNX's order; `LayerWeights` has the order i, f, o.
_ORDERS = {Kind.RNN: "c", Kind.GRU_AFTER: "urc", Kind.GRU: "urc", Kind.LSTM: "iofj"}
_LIBRARY = Library(
    "ONNX",
    _ORDERS,
    lacks=("projection", "clips"),
    activations=dict.fromkeys(_ORDERS, tuple(_ACTIVATIONS.values())),
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
    proto = _as_model(model)
    functions = [f.name for f in proto.functions if any(map(_is_recurrent, f.node))]
    must = "have no recurrent nodes in its functions"
    inlined = "`onnx.inliner.inline_local_functions(onnx.load(path))`"
    fix = f"Import `onnx.inliner`, and pass {inlined}."
    expect(not functions, "model", must, listed(functions), fix)
    found = list(_recurrent_nodes(proto.graph, {}))
    operators = listed(sorted({node.op_type for node in proto.graph.node}))
    expect(found, "model", "have an LSTM, GRU or RNN node", operators)
    return [_as_dict(*each) for each in _chosen(found, names)]


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
    return [_node(layer) for layer in _LIBRARY.layers_of(cell, bidirectional)]


def _as_model(model: Any) -> Proto:
    """Loads a model from a path or from bytes; returns an `onnx.ModelProto` unchanged.

    Raises:
        TypeError: If `model` is none of these.
        ValueError: If the file is not an ONNX file, or onnx cannot read the files with
            the model's weights.
        ImportError: If `onnx` is missing.
    """
    onnx = import_optional("onnx")
    protobuf = import_optional("google.protobuf.message", "protobuf")
    if isinstance(model, onnx.ModelProto):
        return model
    kinds = str | os.PathLike | bytes | bytearray | memoryview
    what = "a path, the bytes of an ONNX file or an `onnx.ModelProto`"
    check_instance("model", model, kinds, what)
    try:
        if isinstance(model, str | os.PathLike):
            return onnx.load(model)
        return onnx.load_from_string(bytes(model))
    except (protobuf.DecodeError, onnx.checker.ValidationError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(
            f"`model` must be an ONNX file, but the ONNX parser rejected it: {reason}."
        ) from None


def _is_recurrent(node: Proto) -> bool:
    return node.op_type in _OPERATORS and node.domain in ("", "ai.onnx")


def _recurrent_nodes(graph: Proto, outer: dict[str, Proto]) -> Iterator[Found]:
    """The recurrent nodes of a graph and its subgraphs, in the graph's order.

    A subgraph, i.e. a branch of `If` or the body of a loop, reads the constants of the
    graph around it, which are `outer`.
    """
    constants = outer | {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            values = [each.t for each in node.attribute if each.name == "value"]
            constants |= zip(node.output, values, strict=False)
        elif node.op_type == "Identity":
            # Exporters use `Identity` to share weights between layers.
            values = [constants[name] for name in node.input if name in constants]
            constants |= zip(node.output, values, strict=False)
        elif _is_recurrent(node):
            yield node, constants
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _recurrent_nodes(attribute.g, constants)


def _chosen(found: list[Found], names: tuple[str, ...]) -> list[Found]:
    """The nodes with these names, or in the scopes with these names; all if no names.

    Raises:
        ValueError: If a name has no recurrent node.
    """
    if not names:
        return found
    picked = []
    for name in names:
        scope = str(name).strip("/")
        own = []
        for pair in found:
            inner = _name(pair[0]).strip("/")
            if inner == scope or inner.startswith(f"{scope}/"):
                own.append(pair)
        must = "be names of recurrent nodes or of their scopes"
        there = listed(f"{_name(node)!r} ({node.op_type})" for node, _ in found)
        expect(own, "names", must, name, f"Found: {there}.")
        picked += own
    return picked


def _name(node: Proto) -> str:
    """The name of a node, of its first output, or of its operator."""
    return next(filter(None, [node.name, *node.output, node.op_type]))


def _as_dict(node: Proto, constants: dict[str, Proto]) -> Params:
    """The node as a dict for `load`.

    Raises:
        ValueError: If a weight is not constant, or cannot be read, or an attribute has
            no value.
    """
    name = _name(node)
    made: Params = {"op_type": node.op_type, "name": name}
    for key, at in _WEIGHTS.items():
        if at < len(node.input) and node.input[at]:
            tensor = constants.get(node.input[at])
            made[key] = _as_array(f"{name}['{key}']", node.input[at], tensor)
    get = import_optional("onnx.helper").get_attribute_value
    for each in node.attribute:
        got = Verbatim(f"a reference to the attribute {each.ref_attr_name!r}")
        place = f"{name}['{each.name}']"
        expect(not each.ref_attr_name, place, "have a value", got)
        made[each.name] = _as_text(get(each))
    return made


def _as_array(place: str, name: str, tensor: Proto) -> np.ndarray:
    """The values of a constant.

    Args:
        place: The weight, which begins messages.
        name: The name of the constant.
        tensor: An `onnx.TensorProto`; None if the value is not constant.

    Raises:
        ValueError: If the value is not constant, is in another file, or does not match
            the type and the dimensions of the tensor.
    """
    must = "be an initializer or the `value` of a Constant node"
    fix = (
        "Export the model with the weights as initializers, or fold constants with "
        "onnxruntime (`optimized_model_filepath`)."
    )
    expect(tensor is not None, place, must, name, fix)
    files = [each.value for each in tensor.external_data if each.key == "location"]
    got = Verbatim(f"{name!r}, which is in the file {str(listed(files))!r}")
    fix = "Store the model next to this file, and pass the model's path."
    is_external = tensor.data_location == tensor.EXTERNAL
    expect(not is_external, place, "be in the model", got, fix)
    try:
        return import_optional("onnx.numpy_helper").to_array(tensor)
    except Exception as error:  # The errors of onnx have no other common class.
        got = f"{name!r} (data_type={tensor.data_type}, dims={list(tensor.dims)})"
        raise ValueError(
            f"`{place}` must be a tensor that onnx can read, got {got}. "
            f"onnx's error: {error!r}"
        ) from None


def _as_text(value: Any) -> Any:
    """Decodes byte strings, also in lists; returns other values unchanged.

    Bytes that are not UTF-8 become escapes, which the checks of the values then show.
    """
    if isinstance(value, list | tuple):
        return [_as_text(each) for each in value]
    return (
        value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
    )


def _layer(name: str, given: object, bidirectional: bool) -> Layer:
    """Reads a node as one `LayerWeights` per direction."""
    node = _as_node(name, given)
    read = Reader(node, f"{name}['", "']")
    found, rows, _ = read("W", None, None, None).shape
    check_directions(name, found, bidirectional)
    count = 1 + bidirectional
    w = read("W", count, None, None)
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
    is_coupled = _flag(name, node, "input_forget", kind, Kind.LSTM)
    activations = _read_activations(name, node, kind, count)
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
        ValueError: If an attribute is unknown.
    """
    fix = "Read the nodes of a model with `convert.onnx.nodes(model)`."
    given = as_mapping(name, given, fix)
    check_only(name, given, _KNOWN)
    return {key: _as_text(value) for key, value in given.items()}


def _kind(name: str, node: Weights, r: np.ndarray) -> Kind:
    """The kind of a node's layer, inferred from the shape of R and the attributes."""
    count, rows, units = r.shape
    kind = _LIBRARY.kind_of(f"{name}['R']", r, rows, units)
    direction = _DIRECTIONS[count - 1]
    of_r = {"direction": direction, "op_type": str(kind), "hidden_size": units}
    for key, want in of_r.items():
        got = node.get(key, want)
        must = f"be {want} to match `R` ({describe(r)})"
        fix = "Pass 'forward', and reverse the inputs with `reverse_sequence`."
        fix = fix if got == "reverse" else ""
        expect(got == want, f"{name}['{key}']", must, got, fix)
    fits = node.get("P") is None or kind == Kind.LSTM
    must = f"be omitted for the operator {kind}"
    expect(fits, f"{name}['P']", must, node.get("P"))
    after = _flag(name, node, "linear_before_reset", kind, Kind.GRU)
    return Kind.GRU_AFTER if after else kind


def _flag(name: str, node: Weights, key: str, kind: Kind, owner: Kind) -> bool:
    """The value of an attribute that is 0 or 1, 0 by default.

    Raises:
        ValueError: If the value is neither 0 nor 1, or is 1 and `kind` is not `owner`.
    """
    value = node.get(key) or 0
    expect(value in (0, 1), f"{name}['{key}']", "be 0 or 1", value)
    fits = not value or kind == owner
    must = f"be 0 for the operator {kind.family}"
    expect(fits, f"{name}['{key}']", must, value)
    return bool(value)


def _read_activations(name: str, node: Weights, kind: Kind, count: int) -> list[str]:
    """The activation of each of the node's `count` directions.

    Raises:
        TypeError: If `activations` is not a list.
        ValueError: If a gate does not use the sigmoid, an activation has no equivalent
            in jaxrnn, or has other constants than in jaxrnn, or there is a `clip`.
    """
    default = _spelled(kind, "Tanh") * count
    given = node.get("activations")
    given = default if given is None else given
    place = f"{name}['activations']"
    check_instance(place, given, list | tuple, "a list of names")
    fits = len(given) == len(default)
    expect(fits, place, f"have length {len(default)}", len(given))
    given = [_SPELLINGS.get(str(one).lower(), one) for one in given]
    size = len(given) // count
    own = given[size - 1 :: size]
    for i, activation in enumerate(own):
        must = f"be {' or '.join(_ACTIVATIONS)}"
        expect(activation in _ACTIVATIONS, place, must, activation, _FIX)
        got, want = given[i * size :][:size], _spelled(kind, activation)
        must = f"be {listed(want)} for each direction"
        expect(got == want, place, must, listed(got), _FIX)
    _check_constants(name, node, given)
    return [_ACTIVATIONS[one] for one in own]


def _spelled(kind: Kind, activation: str) -> list[str]:
    """The entries of the attribute `activations` for one direction."""
    gates = [] if kind == Kind.RNN else ["Sigmoid"]
    return gates + [activation] * (2 if kind == Kind.LSTM else 1)


def _check_constants(name: str, node: Weights, given: list[str]) -> None:
    """Raises ValueError if an activation has other constants than in jaxrnn, or a clip.

    Each activation that has a constant reads the next value; a missing value stands for
    the default.
    """
    for key, constants in _CONSTANTS.items():
        values = node.get(key)
        values = np.atleast_1d([] if values is None else values).tolist()
        want = [constants[one] for one in given if one in constants][: len(values)]
        got = values[: len(want)]
        fits = np.array_equal(np.array(got, "f"), np.array(want, "f"))
        expect(fits, f"{name}['{key}']", f"begin with {want}", got, _OWN_ACTIVATION)
    must = "be omitted, because no cell clips the inputs of its activations"
    expect(node.get("clip") is None, f"{name}['clip']", must, node.get("clip"), _FIX)


def _node(named: list[Named]) -> Params:
    """Builds the node of a layer that has one or two directions."""
    names, layers = zip(*named, strict=True)
    sizes = [f"{layer.kind} (size {layer.units})" for layer in layers]
    must = f"be {sizes[0]} like `{names[0]}`, because one node runs both cells"
    expect(sizes[-1] == sizes[0], names[-1], must, Verbatim(sizes[-1]))
    kind = layers[0].kind
    units = layers[0].units
    arrays = [_LIBRARY.arrays(layer) for layer in layers]
    theirs = {ours: name for name, ours in _ACTIVATIONS.items()}
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
    node["activations"] = [s for one in activations for s in _spelled(kind, one)]
    if all(layer.is_coupled for layer in layers):
        node["input_forget"] = 1
    if kind.family == "GRU":
        node["linear_before_reset"] = int(kind == Kind.GRU_AFTER)
    return node


_export(globals())
